"""Is it alive, can it work, and the metrics: for machines."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from node.admin.parameters import Admin, Responses
from node.admin.replies import Health, Readiness


def live(context: Admin) -> JSONResponse:
    """Answer 200 while the process does its work, else 503."""
    alive = context.live()
    status = HTTPStatus.OK if alive else HTTPStatus.SERVICE_UNAVAILABLE
    return JSONResponse(Health(live=alive).model_dump(), status_code=status)


def ready(context: Admin) -> JSONResponse:
    """Answer 200 when every component is ready, else 503 with what is wrong."""
    components = context.readiness()
    problems = {name: problem for name, problem in sorted(components.items()) if problem}
    answer = Readiness(ready=not problems, components=tuple(sorted(components)), problems=problems)
    status = HTTPStatus.SERVICE_UNAVAILABLE if problems else HTTPStatus.OK
    return JSONResponse(answer.model_dump(mode="json"), status_code=status)


def metrics(request: Request) -> Response:
    """Answer the metrics in the Prometheus text format."""
    registry = request.app.state.registry
    if not isinstance(registry, CollectorRegistry):
        raise TypeError("the application was made without a metrics registry")
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


def routes() -> APIRouter:
    """Return the routes of this subject."""
    router = APIRouter()
    unready: Responses = {int(HTTPStatus.SERVICE_UNAVAILABLE): {"model": Readiness}}
    dead: Responses = {int(HTTPStatus.SERVICE_UNAVAILABLE): {"model": Health}}
    router.add_api_route("/livez", live, response_model=Health, responses=dead)
    router.add_api_route("/readyz", ready, response_model=Readiness, responses=unready)
    router.add_api_route("/metrics", metrics, include_in_schema=False)
    return router
