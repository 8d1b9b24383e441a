"""Deliveries: what goes where, what the destination answered, and when the next attempt is."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from node.admin.parameters import (
    LIST_LIMIT,
    Admin,
    AskedStudy,
    DeliveryStateQuery,
    DestinationQuery,
    Limit,
    Renderer,
)
from node.admin.replies import Delivery, DeliveryList
from node.admin.wording import RESULTS_NOTICE
from storage.states import DeliveryState


def page(
    context: Admin,
    pages: Renderer,
    state: DeliveryStateQuery = None,
    destination: DestinationQuery = None,
) -> HTMLResponse:
    """Show the deliveries, all or of one state or destination."""
    counts = context.deliveries.counts()
    return pages.render(
        "deliveries.html",
        deliveries=context.deliveries.list(
            state=state, destination=destination or None, limit=LIST_LIMIT
        ),
        limit=LIST_LIMIT,
        state=state,
        destination=destination or None,
        destinations=context.deliveries.destinations(),
        counts={item: counts.get(item, 0) for item in DeliveryState},
        total=sum(counts.values()),
        sop_classes=context.deliveries.sop_classes(),
    )


def answer(
    context: Admin,
    state: DeliveryStateQuery = None,
    destination: DestinationQuery = None,
    study: AskedStudy = None,
    limit: Limit = 100,
) -> DeliveryList:
    """Answer the deliveries, all or of one state, destination or study."""
    study_id = study.id if study is not None else None
    found = context.deliveries.list(
        study_id=study_id, destination=destination or None, state=state, limit=limit
    )
    return DeliveryList(
        deliveries=tuple(Delivery.of(item) for item in found), notice=RESULTS_NOTICE
    )


def routes() -> APIRouter:
    """Return the routes of this subject."""
    router = APIRouter()
    router.add_api_route("/deliveries", page, include_in_schema=False, response_class=HTMLResponse)
    router.add_api_route("/api/deliveries", answer, response_model=DeliveryList)
    return router
