"""C-STORE and C-ECHO over DIMSE (PS3.4 annex A and B, PS3.7, PS3.8). The main way in."""

from __future__ import annotations

import threading
import time
import uuid
from io import BytesIO
from typing import ClassVar, Final, Protocol, cast

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
    CannotUnderstand,
    Ingest,
    IngestError,
    Intake,
    Listener,
    ListenerError,
    OutOfResources,
    PluginSettings,
    Source,
)
from node.listeners._association import Guard, StoreProvider, StoreSocket
from node.listeners._attributes import SYNTAXES, Encoded
from node.listeners._dimse_settings import DimseListenerSettings, Peer
from node.listeners._guarded_server import GuardedServer, StoreRequestHandler
from node.listeners._message_rate import MessageRate
from node.listeners._pdata import Context, MessageStream
from node.listeners._procedure_steps import (
    AVAILABILITY,
    PROCEDURE_STEP,
    n_create,
    n_set,
    too_many,
)
from node.listeners._tls import ServerContext, certificate_names
from node.listeners._transfer_syntaxes import TRANSFER_SYNTAXES
from node.listeners._user_identity import is_accepted

VERIFICATION: Final = "1.2.840.10008.1.1"
NEED_NO_ROOM: Final = frozenset({VERIFICATION, PROCEDURE_STEP, AVAILABILITY})
APPLICATION_CONTEXT: Final = "1.2.840.10008.3.1.1.1"
SUCCESS: Final = 0x0000
PDU_TOLERANCE: Final = 12
"""Some senders count their own headers out of the PDU length that they were given."""
SPARE_CONNECTIONS: Final = 10
"""Connections beyond the associations, so that one too many can be told so (PS3.8 table 9-21)."""

# Rejections (PS3.8 table 9-21): result, source, reason.
APPLICATION_CONTEXT_UNKNOWN: Final = (1, 1, 2)
CALLING_AE_UNKNOWN: Final = (1, 1, 3)
CALLED_AE_UNKNOWN: Final = (1, 1, 7)
NO_USER_IDENTITY: Final = (2, 2, 1)
CONGESTED: Final = (2, 3, 1)
LOCAL_LIMIT: Final = (2, 3, 2)
REASONS: Final = {
    APPLICATION_CONTEXT_UNKNOWN: "its application context is not DICOM's",
    CALLING_AE_UNKNOWN: "calling AE title, with its address and the names in its certificate, is "
    "not among listeners.dimse.peers",
    CALLED_AE_UNKNOWN: "called AE title is not among listeners.dimse.ae_titles",
    NO_USER_IDENTITY: "it shows no user identity, and listeners.dimse.users asks for one",
    CONGESTED: "what it would send could not be kept just now",
    LOCAL_LIMIT: "no association is free, in all or for its address, but for urgent senders "
    "(listeners.dimse)",
}

log = structlog.get_logger()


class DimseListener(Listener[DimseListenerSettings]):
    """The storage SCP."""

    name: ClassVar[str] = "dimse"
    settings_type: ClassVar[type[PluginSettings]] = DimseListenerSettings

    def __init__(self, settings: DimseListenerSettings, ingest: Ingest) -> None:
        self._settings = settings
        self._ingest = ingest
        self._server: GuardedServer | None = None
        self._open: set[Association] = set()
        self._lock = threading.Lock()
        self._rate = MessageRate(settings.notifications_per_minute)

    def start(self) -> None:
        """Listen.

        Raises:
            ListenerError: nobody would be let in, or the address cannot be had.
        """
        settings = self._settings
        if not settings.peers and not settings.allow_any_peer:
            raise ListenerError(
                "listeners.dimse.peers: is empty, so no sender could connect; list the calling "
                "AE titles, or set allow_any_peer = true for a demonstration"
            )
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
            )
        except OSError as error:
            raise ListenerError(
                f"listeners.dimse: {settings.host}:{settings.port}: {error.strerror}"
            ) from error
        ae._servers.append(self._server)
        threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="dimse-accept", daemon=True
        ).start()

    def stop(self) -> None:
        """Accept no more, let associations in flight end within the grace time, abort the rest."""
        server, self._server = self._server, None
        if server is None:
            return
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
        if self._server is None or self._server.socket is None:
            return self._settings.port
        port: int = self._server.socket.getsockname()[1]
        return port

    def address(self) -> str:
        """Say where the door is."""
        return f"dicom://{self._settings.ae_titles[0]}@{self._settings.host}:{self.port}"

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
        shown = cast("_UserIdentity", event)
        kind, name, passcode = shown.user_id_type, shown.primary_field, shown.secondary_field
        accepted = is_accepted(kind, name, passcode, self._settings.users)
        if not accepted:
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
        source, settings, open_now = self._source(association), self._settings, self._associations()
        free = settings.max_associations - len(open_now)
        if free <= (0 if source.urgent else settings.kept_for_urgent):
            return LOCAL_LIMIT
        from_there = sum(_peer_address(other) == source.peer_address for other in open_now)
        if from_there >= settings.max_associations_per_address and not source.urgent:
            return LOCAL_LIMIT
        contexts = association.requestor.requested_contexts
        stores = any(context.abstract_syntax not in NEED_NO_ROOM for context in contexts)
        try:
            self._ingest.admit(source, stores=stores)
        except OutOfResources as error:
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
            _refused,
            _incident,
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


class _UserIdentity(Protocol):
    """What pynetdicom puts into the event of a user identity."""

    user_id_type: int
    primary_field: bytes
    secondary_field: bytes | None


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


def _refused(error: IngestError) -> None:
    log.warning("instance.refused", status=f"0x{error.status:04X}", reason=str(error))


def _incident(error: Exception) -> IngestError:
    """Log an error that nobody expected; the sender is told where to look for it."""
    incident = uuid.uuid4().hex[:8]
    log.error("instance.failed", incident=incident, error=type(error).__name__)
    return CannotUnderstand(f"internal error, incident {incident}")
