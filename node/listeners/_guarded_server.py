"""Who may connect, and how often: the accept loop with its limits, TLS in each connection's thread.

pynetdicom is pinned, and what is overridden here is asserted below to be there as it was.
"""

from __future__ import annotations

import socket
import ssl
import threading
import weakref
from typing import Any, Final, cast

import structlog
from pynetdicom._globals import MODE_ACCEPTOR
from pynetdicom.association import Association
from pynetdicom.transport import RequestHandler, ThreadedAssociationServer

from node.listeners._association import Guard, StoreProvider, StoreSocket, check_seams
from node.listeners._tls import ServerContext

log = structlog.get_logger()

_SEAMS: Final = (
    (RequestHandler, "_create_association", ("self",)),
    (RequestHandler, "handle", ("self",)),
    (ThreadedAssociationServer, "get_request", ("self",)),
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


class GuardedServer(ThreadedAssociationServer):
    """Accepts connections up to a number, in all and from each address."""

    def __init__(self, *args: Any, guard: Guard, tls: ServerContext | None, **more: Any) -> None:  # noqa: ANN401
        self.guard = guard
        self._tls = tls
        self._connections: weakref.WeakKeyDictionary[socket.socket, str] = (
            weakref.WeakKeyDictionary()
        )
        self._counting = threading.Lock()
        super().__init__(*args, **more)

    request_queue_size = 128

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        """Accept a connection; a TLS handshake is left to the connection's own thread."""
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

    def service_actions(self) -> None:
        """Do nothing between two looks for connections.

        pynetdicom collects garbage here, which holds every association up for a quarter of a
        second in a process of this size; what an ended association leaves is small.
        """

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        """Log what went wrong with a connection; the server goes on."""
        del request
        log.error("connection.failed", peer=str(client_address[0]))
