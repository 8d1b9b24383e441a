"""Engines: which packages this node knows, and whether each may take jobs."""

from __future__ import annotations

from fastapi import APIRouter

from node.admin.parameters import Admin
from node.admin.replies import Engine, EngineList


def answer(context: Admin) -> EngineList:
    """Answer every engine with its state and the reason for it."""
    return EngineList(
        engines=tuple(Engine.model_validate(engine) for engine in context.engines.list())
    )


def routes() -> APIRouter:
    """Return the routes of this subject."""
    router = APIRouter()
    router.add_api_route("/api/engines", answer, response_model=EngineList)
    return router
