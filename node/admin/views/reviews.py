"""What engines found and did not believe: it waits for a person to decide on the command line."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from node.admin.context import AdminContext
from node.admin.parameters import LIST_LIMIT, Admin, Renderer
from node.admin.replies import Review, ReviewList
from storage.reviews import ReviewRecord
from storage.states import ReviewState


def page(context: Admin, pages: Renderer) -> HTMLResponse:
    """Show what waits, longest first, and what was decided."""
    waiting, decided = _reviews(context)
    return pages.render("reviews.html", waiting=waiting, decided=decided, limit=LIST_LIMIT)


def answer(context: Admin) -> ReviewList:
    """Answer what waits, longest first, and what was decided, newest first."""
    waiting, decided = _reviews(context)
    return ReviewList(
        waiting=tuple(Review.model_validate(item) for item in waiting),
        decided=tuple(Review.model_validate(item) for item in decided),
    )


def _reviews(context: AdminContext) -> tuple[list[ReviewRecord], list[ReviewRecord]]:
    waiting = list(context.reviews.list(waiting=True, limit=LIST_LIMIT))
    newest = context.reviews.list(limit=LIST_LIMIT)
    return waiting, [item for item in newest if item.state is not ReviewState.WAITING]


def routes() -> APIRouter:
    """Return the routes of this subject."""
    router = APIRouter()
    router.add_api_route("/reviews", page, include_in_schema=False, response_class=HTMLResponse)
    router.add_api_route("/api/reviews", answer, response_model=ReviewList)
    return router
