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
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, cast

import structlog
from pynetdicom._globals import MODE_ACCEPTOR
from pynetdicom.association import Association
from pynetdicom.dul import DULServiceProvider
from pynetdicom.transport import (
    AddressInformation,
    AssociationSocket,
    RequestHandler,
    ThreadedAssociationServer,
)

from node.listeners._pdata import MessageStream, ProtocolError, Step

BUFFER_BYTES: Final = 1 << 20
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
SETTLE_SECONDS: Final = 1.0
MOST_DISCARDED: Final = 1 << 20
"""What is still read of a peer whose association was aborted."""

log = structlog.get_logger()

_SEAMS: Final = (
    (DULServiceProvider, "_is_transport_event", ("self",)),
    (DULServiceProvider, "_read_pdu_data", ("self",)),
    (DULServiceProvider, "_decode_pdu", ("self", "bytestream")),
    (DULServiceProvider, "run_reactor", ("self",)),
    (AssociationSocket, "__init__", ("self", "assoc", "client_socket", "address")),
    (AssociationSocket, "recv", ("self", "nr_bytes")),
    (AssociationSocket, "send", ("self", "bytestream")),
    (RequestHandler, "_create_association", ("self",)),
    (RequestHandler, "handle", ("self",)),
    (ThreadedAssociationServer, "get_request", ("self",)),
    (ThreadedAssociationServer, "verify_request", ("self", "request", "client_address")),
)
for _owner, _name, _parameters in _SEAMS:
    _found = tuple(inspect.signature(getattr(_owner, _name)).parameters)
    if _found != _parameters:
        raise ImportError(f"pynetdicom's {_owner.__name__}.{_name} is not as it was: {_found}")


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
        self.guard = cast("GuardedServer", assoc._server).guard
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

    def close_connection(self) -> None:
        """Close the connection, whatever state it is in."""
        connection = self.socket
        if connection is not None:
            connection.close()


def _timeval(seconds: float) -> bytes:
    return struct.pack("@ll", int(seconds), int(seconds % 1 * 1_000_000))


class StoreProvider(DULServiceProvider):
    """The upper layer of one association: P-DATA goes to its stream once there is one.

    Reads wait in the socket, not in a loop, as long as nothing but C-STORE is spoken. pynetdicom's
    association thread, which looks a thousand times a second for other messages, is held at its
    own checkpoint meanwhile, and let run at every tick.
    """

    def __init__(self, assoc: Association) -> None:
        super().__init__(assoc)
        self.stream: MessageStream | None = None
        self.settle: Callable[[float], None] = lambda _seconds: None
        self.ended: Callable[[], None] = lambda: None
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
        finally:
            self._let_others_run()
            connection = self.socket
            if isinstance(connection, StoreSocket):
                self._tell_end(connection)
            self.ended()

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
        return self.stream is not None and self._converse(self.stream, connection)

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
        moved = False
        while True:
            step, connection.start = stream.take(connection.start, connection.stop)
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
        if connection.room < LEAST_ROOM or connection.start == connection.stop:
            stream.flush()
            connection.make_room()
        if self._others_spoke:
            if not connection.ready:
                return None
        else:
            self.assoc._reactor_checkpoint.clear()
        return connection.fill()

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
            pdu, event = self._decode_pdu(bytearray(stream.passed))
            self.event_queue.put(event)
            self._recv_pdu.put(pdu)
        else:
            stream.flush()
            if connection.buffer[connection.start] == RELEASE_RQ:
                self.settle(SETTLE_SECONDS)
            self._read_pdu_data()
        self._let_others_run()

    def _let_others_run(self) -> None:
        self.assoc._reactor_checkpoint.set()


class StoreRequestHandler(RequestHandler):
    """Makes the association of a connection; what all share is not copied for each."""

    def handle(self) -> None:
        """Finish the TLS handshake, if there is one, then run the association."""
        if isinstance(self.request, ssl.SSLSocket) and not self._shake_hands(self.request):
            return
        super().handle()

    def _shake_hands(self, connection: ssl.SSLSocket) -> bool:
        connection.settimeout(cast("GuardedServer", self.server).guard.handshake_seconds)
        try:
            connection.do_handshake()
        except OSError as error:
            log.warning("tls.refused", peer=self.client_address[0], reason=type(error).__name__)
            connection.close()
            return False
        return True

    def _create_association(self) -> Association:
        server = cast("GuardedServer", self.server)
        association = Association(self.ae, MODE_ACCEPTOR)
        association._server = server
        association.name = f"AcceptorThread@{self.client_address[1]}"
        association.dul = StoreProvider(association)
        association.network_timeout = self.ae.network_timeout
        association.acse_timeout = self.ae.acse_timeout
        association.set_socket(StoreSocket(association, client_socket=self.request))
        acceptor = association.acceptor
        acceptor.maximum_length = self.ae.maximum_pdu_size
        acceptor.ae_title = server.ae_title
        acceptor.address_info = self.local
        acceptor.implementation_class_uid = self.ae.implementation_class_uid
        acceptor.implementation_version_name = self.ae.implementation_version_name
        acceptor.supported_contexts = server.contexts  # shared: negotiation only reads them
        association.requestor.address_info = self.remote
        for event, handlers in server._handlers.items():
            if event.is_intervention:
                if handlers:
                    association.bind(event, *cast("tuple[Any, ...]", handlers))
            else:
                for handler, arguments in cast("list[tuple[Any, Any]]", handlers):
                    association.bind(event, handler, arguments)
        return association


class GuardedServer(ThreadedAssociationServer):
    """Accepts connections up to a number, in all and from each address."""

    def __init__(self, *args: Any, guard: Guard, **more: Any) -> None:  # noqa: ANN401
        self.guard = guard
        self._connections: weakref.WeakKeyDictionary[socket.socket, str] = (
            weakref.WeakKeyDictionary()
        )
        self._counting = threading.Lock()
        super().__init__(*args, **more)

    request_queue_size = 128

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        """Accept a connection; a TLS handshake is left to the connection's own thread."""
        connection, address = cast("socket.socket", self.socket).accept()
        if self.ssl_context:
            connection = self.ssl_context.wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            )
        return connection, address

    def verify_request(
        self,
        request: socket.socket | tuple[bytes, socket.socket],
        client_address: Any,  # noqa: ANN401
    ) -> bool:
        """Refuse a connection that would be one too many."""
        address = str(client_address[0])
        connection = cast("socket.socket", request)
        with self._counting:
            there = [of for item, of in self._connections.items() if item.fileno() != -1]
            if len(there) >= self.guard.most_connections:
                log.warning("connection.refused", peer=address, reason="too many in all")
                return False
            if there.count(address) >= self.guard.most_per_address:
                log.warning("connection.refused", peer=address, reason="too many from there")
                return False
            self._connections[connection] = address
        return True

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        """Log what went wrong with a connection; the server goes on."""
        del request
        log.error("connection.failed", peer=str(client_address[0]))
