"""STOW-RS in: each part of a request goes to the disk as it comes (PS3.18 10.5).

A request is to the node what an association is: while it is open it holds its studies open, and
what it brings is answered for only once it is durable.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import ClassVar, Final

import structlog
from pydantic import Field, PositiveFloat, PositiveInt

from node.interfaces import (
    Ingest,
    Intake,
    Listener,
    ListenerError,
    OutOfResources,
    PluginSettings,
    Source,
)
from node.listeners._http_server import HttpLimits, HttpServer, LostError, Reply, Request
from node.listeners._related_parts import MediaTypeError, PartsError, RelatedParts, boundary_of
from node.listeners._stored_parts import DICOM, StoredParts, TooManyError
from node.listeners._web_access import Door, WebAccessError, WebUser, user_of

STUDIES: Final = "/dicom-web/studies"
DICOM_JSON: Final = "application/dicom+json"
JSON_TYPES: Final = (DICOM_JSON, "application/json", "application/*", "*/*")
CHALLENGE: Final = {"WWW-Authenticate": 'Basic realm="wetread", charset="UTF-8"'}
RETRY_SECONDS: Final = 30
SETTLE_SECONDS: Final = 5.0
MIB: Final = 1 << 20
STATUSES: Final = {
    HTTPStatus.OK: "Every instance is kept, durably; also one that was here already.",
    HTTPStatus.ACCEPTED: "Some are kept, and some are refused; the answer says which and why.",
    HTTPStatus.BAD_REQUEST: "The body is no multipart body with the boundary named, has no part, "
    "or ends before its first part does.",
    HTTPStatus.UNAUTHORIZED: "Nobody's credentials, or not from that address.",
    HTTPStatus.NOT_FOUND: "Another address than `/dicom-web/studies`.",
    HTTPStatus.METHOD_NOT_ALLOWED: "Another method than POST.",
    HTTPStatus.NOT_ACCEPTABLE: "Another answer than JSON is asked for.",
    HTTPStatus.CONFLICT: "None is kept; the answer says why, instance by instance.",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "More bytes (`max_request_mib`) or parts (`max_parts`) "
    "than taken at once; the answer says what is kept of it.",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "Another media type, or a content encoding.",
    HTTPStatus.SERVICE_UNAVAILABLE: "No room now, for anything or for any of these; Retry-After.",
}
"""What a request is answered with (PS3.18 table 10.5.3-1)."""

log = structlog.get_logger()


class WebSender(WebUser):
    """Somebody who may send."""

    addresses: tuple[str, ...] = Field(
        (), description="IP addresses they may come from; empty: any."
    )
    urgent: bool = Field(
        False, description="What they send is taken where disk is short for others."
    )


class DicomwebListenerSettings(Door, PluginSettings):
    """[listeners.dicomweb]: studies by STOW-RS."""

    port: int = Field(8044, ge=0, le=65535, description="Port; 0 takes a free one.")
    users: tuple[WebSender, ...] = Field(
        (),
        description="Who may send; the name stands for the calling AE title in rules and quotas. "
        "Without any: anybody, on loopback only.",
    )
    max_parts: PositiveInt = Field(
        10_000, description="Most objects in one request; more is answered 413."
    )
    max_request_mib: PositiveInt = Field(
        16_384, description="Largest request, in MiB; a larger one is answered 413."
    )
    max_connections: PositiveInt = Field(32, description="Connections at a time.")
    max_connections_per_address: PositiveInt = Field(
        16, description="Connections at a time from one IP address."
    )
    head_seconds: PositiveFloat = Field(
        10.0, description="Time for the TLS handshake, and for the head of a request, in seconds."
    )
    network_seconds: PositiveFloat = Field(
        60.0, description="Time without a byte until a connection is closed, in seconds."
    )
    total_seconds: PositiveFloat = Field(
        3600.0, description="Time for one request, in seconds; then it is cut off."
    )
    grace_seconds: PositiveFloat = Field(
        20.0, description="Time for requests in flight when the node stops, in seconds."
    )


class DicomwebListener(Listener[DicomwebListenerSettings]):
    """An origin server of the store transaction."""

    name: ClassVar[str] = "dicomweb"
    settings_type: ClassVar[type[PluginSettings]] = DicomwebListenerSettings

    def __init__(self, settings: DicomwebListenerSettings, ingest: Ingest) -> None:
        self._settings = settings
        self._ingest = ingest
        self._server: HttpServer | None = None
        self._port = settings.port

    def start(self) -> None:
        """Open the port.

        Raises:
            ListenerError: naming the address, or the certificate that cannot be read.
        """
        settings = self._settings
        try:
            tls = settings.tls.context() if settings.tls is not None else None
        except WebAccessError as error:
            raise ListenerError(f"listeners.dicomweb.{error}") from error
        bound = self._bound()
        limits = HttpLimits(
            head_seconds=settings.head_seconds,
            idle_seconds=settings.network_seconds,
            total_seconds=settings.total_seconds,
            connections=settings.max_connections,
            connections_per_address=settings.max_connections_per_address,
            grace_seconds=settings.grace_seconds,
        )
        self._server = HttpServer(bound, self.handle, limits, tls)
        self._server.start()

    def stop(self) -> None:
        """Accept no more, and let requests in flight end within the grace time."""
        server, self._server = self._server, None
        if server is not None:
            server.stop()

    def address(self) -> str:
        """Say where studies can be posted to."""
        host = self._settings.host
        shown = f"[{host}]" if ":" in host else host
        scheme = "https" if self._settings.tls is not None else "http"
        return f"{scheme}://{shown}:{self._port}{STUDIES}"

    def _bound(self) -> socket.socket:
        host = self._settings.host
        bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind((host, self._settings.port))
        except OSError as error:
            bound.close()
            raise ListenerError(
                f"listeners.dicomweb: {host} port {self._settings.port}: {error.strerror}"
            ) from error
        self._port = bound.getsockname()[1]
        return bound

    # ------------------------------------------------------------ requests

    def handle(self, request: Request) -> Reply:
        """Answer one request. What is refused by its head is never read."""
        source = self._source(request)
        if isinstance(source, Reply):
            return source
        refusal = self._refusal(request)
        if refusal is not None:
            return refusal
        try:
            boundary = boundary_of(request.header("content-type"), DICOM)
        except MediaTypeError as error:
            return _problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, str(error))
        except PartsError as error:
            return _problem(HTTPStatus.BAD_REQUEST, str(error))
        try:
            self._ingest.admit(source, stores=True)
            intake = self._ingest.open(source)
        except OutOfResources:
            log.warning("dicomweb.no_room", peer=source.peer_address)
            return _problem(
                HTTPStatus.SERVICE_UNAVAILABLE, "There is no room now.", retry=RETRY_SECONDS
            )
        return self._stored(request, boundary, intake, source)

    def _source(self, request: Request) -> Source | Reply:
        """Return who sends, or how they are refused."""
        settings = self._settings
        name = user_of(request.header("authorization"), settings.users)
        user = next((user for user in settings.users if user.name == name), None)
        peer = request.peer_address
        if name is None or (user and user.addresses and peer not in user.addresses):
            log.warning("dicomweb.user_refused", peer=peer)
            return _problem(HTTPStatus.UNAUTHORIZED, "Credentials are needed.", CHALLENGE)
        return Source(
            listener=self.name,
            calling_ae=name,
            peer_address=peer,
            urgent=user is not None and user.urgent,
        )

    def _refusal(self, request: Request) -> Reply | None:
        if request.path.rstrip("/") != STUDIES:
            return _problem(HTTPStatus.NOT_FOUND, f"Studies are posted to {STUDIES}.")
        if request.method != "POST":
            return _problem(HTTPStatus.METHOD_NOT_ALLOWED, "POST only.", {"Allow": "POST"})
        if request.header("content-encoding") not in {"", "identity"}:
            return _problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "No content encoding is taken.")
        accept = request.header("accept").lower() or DICOM_JSON
        if not any(kind in accept for kind in JSON_TYPES):
            return _problem(HTTPStatus.NOT_ACCEPTABLE, f"Answers are {DICOM_JSON}.")
        length = request.header("content-length")
        if length and int(length) > self._settings.max_request_mib * MIB:
            return _problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The request is too large.")
        return None

    def _stored(self, request: Request, boundary: str, intake: Intake, source: Source) -> Reply:
        """Take the parts; answer for each once it is durable."""
        parts = StoredParts(intake, self._settings.max_parts)
        started = time.monotonic()
        with _closing(intake, parts):
            status = self._take(request, boundary, parts)
            intake.settle(SETTLE_SECONDS)  # who asks for it now finds it
        outcome = parts.outcome
        status = outcome.status() if status is None else status
        log.info(
            "dicomweb.stored",
            peer=source.peer_address,
            user=source.calling_ae,
            status=int(status),
            stored=len(outcome.stored),
            refused=len(outcome.failed) + len(outcome.nameless),
            seconds=round(time.monotonic() - started, 3),
        )
        return _answer(status, outcome.content())

    def _take(self, request: Request, boundary: str, parts: StoredParts) -> HTTPStatus | None:
        """Feed the body to the parts; return a status that goes before the parts' own.

        Raises:
            LostError: the sender is gone.
        """
        related = RelatedParts(boundary, parts)
        try:
            for piece in _bounded(request.body(), self._settings.max_request_mib * MIB):
                related.take(piece)
            related.finish()
        except TooManyError:
            parts.cut()
            return HTTPStatus.REQUEST_ENTITY_TOO_LARGE
        except PartsError as error:
            log.warning("dicomweb.body_refused", reason=str(error))
            parts.cut()
            return None if parts.outcome.stored else HTTPStatus.BAD_REQUEST
        if not parts.outcome.stored and parts.outcome.status() is HTTPStatus.OK:
            return HTTPStatus.BAD_REQUEST  # no part at all
        return None


def _bounded(pieces: Iterator[bytes], most: int) -> Iterator[bytes]:
    """Yield pieces of a body whose length nobody told.

    Raises:
        TooManyError: there are more bytes than that.
    """
    for piece in pieces:
        most -= len(piece)
        if most < 0:
            raise TooManyError
        yield piece


@contextmanager
def _closing(intake: Intake, parts: StoredParts) -> Iterator[None]:
    aborted = True
    try:
        yield
        aborted = False
    except LostError:
        parts.cut()
        raise
    finally:
        intake.close(aborted=aborted)


def _answer(status: HTTPStatus, content: bytes) -> Reply:
    headers = {}
    if status is HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = str(RETRY_SECONDS)
    return Reply(status=status, content=content, content_type=DICOM_JSON, headers=headers)


def _problem(
    status: HTTPStatus, text: str, headers: dict[str, str] | None = None, *, retry: int = 0
) -> Reply:
    found = dict(headers or {})
    if retry:
        found["Retry-After"] = str(retry)
    return Reply(status=status, content=json.dumps({"error": text}).encode(), headers=found)
