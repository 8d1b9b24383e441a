"""Quarantine: bytes that were kept although they cannot be indexed."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from node.admin.parameters import LIST_LIMIT, Admin, Renderer


def page(context: Admin, pages: Renderer) -> HTMLResponse:
    """Show what lies in quarantine, with the reason for each."""
    return pages.render(
        "quarantine.html", items=context.studies.quarantined(LIST_LIMIT), limit=LIST_LIMIT
    )


def routes() -> APIRouter:
    """Return the routes of this subject."""
    router = APIRouter()
    router.add_api_route("/quarantine", page, include_in_schema=False, response_class=HTMLResponse)
    return router
