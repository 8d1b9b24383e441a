"""Who may connect, and how often: the accept loop with its limits, TLS in each connection's thread.

pynetdicom is pinned, and what is overridden here is asserted below to be there as it was.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
import weakref
from collections import Counter
from typing import Any, Final, cast

import structlog
from pynetdicom._globals import MODE_ACCEPTOR
from pynetdicom.association import Association
from pynetdicom.transport import RequestHandler, ThreadedAssociationServer

from node.listeners._association import Guard, StoreProvider, StoreSocket, check_seams
from node.listeners._shared_door import BACKLOG, Held, Ledger
from node.listeners._tls import ServerContext

YIELD_SECONDS: Final = 0.01
YIELDS: Final = 20
"""How often a process that has more connections than another leaves a new one to that."""

log = structlog.get_logger()

_SEAMS: Final = (
    (RequestHandler, "_create_association", ("self",)),
    (RequestHandler, "handle", ("self",)),
    (ThreadedAssociationServer, "get_request", ("self",)),
    (ThreadedAssociationServer, "server_activate", ("self",)),
    (ThreadedAssociationServer, "server_bind", ("self",)),
    (ThreadedAssociationServer, "server_close", ("self",)),
    (ThreadedAssociationServer, "service_actions", ("self",)),
    (ThreadedAssociationServer, "verify_request", ("self", "request", "client_address")),
)
check_seams(_SEAMS)


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
            reason = error.verify_message if isinstance(error, ssl.SSLCertVerificationError) else ""
            log.warning(
                "tls.refused", peer=self.client_address[0], reason=reason or type(error).__name__
            )
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


class Admissions:
    """The associations of this process that count against the limits of all processes together."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self._lock = threading.Lock()
        self._admitted: dict[Association, str] = {}

    def admit(self, association: Association, address: str, most: int, from_there: int) -> bool:
        """Count one in, if there are fewer than so many in all, and fewer from its address."""
        with self.ledger.opened() as others:
            here = self.by_address()
            there = here[address] + sum(other.associations.get(address, 0) for other in others)
            total = here.total() + sum(sum(other.associations.values()) for other in others)
            if total >= most or there >= from_there:
                return False
            with self._lock:
                self._admitted[association] = address
            self.ledger.note(associations=self.by_address())
        return True

    def withdraw(self, association: Association) -> None:
        """Count it no more: it was refused after all."""
        with self._lock:
            self._admitted.pop(association, None)

    def by_address(self) -> Counter[str]:
        """Return how many there are in this process, by the address that they come from."""
        with self._lock:
            over = [item for item in self._admitted if _is_over(item)]
            for item in over:
                del self._admitted[item]
            return Counter(self._admitted.values())


def _is_over(association: Association) -> bool:
    return isinstance(association.dul, StoreProvider) and association.dul.finished


class GuardedServer(ThreadedAssociationServer):
    """Accepts connections up to a number, in all and from each address, over all processes."""

    def __init__(
        self,
        *args: Any,  # noqa: ANN401
        guard: Guard,
        tls: ServerContext | None,
        admissions: Admissions,
        listening: socket.socket | None,
        **more: Any,  # noqa: ANN401
    ) -> None:
        """Listen at an address, or on the socket of a door that is shared."""
        self.guard = guard
        self._tls = tls
        self._admissions = admissions
        self._ledger = admissions.ledger
        self._listening = listening
        self._connections: weakref.WeakKeyDictionary[socket.socket, str] = (
            weakref.WeakKeyDictionary()
        )
        super().__init__(*args, **more)

    request_queue_size = BACKLOG

    def server_bind(self) -> None:
        """Take the shared socket, if there is one, in place of pynetdicom's."""
        if self._listening is None:
            super().server_bind()
            return
        cast("socket.socket", self.socket).close()
        self.socket = self._listening
        self.server_address = self._listening.getsockname()

    def server_activate(self) -> None:
        """Begin to listen, where nobody does yet."""
        if self._listening is None:
            super().server_activate()

    def server_close(self) -> None:
        """Listen no more. A shared socket is not shut down: that would end it for every process."""
        if self._listening is None:
            super().server_close()
        else:
            self._listening.close()

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        """Accept a connection; a TLS handshake is left to the connection's own thread.

        Raises:
            BlockingIOError: another process has taken it.
        """
        for _ in range(YIELDS):
            if self._listening is None or not self._another_is_freer():
                break
            time.sleep(YIELD_SECONDS)  # it takes the connection meanwhile, unless it is busy
        connection, address = cast("socket.socket", self.socket).accept()
        if self._tls is not None:
            connection = self._tls.current().wrap_socket(
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
        with self._ledger.opened() as others:
            there = self._there()
            if there.total() + sum(other.total for other in others) >= self.guard.most_connections:
                log.warning("connection.refused", peer=address, reason="too many in all")
                return False
            elsewhere = sum(other.connections.get(address, 0) for other in others)
            if there[address] + elsewhere >= self.guard.most_per_address:
                log.warning("connection.refused", peer=address, reason="too many from there")
                return False
            self._connections[cast("socket.socket", request)] = address
            self._ledger.note(connections=self._there())
        return True

    def service_actions(self) -> None:
        """Tell the other processes what has ended, between two looks for connections.

        pynetdicom collects garbage here, which holds every association up for a quarter of a
        second in a process of this size; what an ended association leaves is small.
        """
        held = Held(associations=self._admissions.by_address(), connections=self._there())
        if not self._ledger.noted(held):
            with self._ledger.opened():
                self._ledger.note(
                    associations=self._admissions.by_address(), connections=self._there()
                )

    def _there(self) -> Counter[str]:
        """Return the connections of this process, counted by address."""
        return Counter(of for item, of in self._connections.items() if item.fileno() != -1)

    def _another_is_freer(self) -> bool:
        with self._ledger.opened() as others:
            return any(other.total < self._there().total() for other in others)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        """Log what went wrong with a connection; the server goes on."""
        del request
        log.error("connection.failed", peer=str(client_address[0]))
