"""HTTP/1.1 for one application of ours: a thread a connection, bodies as they come, deadlines.

The protocol is h11's. Nothing is read ahead: what is slow to take its body slows its sender down.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final, TypeAlias

import h11
import structlog

READ: Final = 256 << 10
MOST_HEAD: Final = 32 << 10
LINGER_SECONDS: Final = 2.0
LINGER_BYTES: Final = 4 << 20
BACKLOG: Final = 128

log = structlog.get_logger()


class LostError(Exception):
    """The peer is gone, silent for too long, or breaks the protocol; there is nobody to answer."""


class BadRequestError(LostError):
    """What came is no HTTP request; it may still be told so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpLimits:
    """What a peer may cost. Seconds: of a request's head, between two bytes, of a whole request."""

    head_seconds: float
    idle_seconds: float
    total_seconds: float
    connections: int
    connections_per_address: int
    grace_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What is answered."""

    status: int
    content: bytes = b""
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


class Request:
    """One request; its body is read while it is iterated."""

    def __init__(self, connection: _Connection, head: h11.Request, until: float) -> None:
        self._connection = connection
        self._until = until
        self.method = head.method.decode("ascii", "replace")
        self.path = head.target.decode("ascii", "replace").partition("?")[0]
        self._headers = [
            (name.decode("ascii"), value.decode("latin-1")) for name, value in head.headers
        ]
        self.peer_address = connection.peer_address

    def header(self, name: str) -> str:
        """Return a header's value, "" without it; of several all, with commas."""
        return ", ".join(value for key, value in self._headers if key == name)

    def body(self) -> Iterator[bytes]:
        """Yield the body's bytes as they come.

        Raises:
            LostError: it does not come to its end.
        """
        return self._connection.body(self._until)


Handler: TypeAlias = Callable[[Request], Reply]


class HttpServer:
    """Listens, and hands each request to a handler, in a thread of its connection."""

    def __init__(
        self, bound: socket.socket, handler: Handler, limits: HttpLimits, tls: ssl.SSLContext | None
    ) -> None:
        self._listening = bound
        self._handler = handler
        self._limits = limits
        self._tls = tls
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._open: dict[_Connection, threading.Thread] = {}
        self._by_address: Counter[str] = Counter()
        self._thread = threading.Thread(target=self._accept, name="http", daemon=True)

    def start(self) -> None:
        """Begin to accept."""
        self._listening.listen(BACKLOG)
        self._thread.start()

    def stop(self) -> None:
        """Accept no more; let what is under way end within the grace time, then cut it off."""
        self._stopping.set()
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listening.close()
        until = time.monotonic() + self._limits.grace_seconds
        with self._lock:
            open_now = dict(self._open)
        for connection in open_now:
            connection.end_when_idle()
        for connection, thread in open_now.items():
            thread.join(max(0.0, until - time.monotonic()))
            if thread.is_alive():
                connection.cut()
                thread.join()

    def _accept(self) -> None:
        while not self._stopping.is_set():
            try:
                wire, address = self._listening.accept()
            except OSError:
                if self._stopping.is_set():
                    return
                self._stopping.wait(0.1)  # out of descriptors, or the peer left at once
                continue
            peer = str(address[0])
            if not self._admit(peer):
                log.warning("http.connection_refused", peer=peer)
                wire.close()
                continue
            connection = _Connection(wire, peer, self._limits, self._tls)
            thread = threading.Thread(
                target=self._serve, args=(connection,), name="http-connection", daemon=True
            )
            with self._lock:
                self._open[connection] = thread
            thread.start()

    def _admit(self, peer: str) -> bool:
        with self._lock:
            if sum(self._by_address.values()) >= self._limits.connections:
                return False
            if self._by_address[peer] >= self._limits.connections_per_address:
                return False
            self._by_address[peer] += 1
            return True

    def _serve(self, connection: _Connection) -> None:
        try:
            connection.serve(self._handler, self._stopping)
        except LostError as error:
            log.info("http.connection_lost", peer=connection.peer_address, reason=str(error))
        except Exception as error:  # noqa: BLE001 - the edge of a connection, as of an association
            log.error("http.request_failed", error=type(error).__name__)
        finally:
            connection.close()
            with self._lock:
                self._open.pop(connection, None)
                self._by_address[connection.peer_address] -= 1
                self._by_address += Counter()  # forget who has none


class _Connection:
    """One connection, from its handshake to its end."""

    def __init__(
        self, wire: socket.socket, peer: str, limits: HttpLimits, tls: ssl.SSLContext | None
    ) -> None:
        self.peer_address = peer
        self._wire = wire
        self._limits = limits
        self._tls = tls
        self._protocol = h11.Connection(h11.SERVER, max_incomplete_event_size=MOST_HEAD)
        self._idle = True

    def serve(self, handler: Handler, stopping: threading.Event) -> None:
        """Answer requests until the peer, or the node, ends.

        Raises:
            LostError
        """
        self._shake_hands()
        while not stopping.is_set():
            try:
                head = self._head()
            except BadRequestError:
                self._answer_badly()
                raise
            if head is None:
                return
            self._idle = False
            request = Request(self, head, time.monotonic() + self._limits.total_seconds)
            self._answer(handler(request), last=stopping.is_set())
            if (
                self._protocol.our_state is not h11.DONE
                or self._protocol.their_state is not h11.DONE
            ):
                self._linger()
                return
            self._protocol.start_next_cycle()
            self._idle = True

    def body(self, until: float) -> Iterator[bytes]:
        """Yield the bytes of the body."""
        if self._protocol.they_are_waiting_for_100_continue:
            go_on = h11.InformationalResponse(status_code=HTTPStatus.CONTINUE, headers=[])
            self._send(self._protocol.send(go_on))
        while True:
            event = self._event(until)
            if isinstance(event, h11.Data):
                yield bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                return
            else:
                raise LostError("the body has no end")

    def end_when_idle(self) -> None:
        """Let a connection that waits for a next request end."""
        if self._idle:
            self.cut()

    def cut(self) -> None:
        """End whatever goes on."""
        with contextlib.suppress(OSError):
            self._wire.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection."""
        self._wire.close()

    # ------------------------------------------------------------ within

    def _shake_hands(self) -> None:
        """Agree on TLS, within the time for it however slowly the bytes drip in."""
        self._wire.settimeout(self._limits.head_seconds)
        self._wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._tls is None:
            return
        self._wire = self._tls.wrap_socket(
            self._wire, server_side=True, do_handshake_on_connect=False
        )
        watchdog = threading.Timer(self._limits.head_seconds, self.cut)
        watchdog.daemon = True
        watchdog.start()
        try:
            self._wire.do_handshake()
        except (OSError, ValueError) as error:  # ssl.SSLError and time-outs are some
            raise LostError(f"TLS: {type(error).__name__}") from error
        finally:
            watchdog.cancel()

    def _head(self) -> h11.Request | None:
        """Return the head of the next request; None: the peer ended."""
        try:
            event = self._event(time.monotonic() + self._limits.head_seconds)
        except BadRequestError:
            raise
        except LostError:
            if self._protocol.trailing_data[0]:
                raise
            return None  # it just had no more to ask
        return event if isinstance(event, h11.Request) else None

    def _event(self, until: float) -> h11.Event | type[h11.PAUSED]:
        while True:
            try:
                event = self._protocol.next_event()
                if event is not h11.NEED_DATA:
                    return event  # type: ignore[return-value]
                self._protocol.receive_data(self._read(until))
            except h11.RemoteProtocolError as error:
                raise BadRequestError(str(error.error_status_hint)) from error

    def _read(self, until: float) -> bytes:
        left = until - time.monotonic()
        if left <= 0:
            raise LostError("the time is up")
        self._wire.settimeout(min(left, self._limits.idle_seconds))
        try:
            return self._wire.recv(READ)
        except TimeoutError as error:
            raise LostError("it was silent for too long") from error
        except OSError as error:
            raise LostError(f"the connection failed: {type(error).__name__}") from error

    def _answer(self, reply: Reply, *, last: bool) -> None:
        headers = [
            ("Content-Length", str(len(reply.content))),
            ("Content-Type", reply.content_type),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            *reply.headers.items(),
        ]
        if last or self._protocol.their_state is not h11.DONE:
            headers.append(("Connection", "close"))
        response = h11.Response(status_code=reply.status, headers=headers)
        self._send(self._protocol.send(response))
        self._send(self._protocol.send(h11.Data(data=reply.content)))
        self._send(self._protocol.send(h11.EndOfMessage()))

    def _answer_badly(self) -> None:
        with contextlib.suppress(LostError, h11.LocalProtocolError):
            self._answer(Reply(status=HTTPStatus.BAD_REQUEST), last=True)

    def _send(self, data: bytes | None) -> None:
        if not data:
            return
        self._wire.settimeout(self._limits.idle_seconds)
        try:
            self._wire.sendall(data)
        except OSError as error:
            raise LostError(f"the answer was not taken: {type(error).__name__}") from error

    def _linger(self) -> None:
        """Read on a little before closing, or the peer's stack may drop our answer unread."""
        until = time.monotonic() + LINGER_SECONDS
        left = LINGER_BYTES
        with contextlib.suppress(OSError, LostError):
            self._wire.shutdown(socket.SHUT_WR)
            while left > 0 and (data := self._read(until)):
                left -= len(data)
