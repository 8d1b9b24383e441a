"""A TCP connection that carries PDUs: the socket never blocks, and each wait has an end.

Buffers go out as they are, many in one `sendmsg`.
"""

from __future__ import annotations

import math
import select
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, NoReturn

from node.delivery._upper_layer import ABORT, RELEASE_RP, PduType

MOST_BUFFERS: Final = 1024  # in one sendmsg (IOV_MAX)
MOST_RECEIVED: Final = 1 << 17  # bytes of one PDU
LONGEST_WAIT: Final = 3600.0  # seconds of one poll
READ: Final = 1 << 14
HEADER: Final = 6
ENDS: Final = frozenset((PduType.RELEASE_RQ, PduType.ABORT))


class AssociationError(Exception):
    """There is no association, or none any more; the message says why."""


class ConnectError(AssociationError):
    """No TCP connection came about."""


class RejectedError(AssociationError):
    """The peer answered A-ASSOCIATE-RJ (PS3.8 9.3.4)."""

    def __init__(self, result: int, source: int, reason: int) -> None:
        super().__init__(f"result, source, reason {(result, source, reason)}")
        self.key = (result, source, reason)


class ReleasedError(AssociationError):
    """The peer released the association."""


class LostError(AssociationError):
    """The peer aborted, closed or reset the connection, was silent, or broke the protocol."""


class OutOfTimeError(AssociationError):
    """The time for the whole association is up."""


class Connection:
    """A connection to a peer. Whoever opens it closes it.

    Any method but `close` raises an `AssociationError` once nothing can be exchanged any more.
    """

    def __init__(self, host: str, port: int, *, seconds: float, until: float) -> None:
        """Connect within so many seconds. `until`, on the monotonic clock, ends everything."""
        self._until = until
        self._inbox = bytearray()
        self._open = True
        self._socket = _connect(host, port, self.deadline(seconds))
        self._poller = select.poll()
        self._poller.register(self._socket)

    def deadline(self, seconds: float) -> float:
        """Return the end, on the monotonic clock, of a wait that begins now."""
        return min(time.monotonic() + seconds, self._until)

    def close(self) -> None:
        """Abort, unless the association has ended already; close the socket."""
        if self._open:
            self._open = False
            with suppress(OSError):
                self._socket.send(ABORT)
        self._socket.close()

    def over(self) -> None:
        """Note that the association has ended as it should: nothing is left to abort."""
        self._open = False

    def ended(self, kind: int, body: bytes) -> NoReturn:
        """Raise what a PDU means that is not the one that was waited for."""
        if kind == PduType.RELEASE_RQ:
            with suppress(OSError):
                self._socket.send(RELEASE_RP)
            self._open = False
            raise ReleasedError("the destination released the association")
        if kind == PduType.ABORT:
            self._open = False
            said = f" (source, reason {tuple(body[2:4])})" if len(body) >= 4 else ""  # noqa: PLR2004
            raise LostError(f"the destination aborted the association{said}")
        raise LostError(f"it broke the protocol: an unexpected PDU of type {kind:#04x}")

    # ------------------------------------------------------------ out

    def send(
        self, buffers: Sequence[memoryview], *, stall: float = 0.0, until: float | None = None
    ) -> None:
        """Send buffers before `until`, or while some bytes go out within each `stall` seconds."""
        at = sent = 0
        while at < len(buffers):
            rest = [buffers[at][sent:], *buffers[at + 1 : at + MOST_BUFFERS]]
            sent += self._put(rest, until or self.deadline(stall))
            while at < len(buffers) and sent >= len(buffers[at]):
                sent -= len(buffers[at])
                at += 1

    def _put(self, buffers: Sequence[memoryview], until: float) -> int:
        """Wait until the kernel takes some bytes; return how many."""
        while True:
            try:
                return self._socket.sendmsg(buffers)
            except BlockingIOError:
                self._wait_to_send(until)
            except OSError as error:
                self._lost(error)

    def _wait_to_send(self, until: float) -> None:
        """Wait until the socket takes bytes; meanwhile notice that the peer ends it all."""
        listen = select.POLLIN if len(self._inbox) < MOST_RECEIVED else 0
        events = self._wait(
            select.POLLOUT | listen, until, "the destination took no byte for too long"
        )
        if events & listen:
            with suppress(BlockingIOError):
                self._read()
            if self._inbox and self._inbox[0] in ENDS:
                self.ended(*self.next_pdu(until))

    def _lost(self, error: OSError) -> NoReturn:
        """Say why nothing can be sent any more: the peer's A-ABORT may lie in the inbox."""
        with suppress(OSError):
            self._inbox += self._socket.recv(READ)
        if self._inbox[:1] == ABORT[:1] and len(self._inbox) >= len(ABORT):
            self.ended(PduType.ABORT, bytes(self._inbox[HEADER : len(ABORT)]))
        self._open = False
        raise LostError(f"the connection was lost: {_words(error)}") from error

    # ------------------------------------------------------------ in

    def look(self) -> bool:
        """Say whether anything has arrived, without a wait."""
        with suppress(BlockingIOError):
            self._read()
        return bool(self._inbox)

    def next_pdu(self, until: float) -> tuple[int, bytes]:
        """Wait for a PDU; return its type, and its content after the six bytes of its header."""
        self._fill(HEADER, until)
        end = HEADER + int.from_bytes(self._inbox[2:HEADER], "big")
        if end > MOST_RECEIVED:
            raise LostError(f"it broke the protocol: it announced a PDU of {end} bytes")
        self._fill(end, until)
        kind, body = self._inbox[0], bytes(self._inbox[HEADER:end])
        del self._inbox[:end]
        return kind, body

    def _fill(self, count: int, until: float) -> None:
        """Wait until the inbox has so many bytes.

        A peer with Nagle's algorithm on that writes its answer in two pieces keeps the second one
        until the first is acknowledged, which the kernel would delay by 40 ms. It forgets this
        option, so it is set around every read.
        """
        while len(self._inbox) < count:
            with suppress(OSError):
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            try:
                self._read()
            except BlockingIOError:
                self._wait(select.POLLIN, until, "the destination was silent for too long")

    def _read(self) -> None:
        """Put what has arrived into the inbox.

        Raises:
            BlockingIOError: nothing has.
        """
        try:
            chunk = self._socket.recv(READ)
        except BlockingIOError:
            raise
        except OSError as error:
            self._open = False
            raise LostError(f"the connection was lost: {_words(error)}") from error
        if not chunk:
            self._open = False
            raise LostError("the destination closed the connection")
        self._inbox += chunk

    def _wait(self, events: int, until: float, why: str) -> int:
        """Wait for poll events and return those that came, 0 for a look at the clock."""
        left = until - time.monotonic()
        if left > 0:
            self._poller.modify(self._socket, events)
            ready = self._poller.poll(math.ceil(min(left, LONGEST_WAIT) * 1000))
            return ready[0][1] if ready else 0
        if until >= self._until:
            raise OutOfTimeError("the time for one delivery is up")
        raise LostError(why)


def _connect(host: str, port: int, until: float) -> socket.socket:
    """Try the host's addresses one after another. Its resolver has its own time-outs."""
    reason = "the host has no address"
    try:
        places = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ConnectError(f"TCP: {_words(error)}") from error
    for family, kind, protocol, _, address in places:
        link = socket.socket(family, kind, protocol)
        try:
            link.settimeout(max(0.001, until - time.monotonic()))
            link.connect(address)
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            link.setblocking(False)
        except OSError as error:
            reason = _words(error)
            link.close()
        else:
            return link
    raise ConnectError(f"TCP: {reason}")


def _words(error: Exception) -> str:
    """Return an operating system's words for an error."""
    return getattr(error, "strerror", None) or str(error)
