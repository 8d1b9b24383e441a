"""STOW-RS to an archive: one object a request, over one connection (PS3.18 10.5).

Objects are sent as they are kept, read from the disk a piece at a time. One a request, because the
answer is then about this object alone: what is too large, or refused, takes no other with it.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path
from typing import Any, ClassVar, Final

import httpx

from node.delivery._part10 import KeptFile, UnreadableError, wrong_in
from node.delivery._stow_answer import MOST_ANSWER, Answer, judge_answer, judge_status
from node.delivery._stow_settings import AccessError, StowTargetSettings
from node.interfaces import (
    IMPLEMENTATION_VERSION_NAME,
    DeliveryTarget,
    Outgoing,
    PluginSettings,
    ReportSent,
    SendVerdict,
    Sent,
)

OVER: Final = "the time for all objects is up"
CONNECTED: Final = frozenset({"connection.connect_tcp.complete", "connection.start_tls.complete"})
PIECE: Final = 256 << 10
MEDIA_TYPE: Final = 'multipart/related; type="application/dicom"; boundary={}'
NOTHING: Final = "nothing"
THERE: Final = frozenset({400, 409, 415, 422})
"""What a service answers that lets us in, to a request without an object."""


class _OutOfTimeError(Exception):
    """The time for all objects is up."""


class _LongAnswerError(Exception):
    """The answer has no end."""


class StowTarget(DeliveryTarget[StowTargetSettings]):
    """A user agent of the store transaction."""

    name: ClassVar[str] = "stow"
    settings_type: ClassVar[type[PluginSettings]] = StowTargetSettings

    def __init__(self, settings: StowTargetSettings) -> None:
        self._settings = settings
        self._url = f"{settings.url}/studies"

    def address(self) -> str:
        """Say where results go."""
        return self._settings.url

    def send(self, objects: Sequence[Outgoing], report: ReportSent) -> None:
        """Send objects in order, as they are; report each answer as it comes.

        Once the service cannot be used, the rest is not sent.
        """
        deadline = _Deadline(self._settings.total_seconds)
        waiting = iter(enumerate(objects))
        try:
            with self._client() as client, deadline:
                for index, item in waiting:
                    sent, ended = self._send_one(client, item, deadline)
                    report(index, sent)
                    if ended is not None:
                        break
                else:
                    return
        except AccessError as error:
            ended = _unsent(_unreachable(str(error)))
        for index, _ in waiting:
            report(index, ended)

    def probe(self) -> Sent:
        """Ask whether a store service is there that lets us in, by a request without an object."""
        deadline = _Deadline(self._settings.total_seconds)
        try:
            with self._client() as client, deadline:
                status = client.post(
                    self._url,
                    content=f"--{NOTHING}--\r\n",
                    headers={"Content-Type": MEDIA_TYPE.format(NOTHING)},
                    timeout=self._timeout(deadline.until),
                    extensions={"trace": deadline.see},
                ).status_code
        except AccessError as error:
            return _unreachable(str(error))
        except (httpx.HTTPError, _OutOfTimeError) as error:
            return _unreachable(f"no answer: {_why(error)}")
        if status // 100 == HTTPStatus.OK // 100 or status in THERE:
            return Sent(verdict=SendVerdict.ACCEPTED)
        return _unreachable(judge_status(status).message)

    def _client(self) -> httpx.Client:
        """Return a connection to be; neither a proxy nor a redirection takes an object elsewhere.

        Raises:
            AccessError: a secret or certificate cannot be read.
        """
        settings = self._settings
        headers = {
            "User-Agent": IMPLEMENTATION_VERSION_NAME,
            "Accept": "application/dicom+json",
            "Accept-Encoding": "identity",
            **settings.authorization(),
        }
        return httpx.Client(
            headers=headers, verify=settings.tls(), trust_env=False, follow_redirects=False
        )

    def _timeout(self, until: float) -> httpx.Timeout:
        """Return how long each step may take now.

        Raises:
            _OutOfTimeError: there is no time left.
        """
        left = until - time.monotonic()
        if left <= 0:
            raise _OutOfTimeError
        settings = self._settings
        return httpx.Timeout(
            min(settings.answer_seconds, left), connect=min(settings.connect_seconds, left)
        )

    def _send_one(
        self, client: httpx.Client, item: Outgoing, deadline: _Deadline
    ) -> tuple[Sent, Sent | None]:
        """Send one object; return what came of it, and of the others where that is an end."""
        try:
            wrong = _wrong(item)
            sent = _refused(wrong) if wrong else self._post(client, item, deadline)
        except UnreadableError as error:
            return _refused(str(error)), None
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            nobody = _unreachable(f"no connection with {self._settings.url}: {_why(error)}")
            return _unsent(nobody), _unsent(nobody)
        except _OutOfTimeError as error:
            return _later(f"no answer: {_why(error)}"), _not_sent(_why(error))
        except (httpx.HTTPError, _LongAnswerError) as error:
            if deadline.is_over():
                return _later(f"no answer: {OVER}"), _not_sent(OVER)
            why = _why(error)
            return _unreachable(f"no answer: {why}"), _not_sent(why)
        return sent, _unsent(sent) if sent.verdict is SendVerdict.UNREACHABLE else None

    def _post(self, client: httpx.Client, item: Outgoing, deadline: _Deadline) -> Sent:
        body = _Body(item.path, deadline.until)
        with client.stream(
            "POST",
            self._url,
            content=iter(body),
            headers={
                "Content-Type": MEDIA_TYPE.format(body.boundary),
                "Content-Length": str(body.length),
            },
            timeout=self._timeout(deadline.until),
            extensions={"trace": deadline.see},
        ) as response:
            answer = Answer(
                status=response.status_code,
                content_type=response.headers.get("Content-Type", ""),
                content=_read(response, deadline.until),
                retry_later="Retry-After" in response.headers,
            )
        return judge_answer(answer, item.sop_instance_uid)


class _Deadline:
    """The end of all requests: then the connection is cut, however slowly an answer drips in.

    A time-out of httpx is for each read alone.
    """

    def __init__(self, seconds: float) -> None:
        self.until = time.monotonic() + seconds
        self._socket: socket.socket | None = None
        self._timer = threading.Timer(seconds, self._cut)
        self._timer.daemon = True

    def __enter__(self) -> None:
        """Start the clock."""
        self._timer.start()

    def __exit__(self, *_error: object) -> None:
        """Stop the clock."""
        self._timer.cancel()

    def is_over(self) -> bool:
        """Say whether the time is up."""
        return time.monotonic() >= self.until

    def see(self, event: str, info: Mapping[str, Any]) -> None:
        """Hear of a connection that httpx has opened (its `trace` extension)."""
        if event in CONNECTED:
            self._socket = info["return_value"].get_extra_info("socket")

    def _cut(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)


class _Body:
    """The body of a request, made while it is sent: a file between two lines."""

    def __init__(self, path: Path, until: float) -> None:
        self._path = path
        self._until = until
        self.boundary = uuid.uuid4().hex
        try:
            self._size = path.stat().st_size
        except OSError as error:
            raise UnreadableError(f"the file cannot be read: {type(error).__name__}") from error
        self._before = (
            f"--{self.boundary}\r\nContent-Type: application/dicom\r\n"
            f"Content-Length: {self._size}\r\n\r\n"
        ).encode()
        self._after = f"\r\n--{self.boundary}--\r\n".encode()
        self.length = len(self._before) + self._size + len(self._after)

    def __iter__(self) -> Iterator[bytes]:
        """Yield it.

        Raises:
            UnreadableError: the file has become shorter, or cannot be read any more.
            _OutOfTimeError
        """
        yield self._before
        left = self._size
        try:
            with self._path.open("rb", buffering=0) as file:
                while left:
                    piece = file.read(min(PIECE, left))
                    if not piece:
                        raise UnreadableError("the file became shorter while it was sent")
                    if time.monotonic() > self._until:
                        raise _OutOfTimeError
                    left -= len(piece)
                    yield piece
        except OSError as error:
            raise UnreadableError(f"the file cannot be read: {error.strerror}") from error
        yield self._after


def _wrong(item: Outgoing) -> str:
    """Say what forbids to send the file of an object, or "".

    Raises:
        UnreadableError
    """
    with KeptFile(item.path) as kept:
        return wrong_in(kept, item)


def _read(response: httpx.Response, until: float) -> bytes:
    """Return the body of an answer, within limits; nothing is inflated.

    Raises:
        _LongAnswerError, _OutOfTimeError
    """
    content = bytearray()
    for piece in response.iter_raw():
        content += piece
        if len(content) > MOST_ANSWER:
            raise _LongAnswerError
    if time.monotonic() >= until:  # it may have been cut, which can look like its end
        raise _OutOfTimeError
    return bytes(content)


def _why(error: Exception) -> str:
    """Say in our own words what ended a request: a library's may quote what was sent."""
    if isinstance(error, _OutOfTimeError):
        return OVER
    if isinstance(error, _LongAnswerError):
        return f"the answer is longer than {MOST_ANSWER} bytes"
    if isinstance(error, httpx.TimeoutException):
        return "it was silent for too long"
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return f"the connection failed ({type(error).__name__})"


def _refused(message: str) -> Sent:
    return Sent(verdict=SendVerdict.REFUSED, message=message)


def _unreachable(message: str) -> Sent:
    return Sent(verdict=SendVerdict.UNREACHABLE, message=message)


def _later(message: str) -> Sent:
    return Sent(verdict=SendVerdict.RETRY, message=message)


def _not_sent(why: str) -> Sent:
    return _unsent(_later(f"not sent: {why}"))


def _unsent(sent: Sent) -> Sent:
    return replace(sent, may_be_there=False)
