"""C-STORE and C-ECHO over DIMSE (PS3.4 annex A and B, PS3.7, PS3.8). The main way in."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, ClassVar, Final, cast

import structlog
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, field_validator
from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import AE, AllStoragePresentationContexts, _config, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.events import Event
from pynetdicom.transport import ThreadedAssociationServer

from node.interfaces import (
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    Ingest,
    IngestError,
    Listener,
    ListenerError,
    PluginSettings,
    Received,
    Source,
)

TRANSFER_SYNTAXES: Final = (
    "1.2.840.10008.1.2.1",  # Explicit VR Little Endian
    "1.2.840.10008.1.2",  # Implicit VR Little Endian
    "1.2.840.10008.1.2.1.99",  # Deflated Explicit VR Little Endian
    "1.2.840.10008.1.2.4.70",  # JPEG Lossless, first-order prediction
    "1.2.840.10008.1.2.4.57",  # JPEG Lossless
    "1.2.840.10008.1.2.4.80",  # JPEG-LS Lossless
    "1.2.840.10008.1.2.4.90",  # JPEG 2000 Lossless
    "1.2.840.10008.1.2.5",  # RLE Lossless
    "1.2.840.10008.1.2.4.201",  # HTJ2K Lossless
    "1.2.840.10008.1.2.4.202",  # HTJ2K Lossless RPCL
    "1.2.840.10008.1.2.4.50",  # JPEG Baseline
    "1.2.840.10008.1.2.4.51",  # JPEG Extended
    "1.2.840.10008.1.2.4.81",  # JPEG-LS Near-lossless
    "1.2.840.10008.1.2.4.91",  # JPEG 2000
    "1.2.840.10008.1.2.4.203",  # HTJ2K
    "1.2.840.10008.1.2.4.53",  # JPEG Spectral Selection (retired)
    "1.2.840.10008.1.2.4.55",  # JPEG Full Progression (retired)
    "1.2.840.10008.1.2.4.92",  # JPEG 2000 Part 2 Lossless
    "1.2.840.10008.1.2.4.93",  # JPEG 2000 Part 2
    "1.2.840.10008.1.2.4.100",  # MPEG2 MP@ML
    "1.2.840.10008.1.2.4.101",  # MPEG2 MP@HL
    "1.2.840.10008.1.2.4.102",  # MPEG-4 AVC/H.264 HP
    "1.2.840.10008.1.2.4.103",  # MPEG-4 AVC/H.264 BD
    "1.2.840.10008.1.2.4.107",  # HEVC/H.265 Main
    "1.2.840.10008.1.2.4.108",  # HEVC/H.265 Main 10
    "1.2.840.10008.1.2.4.110",  # JPEG XL Lossless
    "1.2.840.10008.1.2.4.111",  # JPEG XL JPEG Recompression
    "1.2.840.10008.1.2.4.112",  # JPEG XL
    "1.2.840.10008.1.2.2",  # Explicit VR Big Endian (retired)
)
VERIFICATION: Final = "1.2.840.10008.1.1"
SUCCESS: Final = 0x0000
CANNOT_UNDERSTAND: Final = 0xC000
LONGEST_COMMENT: Final = 64  # LO
META_START: Final = 132
META_GROUP_LENGTH_END: Final = 144

# Rejections (PS3.8 table 9-21): result, source, reason.
CALLING_AE_UNKNOWN: Final = (1, 1, 3)
CALLED_AE_UNKNOWN: Final = (1, 1, 7)
REASONS: Final = {
    CALLING_AE_UNKNOWN: "calling AE title, or its address, is not among listeners.dimse.peers",
    CALLED_AE_UNKNOWN: "called AE title is not among listeners.dimse.ae_titles",
}

log = structlog.get_logger()


class Peer(BaseModel):
    """One sender that may connect."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    ae_title: str = Field(min_length=1, max_length=16, description="Its calling AE title.")
    addresses: tuple[str, ...] = Field((), description="IP addresses it may come from; empty: any.")


class DimseListenerSettings(PluginSettings):
    """[listeners.dimse]: C-STORE and C-ECHO."""

    ae_titles: tuple[str, ...] = Field(
        ("WETREAD",), min_length=1, description="Called AE titles this node answers to."
    )
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(11112, ge=0, le=65535, description="Port; 0 takes a free one.")
    peers: tuple[Peer, ...] = Field((), description="Senders that may connect.")
    allow_any_peer: bool = Field(
        False, description="Let any sender connect. For demonstrations on loopback only."
    )
    max_associations: PositiveInt = Field(50, description="Associations at a time.")
    max_pdu: int = Field(
        131072, ge=4096, le=1 << 24, description="Largest PDU announced to senders, in bytes."
    )
    acse_seconds: PositiveFloat = Field(10.0, description="Time to negotiate, in seconds.")
    dimse_seconds: PositiveFloat = Field(
        300.0, description="Time between two messages of a sender, in seconds."
    )
    network_seconds: PositiveFloat = Field(
        120.0, description="Time without a byte until an association is aborted, in seconds."
    )
    grace_seconds: PositiveFloat = Field(
        20.0, description="Time for associations in flight when the node stops, in seconds."
    )

    @field_validator("ae_titles")
    @classmethod
    def _titles_fit(cls, titles: tuple[str, ...]) -> tuple[str, ...]:
        for title in titles:
            if not 0 < len(title.strip()) <= 16:  # noqa: PLR2004 - PS3.5 table 6.2-1, AE
                raise ValueError(f"{title!r}: an AE title has 1 to 16 characters")
        return tuple(title.strip() for title in titles)


class DimseListener(Listener[DimseListenerSettings]):
    """The storage SCP."""

    name: ClassVar[str] = "dimse"
    settings_type: ClassVar[type[PluginSettings]] = DimseListenerSettings

    def __init__(self, settings: DimseListenerSettings, ingest: Ingest) -> None:
        self._settings = settings
        self._ingest = ingest
        self._server: ThreadedAssociationServer | None = None
        self._open: dict[Association, int] = {}
        self._lock = threading.Lock()

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
        _config.STORE_RECV_CHUNKED_DATASET = True  # data sets go to a file, not into memory (R10)
        _config.LOG_HANDLER_LEVEL = "none"
        ae = AE(ae_title=settings.ae_titles[0])
        ae.supported_contexts = []
        ae.implementation_class_uid = UID(IMPLEMENTATION_CLASS_UID)
        ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        for context in AllStoragePresentationContexts:
            if context.abstract_syntax is not None:
                ae.add_supported_context(context.abstract_syntax, list(TRANSFER_SYNTAXES))
        ae.add_supported_context(VERIFICATION)
        ae.maximum_associations = settings.max_associations
        ae.maximum_pdu_size = settings.max_pdu
        ae.acse_timeout = settings.acse_seconds
        ae.dimse_timeout = settings.dimse_seconds
        ae.network_timeout = settings.network_seconds
        try:
            self._server = ae.start_server(
                (settings.host, settings.port), block=False, evt_handlers=self._handlers()
            )
        except OSError as error:
            raise ListenerError(
                f"listeners.dimse: {settings.host}:{settings.port}: {error.strerror}"
            ) from error

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

    def _associations(self) -> list[Association]:
        with self._lock:
            return list(self._open)

    def _handlers(self) -> list[evt.EventHandlerType]:
        return [
            (evt.EVT_REQUESTED, self._on_requested),
            (evt.EVT_ACCEPTED, self._on_accepted),
            (evt.EVT_RELEASED, self._on_released),
            (evt.EVT_ABORTED, self._on_ended),
            (evt.EVT_CONN_CLOSE, self._on_ended),
            (evt.EVT_C_ECHO, lambda _: SUCCESS),
            (evt.EVT_C_STORE, self._on_store),
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
        )
        event.assoc.acse.send_reject(*rejection)
        event.assoc.kill()

    def _rejection(self, association: Association) -> tuple[int, int, int] | None:
        request = association.requestor.primitive
        if request is None:
            return CALLING_AE_UNKNOWN
        if str(request.called_ae_title).strip() not in self._settings.ae_titles:
            return CALLED_AE_UNKNOWN
        if self._settings.allow_any_peer:
            return None
        calling, address = str(request.calling_ae_title).strip(), _peer_address(association)
        for peer in self._settings.peers:
            if peer.ae_title == calling and (not peer.addresses or address in peer.addresses):
                return None
        return CALLING_AE_UNKNOWN

    def _on_accepted(self, event: Event) -> None:
        association = event.assoc
        try:
            number = self._ingest.association_opened(self._source(association, None))
        except IngestError:
            log.error("association.not_recorded", peer=_peer_address(association))
            association.abort()
            return
        with self._lock:
            self._open[association] = number

    def _on_released(self, event: Event) -> None:
        self._end(event.assoc, aborted=False)

    def _on_ended(self, event: Event) -> None:
        _remove_unfinished(event.assoc)
        self._end(event.assoc, aborted=True)

    def _end(self, association: Association, *, aborted: bool) -> None:
        with self._lock:
            number = self._open.pop(association, None)
        if number is None:
            return  # its end was told already, or it was never accepted
        try:
            self._ingest.association_closed(number, aborted=aborted)
        except IngestError:
            log.error("association.end_not_recorded", association_id=number)

    def _on_store(self, event: Event) -> Dataset | int:
        """Take one instance; answer by cause (PS3.4 table B.2-1, PS3.7 9.1.1.1.9)."""
        try:
            with _data_set(Path(event.dataset_path)) as data:
                self._ingest.accept(self._received(event, data))
        except IngestError as error:
            log.warning("instance.refused", status=f"0x{error.status:04X}", reason=str(error))
            return _status(error.status, str(error))
        except Exception as error:  # noqa: BLE001 - the edge of an association: told by status
            incident = uuid.uuid4().hex[:8]
            log.error("instance.failed", incident=incident, error=type(error).__name__)
            return _status(CANNOT_UNDERSTAND, f"internal error, incident {incident}")
        return SUCCESS

    def _received(self, event: Event, data: BinaryIO) -> Received:
        request = cast("C_STORE", event.request)
        with self._lock:
            number = self._open.get(event.assoc)
        return Received(
            source=self._source(event.assoc, number),
            sop_class_uid=str(request.AffectedSOPClassUID),
            sop_instance_uid=str(request.AffectedSOPInstanceUID),
            transfer_syntax_uid=str(event.context.transfer_syntax),
            data=data,
        )

    def _source(self, association: Association, number: int | None) -> Source:
        request = association.requestor.primitive
        return Source(
            listener=self.name,
            calling_ae="" if request is None else str(request.calling_ae_title).strip(),
            called_ae="" if request is None else str(request.called_ae_title).strip(),
            peer_address=_peer_address(association),
            association_id=number,
        )


def _peer_address(association: Association) -> str:
    return str(association.requestor.address or "")


@contextmanager
def _data_set(path: Path) -> Iterator[BinaryIO]:
    """Open pynetdicom's spooled file at the first byte of the data set, after its file meta."""
    with path.open("rb") as file:
        head = file.read(META_GROUP_LENGTH_END)
        file.seek(META_GROUP_LENGTH_END + int.from_bytes(head[META_START + 8 :], "little"))
        yield file


def _remove_unfinished(association: Association) -> None:
    """Remove the spooled file of a data set whose sender vanished before its end."""
    message = getattr(association.dimse, "message", None)
    spooled = getattr(message, "_data_set_file", None)
    if spooled is not None:
        spooled.close()
        Path(spooled.name).unlink(missing_ok=True)


def _status(status: int, comment: str) -> Dataset:
    """Return a status with its comment: our own words only, nothing of the data set."""
    answer = Dataset()
    answer.Status = status
    answer.ErrorComment = comment[:LONGEST_COMMENT]
    return answer
