"""Recalls: which results were taken back, by whom and why, and who is still to be told."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from node.admin.parameters import LIST_LIMIT, Admin, Renderer
from node.admin.replies import Recall, RecallList


def page(context: Admin, pages: Renderer) -> HTMLResponse:
    """Show the recalls, newest first, and how one is called for."""
    return pages.render(
        "recalls.html", recalls=context.recalls.list(limit=LIST_LIMIT), limit=LIST_LIMIT
    )


def answer(context: Admin) -> RecallList:
    """Answer the recalls, newest first."""
    return RecallList(
        recalls=tuple(Recall.of(item) for item in context.recalls.list(limit=LIST_LIMIT))
    )


def routes() -> APIRouter:
    """Return the routes of this subject."""
    router = APIRouter()
    router.add_api_route("/recalls", page, include_in_schema=False, response_class=HTMLResponse)
    router.add_api_route("/api/recalls", answer, response_model=RecallList)
    return router
