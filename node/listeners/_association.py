"""Where pynetdicom's acceptor is taken hold of: sockets with limits, and C-STORE past its objects.

pynetdicom keeps negotiation, its state machine (PS3.8 9.2) and every service that is not C-STORE.
It is pinned, and what is overridden here is asserted below to be there as it was.
"""

from __future__ import annotations

import contextlib
import inspect
import queue
import socket
import ssl
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import structlog
from pynetdicom.association import Association
from pynetdicom.dul import DULServiceProvider
from pynetdicom.pdu import P_DATA_TF
from pynetdicom.transport import (
    AddressInformation,
    AssociationSocket,
)

from node.listeners._commands import ProtocolError
from node.listeners._notifications import PduNotices, tell_sent
from node.listeners._pdata import MessageStream, Step

BUFFER_BYTES: Final = 2 << 20
"""With several associations larger writes are worth more than their bytes' stay in a near cache."""
LEAST_ROOM: Final = 64 << 10
TICK_SECONDS: Final = 0.2
"""How long a read may take: so often is looked for a local abort and for time-outs."""
LONGEST_OTHER_PDU: Final = 1 << 20
"""The longest sensible A-ASSOCIATE-RQ, with 128 contexts, has some 300 KB."""
RELEASE_RQ: Final = 0x05
IDLE: Final = "Sta1"
ESTABLISHED: Final = "Sta6"
CLOSING: Final = "Sta13"
"""States of the upper layer (PS3.8 table 9-10)."""
ABORTED: Final = b"\x07\x00\x00\x00\x00\x04\x00\x00\x02\x00"
"""A-ABORT by the service provider, no reason given (PS3.8 9.3.8)."""
SETTLE_SECONDS: Final = 1.0
MOST_WAITING: Final = 8
"""Messages other than C-STORE that may wait for their answers: one at a time is what is agreed."""
MOST_DISCARDED: Final = 1 << 20
"""What is still read of a peer whose association was aborted."""

log = structlog.get_logger()


def check_seams(seams: Sequence[tuple[type, str, tuple[str, ...]]]) -> None:
    """Hold that what is overridden has the parameters that it had when it was overridden.

    Raises:
        ImportError: naming what has changed.
    """
    for owner, name, parameters in seams:
        found = tuple(inspect.signature(getattr(owner, name)).parameters)
        if found != parameters:
            raise ImportError(f"pynetdicom's {owner.__name__}.{name} is not as it was: {found}")


_SEAMS: Final = (
    (DULServiceProvider, "_is_transport_event", ("self",)),
    (DULServiceProvider, "_read_pdu_data", ("self",)),
    (DULServiceProvider, "_decode_pdu", ("self", "bytestream")),
    (DULServiceProvider, "run_reactor", ("self",)),
    (AssociationSocket, "__init__", ("self", "assoc", "client_socket", "address")),
    (AssociationSocket, "recv", ("self", "nr_bytes")),
    (AssociationSocket, "send", ("self", "bytestream")),
)
check_seams(_SEAMS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """What a peer may cost."""

    most_connections: int
    most_per_address: int
    handshake_seconds: float  # TLS, and the rest of an association request that was begun
    pdu_seconds: float  # from the first byte of a PDU to its last
    network_seconds: float  # without a byte, in either direction


class StoreSocket(AssociationSocket):
    """A connection with one buffer, read in large pieces and never without an end."""

    def __init__(
        self,
        assoc: Association,
        client_socket: socket.socket | None = None,
        address: AddressInformation | None = None,
    ) -> None:
        super().__init__(assoc, client_socket, address)
        self.guard: Guard = cast("Any", assoc._server).guard
        self.buffer = bytearray(BUFFER_BYTES)
        self._view = memoryview(self.buffer)
        self.start = 0  # of what has arrived and was not taken
        self.stop = 0
        if client_socket is not None:
            self._prepare(client_socket)

    def _prepare(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if isinstance(connection, ssl.SSLSocket):
            connection.settimeout(TICK_SECONDS)
            return
        connection.settimeout(None)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(TICK_SECONDS))
        connection.setsockopt(
            socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(self.guard.network_seconds)
        )

    def fill(self) -> int | None:
        """Read what is there, waiting for a tick; 0: the connection ended, None: nothing came.

        Raises:
            OSError: the connection was reset.
        """
        if self.socket is None:
            return 0
        try:
            count = self.socket.recv_into(self._view[self.stop :])
        except (BlockingIOError, TimeoutError, ssl.SSLWantReadError):
            return None
        self.stop += count
        return count

    def make_room(self) -> None:
        """Move what was not taken to the front. Slices of the buffer lose their meaning."""
        rest = self.stop - self.start
        self.buffer[:rest] = self.buffer[self.start : self.stop]
        self.start, self.stop = 0, rest

    def arrived(self, start: int) -> memoryview:
        """Return what was taken of the buffer from there on."""
        return self._view[start : self.start]

    @property
    def room(self) -> int:
        """Bytes that can be read before something must be moved."""
        return BUFFER_BYTES - self.stop

    @property
    def ready(self) -> bool:
        """Say whether something can be read."""
        return self.stop > self.start or bool(super().ready)

    def recv(self, nr_bytes: int) -> bytearray:
        """Return that many bytes, fewer where the connection ends; for pynetdicom's own reading.

        Raises:
            OSError: more is asked for than any PDU may have, or the rest does not come in time.
        """
        if nr_bytes > LONGEST_OTHER_PDU:
            raise OSError(f"a PDU of {nr_bytes} bytes is longer than any may be")
        established = self.assoc.is_established
        seconds = self.guard.pdu_seconds if established else self.guard.handshake_seconds
        until = time.monotonic() + seconds
        content = bytearray()
        while len(content) < nr_bytes:
            if self.start == self.stop:
                self.start = self.stop = 0
                count = self.fill()
                if count == 0:
                    break
                if time.monotonic() > until:
                    raise TimeoutError("the rest of a PDU did not come in time")
                continue
            end = min(self.stop, self.start + nr_bytes - len(content))
            content += self._view[self.start : end]
            self.start = end
        return content

    def answer(self, content: bytes) -> None:
        """Send a whole PDU.

        Raises:
            OSError: the connection was reset, or the peer does not read.
        """
        if self.socket is not None:
            self.socket.sendall(content)
            tell_sent(self.assoc, content)

    def close_connection(self) -> None:
        """Close the connection, whatever state it is in."""
        connection = self.socket
        if connection is not None:
            connection.close()

    def forget(self) -> None:
        """Give the buffer back: the association lives on in cycles until they are collected."""
        self.start = self.stop = 0
        self._view = memoryview(b"")
        self.buffer = bytearray()


def _timeval(seconds: float) -> bytes:
    return struct.pack("@ll", int(seconds), int(seconds % 1 * 1_000_000))


def _nothing(*_: object) -> None:
    """Stand in for what is not wired yet, or no longer."""


class StoreProvider(DULServiceProvider):
    """The upper layer of one association: P-DATA goes to its stream once there is one.

    Reads wait in the socket, not in a loop, as long as nothing but C-STORE is spoken. pynetdicom's
    association thread, which looks a thousand times a second for other messages, is held at its
    own checkpoint meanwhile, and let run at every tick.
    """

    def __init__(self, assoc: Association) -> None:
        super().__init__(assoc)
        self.stream: MessageStream | None = None
        self.settle: Callable[[float], None] = _nothing
        self.ended: Callable[[], None] = _nothing
        self.finished = False  # then `ended` is not called any more
        self._notices = PduNotices(assoc)
        self._others_spoke = False
        self._began = False
        self._told = False
        self._discarded = 0
        self._pdu = -1  # the PDU that is waited for, and since when
        self._since = 0.0

    def run_reactor(self) -> None:
        """Run until the association has ended; leave no connection behind."""
        try:
            super().run_reactor()
        except Exception as error:  # noqa: BLE001 - the edge of an association: it ends, others go on
            log.warning("association.failed", error=type(error).__name__)
            self._say_abort()
        finally:
            self._let_others_run()
            connection = self.socket
            if isinstance(connection, StoreSocket):
                self._tell_end(connection)
            self.finished = True
            self.ended()
            self.stream = None
            self.ended = self.settle = _nothing
            if isinstance(connection, StoreSocket):
                connection.forget()

    def _is_transport_event(self) -> bool:
        state, connection = self.state_machine.current_state, self.socket
        if not isinstance(connection, StoreSocket):
            return super()._is_transport_event()
        if state == IDLE:
            return self._began and self._tell_end(connection)
        self._began = True
        if state == CLOSING:
            return self._discard(connection)
        if state != ESTABLISHED:
            return super()._is_transport_event()
        if self.stream is None or self.assoc.dimse.msg_queue.qsize() >= MOST_WAITING:
            return False  # read on when what was asked before has its answer
        return self._converse(self.stream, connection)

    def _say_abort(self) -> None:
        """Tell the peer that it is over: its message could not be taken apart."""
        if isinstance(self.socket, StoreSocket):
            with contextlib.suppress(OSError):
                self.socket.answer(ABORTED)

    def _converse(self, stream: MessageStream, connection: StoreSocket) -> bool:
        """Take what arrives on an association; end it where it breaks the rules."""
        try:
            return self._serve(stream, connection)
        except ProtocolError as error:
            log.warning("association.protocol_error", reason=str(error))
            stream.abandon()
            self._let_others_run()
            self.event_queue.put("Evt19")  # invalid PDU: A-P-ABORT (PS3.8 9.2.3, AA-8)
        except OSError:
            self._let_others_run()
            self.event_queue.put("Evt17")  # transport connection closed
        return True

    def _tell_end(self, connection: StoreSocket) -> bool:
        """Let go of what has ended: the association's thread may still wait for a request."""
        connection.close_connection()
        if not self._told:
            self._told = True
            self.to_user_queue.put(cast("Any", None))
        with contextlib.suppress(queue.Empty):
            while True:  # a second word of the same end means nothing in this state
                self.event_queue.get(block=False)
        return False

    def _discard(self, connection: StoreSocket) -> bool:
        """After an abort: read on, so that the peer gets it, and answer nothing (Sta13)."""
        connection.start = connection.stop = 0
        try:
            got = connection.fill() or 0
        except OSError:
            got = 0
        self._discarded += got
        if not got or self._discarded > MOST_DISCARDED:
            connection.close()
        return bool(got)

    def _serve(self, stream: MessageStream, connection: StoreSocket) -> bool:
        """Take what arrives until something else than C-STORE has to be done."""
        moved, notices = False, self._notices
        notices.look(inside_pdu=stream.inside_pdu)
        while True:
            start = connection.start
            step, connection.start = stream.take(start, connection.stop)
            if notices.listening:
                notices.take(connection.arrived(start))
            if step is Step.STORED:
                moved, self._others_spoke = True, False
                if self._kill_thread or self.to_provider_queue.queue:
                    break
            elif step is Step.MORE:
                got = self._more(stream, connection)
                if got is None:
                    break
                moved = True
                if got == 0:
                    self.event_queue.put("Evt17")
                    break
            else:
                self._hand_on(step, stream, connection)
                return True
        self._let_others_run()
        return moved

    def _more(self, stream: MessageStream, connection: StoreSocket) -> int | None:
        """Wait for bytes, a tick long at most."""
        self._check_deadline(stream, connection)
        if connection.room < LEAST_ROOM:
            stream.flush()
            connection.make_room()
        elif connection.start == connection.stop and not stream.holds_buffer:
            connection.make_room()
        if self._others_spoke:
            if not connection.ready:
                return None
        elif self.assoc._reactor_checkpoint.is_set():
            self.assoc._reactor_checkpoint.clear()
        got = connection.fill()
        self._notices.look(inside_pdu=stream.inside_pdu)
        return got

    def _check_deadline(self, stream: MessageStream, connection: StoreSocket) -> None:
        if not stream.inside_pdu and connection.start == connection.stop:
            self._pdu = -1
        elif self._pdu != stream.pdus:
            self._pdu, self._since = stream.pdus, time.monotonic()
        elif time.monotonic() - self._since > connection.guard.pdu_seconds:
            raise ProtocolError("the rest of a PDU did not come in time")

    def _hand_on(self, step: Step, stream: MessageStream, connection: StoreSocket) -> None:
        """Let pynetdicom deal with a PDU that is not part of a C-STORE."""
        self._others_spoke = True
        if step is Step.PASSED:
            pdu = P_DATA_TF()  # who listens was told of it as it came
            pdu.decode(stream.passed)
            self.event_queue.put("Evt10")
            self._recv_pdu.put(pdu)
        else:
            stream.flush()
            if connection.buffer[connection.start] == RELEASE_RQ:
                self.settle(SETTLE_SECONDS)
            self._read_pdu_data()
        self._let_others_run()

    def _let_others_run(self) -> None:
        self.assoc._reactor_checkpoint.set()
