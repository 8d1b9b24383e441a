"""Retention: what the rules let go, what went, and what is held."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from node.admin.context import AdminContext
from node.admin.pages import size_text
from node.admin.parameters import LIST_LIMIT, Admin, Renderer
from node.admin.replies import Deletion, DeletionTotal, Hold, Retention

NEVER: Final = "never"


def page(context: Admin, pages: Renderer) -> HTMLResponse:
    """Show the rules, what they deleted so far, and the studies they must leave alone."""
    return pages.render(
        "retention.html",
        rules=rules_in_words(context),
        free=context.free_bytes(),
        oldest=context.holds.oldest_kept(),
        unfinished=context.holds.unfinished(),
        totals=context.holds.totals(),
        holds=context.holds.list(),
        deletions=context.holds.deletions(limit=LIST_LIMIT),
        limit=LIST_LIMIT,
    )


def rules_in_words(context: AdminContext) -> tuple[tuple[str, str], ...]:
    """Return each rule of the configuration: what it deletes, and when."""
    policy = context.policy
    early = NEVER
    if policy.low_bytes:
        low, high = size_text(policy.low_bytes), size_text(policy.high_bytes)
        early = f"below {low} of free disk, until {high} are free"
    return (
        ("Received instances of studies that are done", _after(policy.studies_days)),
        ("The same early, oldest first", early),
        ("What failed and a person could set going again", _after(policy.failed_days)),
        ("Result objects that were delivered", _after(policy.results_days)),
        ("Quarantine", _after(policy.quarantine_days)),
        ("Duplicates, and our own results sent back", _after(policy.duplicates_days)),
    )


def _after(days: float | None) -> str:
    return NEVER if days is None else f"after {days:g} days"


def answer(context: Admin) -> Retention:
    """Answer what the rules deleted, and what is held."""
    return Retention(
        free_bytes=context.free_bytes(),
        oldest_kept=context.holds.oldest_kept(),
        unfinished=context.holds.unfinished(),
        totals=tuple(DeletionTotal.model_validate(item) for item in context.holds.totals()),
        holds=tuple(Hold.model_validate(item) for item in context.holds.list()),
        deletions=tuple(
            Deletion.model_validate(item) for item in context.holds.deletions(limit=LIST_LIMIT)
        ),
    )


def routes() -> APIRouter:
    """Return the routes of this subject."""
    router = APIRouter()
    router.add_api_route("/retention", page, include_in_schema=False, response_class=HTMLResponse)
    router.add_api_route("/api/retention", answer, response_model=Retention)
    return router
