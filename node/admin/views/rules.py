"""Rules: the revision in force, and the ones before it."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from fastapi import APIRouter, HTTPException
from fastapi.responses import HTMLResponse

from node.admin.parameters import Admin, Renderer, Responses
from node.admin.replies import Problem, Rules

EARLIER: Final = 10
NO_RULES: Final = "No rules have been saved at this node yet."


def page(context: Admin, pages: Renderer) -> HTMLResponse:
    """Show the text of the rules in force, who saved them and when."""
    current = context.rules.current()
    last = current.revision - 1 if current is not None else 0
    earlier = [context.rules.get(number) for number in range(last, max(0, last - EARLIER), -1)]
    return pages.render("rules.html", current=current, earlier=earlier)


def answer(context: Admin) -> Rules:
    """Answer the rules in force.

    Raises:
        HTTPException: 404, if none were ever saved.
    """
    current = context.rules.current()
    if current is None:
        raise HTTPException(HTTPStatus.NOT_FOUND, NO_RULES)
    return Rules.model_validate(current)


def routes() -> APIRouter:
    """Return the routes of this subject."""
    router = APIRouter()
    missing: Responses = {int(HTTPStatus.NOT_FOUND): {"model": Problem}}
    router.add_api_route("/rules", page, include_in_schema=False, response_class=HTMLResponse)
    router.add_api_route("/api/rules/current", answer, response_model=Rules, responses=missing)
    return router
