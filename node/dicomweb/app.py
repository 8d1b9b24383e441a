"""The read side of DICOMweb as an application: addresses, who may ask, refusals. GET only."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from traceback import extract_tb
from typing import Final

import structlog
from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from node.admin.guard import ALLOWED_HOSTS, host_name
from node.admin.serving import Address, AppServer
from node.dicomweb import queries, retrieving
from node.dicomweb.parameters import PREFIX
from node.dicomweb.reader import GoneError, Reader, UnreadableError
from node.dicomweb.replies import problem
from node.dicomweb.search import SearchError
from node.dicomweb.settings import DicomwebSettings
from node.listeners._web_access import WebAccessError, user_of
from storage.holdings import HoldingStore
from storage.records import StorageError

CHALLENGE: Final = {"WWW-Authenticate": 'Basic realm="wetread", charset="UTF-8"'}
STATUSES: Final = {
    "no_such_part": HTTPStatus.NOT_FOUND,
    "too_large": HTTPStatus.NOT_ACCEPTABLE,
    "not_renderable": HTTPStatus.NOT_ACCEPTABLE,
    "unreadable": HTTPStatus.NOT_ACCEPTABLE,
}

log = structlog.get_logger()


class DicomwebError(Exception):
    """DICOMweb cannot be served as configured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DicomwebContext:
    """Everything that the read side may use."""

    settings: DicomwebSettings
    holdings: HoldingStore
    reader: Reader


def create_app(context: DicomwebContext) -> FastAPI:
    """Make the application."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.state.holdings = context.holdings
    app.state.reader = context.reader
    app.state.settings = context.settings
    router = APIRouter(prefix=PREFIX, dependencies=[Depends(permit)])
    queries.add_routes(router)
    retrieving.add_routes(router)
    app.include_router(router)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _malformed)
    app.add_exception_handler(SearchError, _not_searchable)
    app.add_exception_handler(GoneError, _gone)
    app.add_exception_handler(UnreadableError, _unreadable)
    app.add_exception_handler(StorageError, _no_storage)
    app.add_exception_handler(Exception, _failed)
    if context.settings.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(context.settings.origins),
            allow_methods=["GET"],
            allow_headers=["Authorization", "Accept"],
            expose_headers=["Warning"],
        )
    return app


def permit(request: Request) -> None:
    """Let in who shows credentials that are known, or, without any, who asks by loopback.

    Asked by another name, a page of a foreign site may be asking: names can be bound anew.
    """
    settings: DicomwebSettings = request.app.state.settings
    if not settings.users and settings.tls is None:
        hosts = request.headers.getlist("host")
        if len(hosts) != 1 or host_name(hosts[0]) not in ALLOWED_HOSTS:
            log.warning("dicomweb.host_refused")
            raise HTTPException(HTTPStatus.MISDIRECTED_REQUEST, "Ask by the loopback address.")
    user = user_of(request.headers.get("authorization", ""), settings.users)
    if user is None:
        log.warning("dicomweb.user_refused", peer=request.client.host if request.client else "")
        raise HTTPException(HTTPStatus.UNAUTHORIZED, "Credentials are needed.", CHALLENGE)
    request.state.user = user


class DicomwebServer(AppServer):
    """Serves DICOMweb at the address of its settings."""

    def __init__(self, context: DicomwebContext) -> None:
        """Read certificates; open nothing yet.

        Raises:
            DicomwebError
        """
        settings = context.settings
        try:
            tls = settings.tls.context() if settings.tls is not None else None
        except WebAccessError as error:
            raise DicomwebError(f"dicomweb.{error}") from error
        super().__init__(
            create_app(context),
            Address(host=settings.host, port=settings.port, tls=tls),
            name="dicomweb",
            what="DICOMweb",
            error=DicomwebError,
        )

    def address(self) -> str:
        """Return the address that viewers are given."""
        return f"{self.url.rstrip('/')}{PREFIX}"


# ---------------------------------------------------------------- refusals


def _refused(_request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise TypeError("not an HTTPException") from error
    return problem(error.status_code, str(error.detail), error.headers)


def _malformed(_request: Request, _error: Exception) -> Response:
    return problem(HTTPStatus.BAD_REQUEST, "A UID, a frame number or a parameter is malformed.")


def _not_searchable(_request: Request, error: Exception) -> Response:
    return problem(HTTPStatus.BAD_REQUEST, str(error))


def _gone(_request: Request, _error: Exception) -> Response:
    return problem(HTTPStatus.GONE, "Its bytes were deleted.")


def _unreadable(_request: Request, error: Exception) -> Response:
    kind = error.kind if isinstance(error, UnreadableError) else ""
    status = STATUSES.get(kind, HTTPStatus.INTERNAL_SERVER_ERROR)
    log.warning("dicomweb.not_given", kind=kind)
    return problem(status, f"It cannot be given: {kind.replace('_', ' ')}.")


def _no_storage(_request: Request, error: Exception) -> Response:
    log.error("dicomweb.no_storage", error=type(error).__name__)
    return problem(HTTPStatus.SERVICE_UNAVAILABLE, "The database cannot be read now.")


def _failed(_request: Request, error: Exception) -> Response:
    """Log where it failed, but not the error's text: that may quote a data set."""
    frames = extract_tb(error.__traceback__)
    place = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    log.error("dicomweb.request_failed", error=type(error).__name__, place=place)
    return problem(HTTPStatus.INTERNAL_SERVER_ERROR, "It failed. The node's log names the place.")
