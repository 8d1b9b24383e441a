"""The admin page and the JSON API as one application, and the server that runs it.

Read only. Loopback only: there is no log-in yet, so nobody else may reach it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path
from traceback import extract_tb
from typing import Final

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from node.admin.context import AdminContext
from node.admin.guard import SECURITY_HEADERS, Guard
from node.admin.metrics import make_registry
from node.admin.pages import Pages
from node.admin.replies import Problem
from node.admin.serving import Address, AppServer
from node.admin.views import (
    deliveries,
    engines,
    health,
    jobs,
    overview,
    quarantine,
    recalls,
    retention,
    reviews,
    rules,
    studies,
)
from storage.records import StorageError

__all__ = ["AdminContext", "AdminServer", "AdminServerError", "create_app"]

STATIC: Final = Path(__file__).parent / "static"

log = structlog.get_logger()


class AdminServerError(Exception):
    """The admin page cannot be served at the address asked for."""


def create_app(context: AdminContext) -> FastAPI:
    """Make the application: pages, JSON API, health, metrics, all behind the guard."""
    app = FastAPI(
        title=f"wetread {context.device_name}",
        version=context.version,
        docs_url=None,  # these two fetch their scripts from elsewhere
        redoc_url=None,
        openapi_url="/api/openapi.json",
    )
    app.state.context = context
    app.state.pages = Pages(context)
    app.state.registry = make_registry(context)
    for subject in (
        overview,
        studies,
        jobs,
        deliveries,
        rules,
        engines,
        quarantine,
        recalls,
        retention,
        reviews,
        health,
    ):
        app.include_router(subject.routes())
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _malformed)
    app.add_exception_handler(StorageError, _no_storage)
    app.add_exception_handler(Exception, _failed)
    app.add_middleware(Guard)
    return app


class AdminServer(AppServer):
    """Serve the admin page from a thread of its own, on a loopback address."""

    def __init__(self, context: AdminContext, host: str, port: int) -> None:
        """Keep the address; nothing is opened yet.

        Raises:
            AdminServerError: the host is not a loopback address.
        """
        super().__init__(
            create_app(context),
            Address(host=_loopback(host), port=port),
            name="admin",
            what="the admin page",
            error=AdminServerError,
        )


def _loopback(host: str) -> str:
    if host == "localhost":
        return "127.0.0.1"
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError as error:
        raise AdminServerError(
            f"admin.host: {host!r} is not an address; use 127.0.0.1 or ::1"
        ) from error
    if str(address) not in {"127.0.0.1", "::1"}:
        raise AdminServerError(
            f"admin.host: {host} is not the loopback address; the admin page has no log-in,"
            " so it is served on 127.0.0.1 or ::1 only"
        )
    return str(address)


def _refused(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise TypeError("not an HTTPException") from error
    text = error.detail
    if error.status_code == HTTPStatus.NOT_FOUND and text == HTTPStatus.NOT_FOUND.phrase:
        text = "There is no page at this address."
    return _answer(request, error.status_code, text)


def _malformed(request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise TypeError("not a RequestValidationError") from error
    parts = [_complaint(item["loc"], str(item["msg"])) for item in error.errors()]
    return _answer(request, HTTPStatus.UNPROCESSABLE_ENTITY, "; ".join(parts))


def _complaint(where: Sequence[object], message: str) -> str:
    place = ".".join(str(part) for part in where)
    if place.endswith("study_instance_uid"):
        return "A Study Instance UID is made of digits and dots, 64 characters at most."
    return f"{place}: {message}"


def _no_storage(request: Request, error: Exception) -> Response:
    log.error("admin.no_storage", error=type(error).__name__)
    text = "The node's database cannot be read now."
    return _answer(request, HTTPStatus.SERVICE_UNAVAILABLE, text)


def _failed(request: Request, error: Exception) -> Response:
    """Log where it failed, but not the error's text: that may quote a data set."""
    frames = extract_tb(error.__traceback__)
    place = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    log.error("admin.request_failed", error=type(error).__name__, place=place)
    text = "The page failed. The node's log names the place."
    response = _answer(request, HTTPStatus.INTERNAL_SERVER_ERROR, text)
    response.headers.update(SECURITY_HEADERS)  # this answer is made outside the guard
    return response


def _answer(request: Request, status: int, text: str) -> Response:
    pages = request.app.state.pages
    if request.url.path.startswith("/api/") or not isinstance(pages, Pages):
        return JSONResponse(Problem(error=text).model_dump(), status_code=status)
    title = HTTPStatus(status).phrase
    return pages.render("message.html", status=status, title=title, text=text)
