"""C-STORE and C-ECHO over DIMSE (PS3.4 annex A and B, PS3.7, PS3.8). The main way in."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from io import BytesIO
from typing import ClassVar, Final, cast

import structlog
from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import AE, AllStoragePresentationContexts, _config, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import N_CREATE, N_SET
from pynetdicom.events import Event

from node.interfaces import (
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    Ingest,
    IngestError,
    Intake,
    ListenerError,
    OutOfResources,
    PluginSettings,
    SharedListener,
    Source,
)
from node.listeners._association import Guard, StoreProvider, StoreSocket
from node.listeners._attributes import SYNTAXES, Encoded
from node.listeners._dimse_settings import DimseListenerSettings, Peer
from node.listeners._guarded_server import Admissions, GuardedServer, StoreRequestHandler
from node.listeners._message_rate import MessageRate
from node.listeners._pdata import Context, MessageStream
from node.listeners._procedure_steps import (
    AVAILABILITY,
    PROCEDURE_STEP,
    n_create,
    n_set,
    too_many,
)
from node.listeners._rejections import (
    APPLICATION_CONTEXT_UNKNOWN,
    CALLED_AE_UNKNOWN,
    CALLING_AE_UNKNOWN,
    CONGESTED,
    LOCAL_LIMIT,
    NO_USER_IDENTITY,
    NOBODY,
    REASONS,
    incident,
    refused,
)
from node.listeners._shared_door import Ledger, SharedDoor
from node.listeners._tls import ServerContext, certificate_names
from node.listeners._transfer_syntaxes import TRANSFER_SYNTAXES
from node.listeners._user_identity import UserIdentity, is_accepted

VERIFICATION: Final = "1.2.840.10008.1.1"
NEED_NO_ROOM: Final = frozenset({VERIFICATION, PROCEDURE_STEP, AVAILABILITY})
APPLICATION_CONTEXT: Final = "1.2.840.10008.3.1.1.1"
SUCCESS: Final = 0x0000
PDU_TOLERANCE: Final = 12
"""Some senders count their own headers out of the PDU length that they were given."""
SPARE_CONNECTIONS: Final = 10
"""Connections beyond the associations, so that one too many can be told so (PS3.8 table 9-21)."""

log = structlog.get_logger()


class DimseListener(SharedListener[DimseListenerSettings]):
    """The storage SCP."""

    name: ClassVar[str] = "dimse"
    settings_type: ClassVar[type[PluginSettings]] = DimseListenerSettings

    def __init__(self, settings: DimseListenerSettings, ingest: Ingest) -> None:
        self._settings = settings
        self._ingest = ingest
        self._server: GuardedServer | None = None
        self._door: SharedDoor | None = None
        self._admissions = Admissions(Ledger.alone())
        self._open: set[Association] = set()
        self._lock = threading.Lock()
        self._rate = MessageRate(settings.notifications_per_minute)

    @classmethod
    def processes(cls, settings: DimseListenerSettings) -> int:
        """Return how many processes are asked for."""
        return settings.processes

    def bind(self) -> tuple[int, ...]:
        """Listen, for several processes that take the connections."""
        self._refuse_empty_list()
        settings = self._settings
        try:
            self._door = SharedDoor.open(settings.host, settings.port, settings.processes)
        except OSError as error:
            raise self._not_had(error) from error
        return self._door.descriptors

    def inherit(self, descriptors: Sequence[int], process: int) -> None:
        """Take the door that the node opened."""
        self._door = SharedDoor.inherited(descriptors, process)
        self._admissions = Admissions(self._door.ledger)

    def forget(self, process: int) -> None:
        """Free the associations and connections that a process held which has ended."""
        if self._door is not None:
            self._door.ledger.clear(process)

    def start(self) -> None:
        """Listen.

        Raises:
            ListenerError: nobody would be let in, or the address cannot be had.
        """
        self._refuse_empty_list()
        settings = self._settings
        _config.LOG_HANDLER_LEVEL = "none"
        ae = self._entity()
        try:
            self._server = GuardedServer(
                ae,
                (settings.host, settings.port),
                settings.ae_titles[0],
                ae.supported_contexts,
                tls=None if settings.tls is None else ServerContext(settings.tls),
                evt_handlers=self._handlers(),
                request_handler=StoreRequestHandler,
                guard=self._guard(),
                admissions=self._admissions,
                listening=None if self._door is None else self._door.listening,
            )
        except OSError as error:
            raise self._not_had(error) from error
        ae._servers.append(self._server)
        threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="dimse-accept", daemon=True
        ).start()

    def stop(self) -> None:
        """Accept no more, let associations in flight end within the grace time, abort the rest."""
        server, self._server = self._server, None
        if server is not None:
            self._stop(server)
        door, self._door = self._door, None
        if door is not None:
            door.close()

    def _stop(self, server: GuardedServer) -> None:
        until = time.monotonic() + self._settings.grace_seconds
        ae = server.ae
        server.shutdown()
        while self._associations() and time.monotonic() < until:
            time.sleep(0.05)
        for association in self._associations():
            association.abort()
        ae.shutdown()

    @property
    def port(self) -> int:
        """The port that is listened on."""
        listening = self._server.socket if self._server is not None else None
        if self._door is not None:
            listening = self._door.listening
        port: int = self._settings.port if listening is None else listening.getsockname()[1]
        return port

    def address(self) -> str:
        """Say where the door is."""
        return f"dicom://{self._settings.ae_titles[0]}@{self._settings.host}:{self.port}"

    def _refuse_empty_list(self) -> None:
        if not self._settings.peers and not self._settings.allow_any_peer:
            raise ListenerError(NOBODY)

    def _not_had(self, error: OSError) -> ListenerError:
        where = f"{self._settings.host}:{self._settings.port}"
        return ListenerError(f"listeners.dimse: {where}: {error.strerror}")

    def _entity(self) -> AE:
        settings = self._settings
        ae = AE(ae_title=settings.ae_titles[0])
        ae.supported_contexts = []
        ae.implementation_class_uid = UID(IMPLEMENTATION_CLASS_UID)
        ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        for context in AllStoragePresentationContexts:
            if context.abstract_syntax is not None:
                ae.add_supported_context(context.abstract_syntax, list(TRANSFER_SYNTAXES))
        ae.add_supported_context(VERIFICATION)
        for sop_class in (PROCEDURE_STEP, AVAILABILITY):
            ae.add_supported_context(sop_class, list(SYNTAXES))
        ae.maximum_associations = settings.max_associations
        ae.maximum_pdu_size = settings.max_pdu
        ae.acse_timeout = settings.acse_seconds
        ae.dimse_timeout = settings.dimse_seconds
        ae.network_timeout = settings.network_seconds
        return ae

    def _guard(self) -> Guard:
        settings = self._settings
        return Guard(
            most_connections=settings.max_associations + SPARE_CONNECTIONS,
            most_per_address=settings.max_associations_per_address + settings.kept_for_urgent,
            handshake_seconds=settings.acse_seconds,
            pdu_seconds=settings.pdu_seconds,
            network_seconds=settings.network_seconds,
        )

    def _associations(self) -> list[Association]:
        with self._lock:
            return list(self._open)

    def _handlers(self) -> list[evt.EventHandlerType]:
        return [
            (evt.EVT_REQUESTED, self._on_requested),
            (evt.EVT_USER_ID, self._on_user_identity),
            (evt.EVT_ACCEPTED, self._on_accepted),
            (evt.EVT_C_ECHO, lambda _: SUCCESS),
            (evt.EVT_N_CREATE, self._on_n_create),
            (evt.EVT_N_SET, self._on_n_set),
        ]

    def _on_requested(self, event: Event) -> None:
        """Refuse who may not connect, before anything is negotiated (NET-10, NET-11)."""
        rejection = self._rejection(event.assoc)
        if rejection is None:
            return
        log.warning(
            "association.rejected",
            reason=REASONS[rejection],
            peer=_peer_address(event.assoc),
            certificate=sorted(_certificate_names(event.assoc)),
        )
        event.assoc.acse.send_reject(*rejection)
        event.assoc.kill()

    def _on_user_identity(self, event: Event) -> tuple[bool, None]:
        """Say whether a user identity is accepted; if not, pynetdicom rejects (2, 2, 1) (T10)."""
        shown = cast("UserIdentity", event)
        kind, name, passcode = shown.user_id_type, shown.primary_field, shown.secondary_field
        accepted = is_accepted(kind, name, passcode, self._settings.users)
        if not accepted:
            self._admissions.withdraw(event.assoc)
            log.warning(
                "association.rejected",
                reason="its user identity is not among listeners.dimse.users",
                kind=kind,
                peer=_peer_address(event.assoc),
            )
        return accepted, None

    def _rejection(self, association: Association) -> tuple[int, int, int] | None:
        """Say why an association may not be: who asks for it, or what is short (NET-10)."""
        request = association.requestor.primitive
        if request is None:
            return CALLING_AE_UNKNOWN
        if request.application_context_name != APPLICATION_CONTEXT:
            return APPLICATION_CONTEXT_UNKNOWN
        if str(request.called_ae_title).strip() not in self._settings.ae_titles:
            return CALLED_AE_UNKNOWN
        peer = self._peer(association)
        if peer is None and not self._settings.allow_any_peer:
            return CALLING_AE_UNKNOWN
        if self._settings.users and association.requestor.user_identity is None:
            return NO_USER_IDENTITY
        return self._shortage(association)

    def _shortage(self, association: Association) -> tuple[int, int, int] | None:
        """Say what is short for this sender: associations, or room for what it would bring."""
        source, settings = self._source(association), self._settings
        most, there = settings.max_associations, settings.max_associations_per_address
        if not source.urgent:
            most -= settings.kept_for_urgent
        else:
            there = most
        if not self._admissions.admit(association, source.peer_address, most, there):
            return LOCAL_LIMIT
        contexts = association.requestor.requested_contexts
        stores = any(context.abstract_syntax not in NEED_NO_ROOM for context in contexts)
        try:
            self._ingest.admit(source, stores=stores)
        except OutOfResources as error:
            self._admissions.withdraw(association)
            log.warning("association.no_room", peer=source.peer_address, reason=str(error))
            return CONGESTED
        return None

    def _peer(self, association: Association) -> Peer | None:
        """Return who this is, by AE title, address and certificate, if it is among the peers."""
        request = association.requestor.primitive
        calling = "" if request is None else str(request.calling_ae_title).strip()
        address, names = _peer_address(association), _certificate_names(association)
        for peer in self._settings.peers:
            known = not peer.addresses or address in peer.addresses
            vouched = not peer.certificate_names or not names.isdisjoint(peer.certificate_names)
            if peer.ae_title == calling and known and vouched:
                return peer
        return None

    def _on_accepted(self, event: Event) -> None:
        """Open the association's intake and let its C-STOREs go there."""
        association = event.assoc
        provider, connection = association.dul, association.dul.socket
        if not isinstance(provider, StoreProvider) or not isinstance(connection, StoreSocket):
            raise TypeError("the association was not made by our server")
        try:
            intake = self._ingest.open(self._source(association))
        except IngestError as error:
            log.error("association.not_taken", peer=_peer_address(association), reason=str(error))
            association.abort()
            return
        with self._lock:
            self._open.add(association)
        provider.ended = lambda: self._end(association, intake)
        provider.settle = intake.settle
        provider.stream = MessageStream(
            connection.buffer,
            intake,
            _contexts(association),
            self._settings.max_pdu + PDU_TOLERANCE,
            connection.answer,
            refused,
            incident,
        )
        if provider.finished:  # its peer was gone before it was accepted
            self._end(association, intake)

    def _on_n_create(self, event: Event) -> tuple[Dataset, None]:
        """Take a procedure step that begins, or a notification of availability."""
        request = cast("N_CREATE", event.request)
        sop_class, instance = request.AffectedSOPClassUID, request.AffectedSOPInstanceUID
        attributes = _encoded(event, request.AttributeList)
        if self._are_too_many(event, attributes):
            return too_many(), None
        return n_create(str(sop_class), str(instance or ""), attributes, self._ingest), None

    def _on_n_set(self, event: Event) -> tuple[Dataset, None]:
        """Take what a procedure step says now."""
        request = cast("N_SET", event.request)
        sop_class, instance = request.RequestedSOPClassUID, request.RequestedSOPInstanceUID
        modifications = _encoded(event, request.ModificationList)
        if self._are_too_many(event, modifications):
            return too_many(), None
        return n_set(str(sop_class), str(instance or ""), modifications, self._ingest), None

    def _are_too_many(self, event: Event, message: Encoded) -> bool:
        peer = _peer_address(event.assoc)
        if self._rate.admits(peer, len(message.content)):
            return False
        log.warning(
            "notification.refused",
            reason="more than listeners.dimse.notifications_per_minute",
            peer=peer,
        )
        return True

    def _end(self, association: Association, intake: Intake) -> None:
        """Close the intake when the association's own thread is done with it."""
        with self._lock:
            if association not in self._open:
                return
            self._open.discard(association)
        intake.abandon()
        intake.close(aborted=not association.is_released)

    def _source(self, association: Association) -> Source:
        request, peer = association.requestor.primitive, self._peer(association)
        return Source(
            listener=self.name,
            calling_ae="" if request is None else str(request.calling_ae_title).strip(),
            called_ae="" if request is None else str(request.called_ae_title).strip(),
            peer_address=_peer_address(association),
            urgent=peer is not None and peer.urgent,
        )


def _peer_address(association: Association) -> str:
    return str(association.requestor.address or "")


def _certificate_names(association: Association) -> frozenset[str]:
    connection = association.dul.socket
    return certificate_names(None if connection is None else connection.socket)


def _encoded(event: Event, content: BytesIO | None) -> Encoded:
    syntax = event.context.transfer_syntax
    return Encoded(b"" if content is None else content.getvalue(), str(syntax))


def _contexts(association: Association) -> dict[int, Context]:
    """Return what was negotiated, by presentation context id."""
    return {
        number: Context(str(context.abstract_syntax), str(context.transfer_syntax[0]))
        for number, context in association._accepted_cx.items()
    }
