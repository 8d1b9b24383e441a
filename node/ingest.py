"""The one way in: durable bytes, with a note of what they are; then the caller may acknowledge.

The rows of the index follow behind, written by one thread in batches (`storage.indexing`); a crash
before they are written loses nothing, because the notes lie beside the bytes (invariant 1).
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeAlias

import structlog

from node.clock import Clock
from node.expectation import Expectation
from node.expecting import keep_expectation
from node.file_meta import part10_prefix
from node.headers import UID_PATTERN, HeaderError, HeaderReader, IndexHeader, MissingUidError
from node.interfaces import (
    CannotUnderstand,
    DataSetMismatch,
    Ingest,
    IngestError,
    Intake,
    InvalidInstance,
    OutOfResources,
    Received,
    Source,
    TooLarge,
)
from node.quotas import Quotas
from storage.digests import InstanceDigest
from storage.expectations import ExpectationStore
from storage.indexing import Ended, Indexer, Opened
from storage.notes import Entry, NoteWriter
from storage.packs import Pack, PackStore
from storage.records import (
    Brought,
    JsonValue,
    NewInstance,
    QuarantinedInstance,
    StorageError,
)
from storage.states import AssociationState

QuietTime: TypeAlias = Callable[[str, str], float]
"""(modality, calling AE title) -> seconds after the last instance until a study is complete."""

HEAD_BYTES: Final = 16 << 10
"""What is kept of a data set to read its header from; further bytes are read from the pack."""
LONGEST_UID: Final = 64
AFFECTED_SOP_CLASS_UID: Final = 0x00000002
AFFECTED_SOP_INSTANCE_UID: Final = 0x00001000
SOP_CLASS_UID: Final = 0x00080016
SOP_INSTANCE_UID: Final = 0x00080018
CHUNK: Final = 1 << 20
DIGEST_AT_ONCE: Final = 64 << 10
"""More would let other threads have the interpreter, for a few microseconds, at a higher price."""
ROWS_WITHIN_SECONDS: Final = 30.0

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestLimits:
    """What is taken in, and how much may wait."""

    max_object_bytes: int
    behind_bytes: int = 256 << 20
    """Where records are synced behind the acknowledgement: how many bytes may wait for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnDevice:
    """How our own result objects name their maker, so that they are known when they come back."""

    manufacturer: str
    model: str
    uid_prefix: str = "2.25."

    def made(self, header: IndexHeader) -> bool:
        """Say whether this is one of our results (NET-01)."""
        return (
            header.manufacturer_model_name == self.model
            and header.manufacturer == self.manufacturer
            and header.sop_instance_uid.startswith(self.uid_prefix)
        )


class StudyIngest(Ingest):
    """Takes instances into the packs, and hands them on to the index."""

    def __init__(  # noqa: PLR0913 - what an ingest is made of
        self,
        *,
        packs: PackStore,
        indexer: Indexer,
        expectations: ExpectationStore,
        quiet_time: QuietTime,
        limits: IngestLimits,
        quotas: Quotas,
        own_device: OwnDevice,
        clock: Clock,
    ) -> None:
        self.packs = packs
        self.indexer = indexer
        self.expectations = expectations
        self.quiet_time = quiet_time
        self.limits = limits
        self.quotas = quotas
        self.own_device = own_device
        self.clock = clock

    def admit(self, source: Source, *, stores: bool) -> None:
        """Say whether anything can be taken over an association now (NET-10: congestion)."""
        if stores:
            self.quotas.check_disk(source)
        self._refuse_when_behind(source)

    def open(self, source: Source) -> StudyIntake:
        """Note an accepted association; until its intake closes it holds its studies open (R2)."""
        self._refuse_when_behind(source)
        brought = _brought(source, uuid.uuid4().hex)
        self.indexer.put(Opened(brought=brought, at=self.clock()))
        return StudyIntake(self, source, brought)

    def accept(self, received: Received) -> None:
        """Store and index one instance that belongs to no association; wait for its rows."""
        intake = StudyIntake(self, received.source, _brought(received.source, ""))
        try:
            intake.begin(
                received.sop_class_uid, received.sop_instance_uid, received.transfer_syntax_uid
            )
            while chunk := received.data.read(CHUNK):
                intake.write([memoryview(chunk)])
            intake.finish()
        finally:
            intake.close(aborted=False)
            intake.settle(ROWS_WITHIN_SECONDS)

    def expected(self, expectation: Expectation) -> None:
        """Keep what a procedure step or notification says that a study has."""
        keep_expectation(self.expectations, expectation)

    def settle(self, seconds: float) -> bool:
        """Bring all that was acknowledged to the disk and into the index; False: not within that.

        A study may only be called complete when this said True.
        """
        try:
            self.packs.flush()
        except StorageError as error:
            log.error("packs.not_flushed", error=str(error))
            return False
        return self.indexer.drain(seconds)

    def refuse_when_full(self, source: Source) -> None:
        """Refuse before the write what could not be kept or indexed.

        Raises:
            OutOfResources
        """
        self.quotas.check(source)
        self._refuse_when_behind(source)

    def _refuse_when_behind(self, source: Source) -> None:
        if self.indexer.full or (self.indexer.nearly_full and not source.urgent):
            raise OutOfResources("the index is too far behind")


class StudyIntake(Intake):
    """What one association brings: written to a pack of its own."""

    def __init__(self, ingest: StudyIngest, source: Source, brought: Brought) -> None:
        self._ingest = ingest
        self._source = source
        self._brought = brought
        self._notes = NoteWriter(brought)
        self._headers = HeaderReader()
        self._pack: Pack | None = None
        self._head = bytearray()
        self._size = 0
        self._digest = InstanceDigest()
        self._pending: Sequence[memoryview] = ()
        self._named = ("", "", "")  # SOP class, SOP instance, transfer syntax

    def begin(self, sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str) -> None:
        """Start an instance, as the command names it."""
        if not _is_uid(sop_instance_uid):
            raise InvalidInstance(
                "(0000,1000) Affected SOP Instance UID is not a valid UID",
                offending=AFFECTED_SOP_INSTANCE_UID,
            )
        if not _is_uid(sop_class_uid):
            raise CannotUnderstand(
                "(0000,0002) Affected SOP Class UID is not a valid UID",
                offending=AFFECTED_SOP_CLASS_UID,
            )
        self._ingest.refuse_when_full(self._source)
        self._named = (sop_class_uid, sop_instance_uid, transfer_syntax_uid)
        self._size = 0
        self._head.clear()
        self._pending = ()
        self._digest = InstanceDigest()
        try:
            self._open_pack().begin(part10_prefix(*self._named))
        except StorageError as error:
            raise self._given_up(error) from error

    def write(self, pieces: Sequence[memoryview]) -> None:
        """Take bytes of the data set exactly as they came."""
        self._look_at(pieces)
        try:
            self._open_pack().write(pieces)
        except StorageError as error:
            raise self._given_up(error) from error

    def finish(self, pieces: Sequence[memoryview] = ()) -> None:
        """Take the last bytes; when this returns the instance may be acknowledged."""
        self._look_at(pieces)
        self._pending = pieces
        at = self._ingest.clock()
        try:
            try:
                header = self._read_header()
            except IngestError as error:
                reason = str(error)
                self._keep(self._quarantined(reason), self._notes.of_quarantine(reason, at), at)
                raise
            new = self._new_instance(header)
            self._keep(new, self._notes.of_instance(new, at), at)
        except StorageError as error:
            raise self._given_up(error) from error

    def abandon(self) -> None:
        """Give the open instance up."""
        if self._pack is not None:
            self._pack.abandon()

    def settle(self, seconds: float) -> None:
        """Wait until all that was acknowledged can be found in the index."""
        self._ingest.indexer.drain(seconds)

    def close(self, *, aborted: bool) -> None:
        """End: the pack goes back, and the association no longer holds its studies open."""
        self._give_pack_back()
        if self._brought.token:
            state = AssociationState.ABORTED if aborted else AssociationState.RELEASED
            at = self._ingest.clock()
            self._ingest.indexer.put(Ended(token=self._brought.token, state=state, at=at))

    # ------------------------------------------------------------ within

    def _open_pack(self) -> Pack:
        pack = self._pack
        if pack is not None and not pack.open_record and pack.end >= self._ingest.packs.pack_bytes:
            self._give_pack_back()
            pack = None
        if pack is None:
            pack = self._pack = self._ingest.packs.borrow()
        return pack

    def _give_pack_back(self) -> None:
        pack, self._pack = self._pack, None
        if pack is None:
            return
        try:
            self._ingest.packs.give_back(pack)
        except StorageError as error:  # its records are durable; it is cut at the next start
            log.error("pack.not_sealed", pack=pack.name, error=str(error))

    def _given_up(self, error: StorageError) -> OutOfResources:
        self.abandon()
        if self._pack is not None and self._pack.failed:
            self._give_pack_back()
        return OutOfResources(str(error))

    def _look_at(self, pieces: Sequence[memoryview]) -> None:
        """Count and digest bytes on their way, and keep the first of them for the header."""
        digest = self._digest
        for piece in pieces:
            for start in range(0, len(piece), DIGEST_AT_ONCE):
                digest.update(piece[start : start + DIGEST_AT_ONCE])
            self._size += len(piece)
            if len(self._head) < HEAD_BYTES:
                self._head += piece[: HEAD_BYTES - len(self._head)]
        if self._size > self._ingest.limits.max_object_bytes:
            raise self._too_large()

    def _too_large(self) -> TooLarge:
        """Give the object up; its head goes into quarantine, where somebody sees it (T05)."""
        error = TooLarge(f"the object has more than {self._ingest.limits.max_object_bytes} bytes")
        self.abandon()
        head, at = bytes(self._head), self._ingest.clock()
        reason = f"{error}; its first {len(head)} bytes are kept"
        self._digest, self._size, self._pending = (
            InstanceDigest(head),
            len(head),
            [memoryview(head)],
        )
        try:
            self._open_pack().begin(part10_prefix(*self._named))
            self._keep(self._quarantined(reason), self._notes.of_quarantine(reason, at), at)
        except StorageError as failure:
            log.error("instance.not_noted", reason=str(error), error=str(failure))
            self._given_up(failure)
        return error

    def _read_header(self) -> IndexHeader:
        sop_class_uid, sop_instance_uid, transfer_syntax_uid = self._named
        try:
            header = self._headers.read(
                self._head, self._size, self._read_bytes, transfer_syntax_uid
            )
        except MissingUidError as error:
            raise DataSetMismatch(str(error), offending=error.tag) from error
        except HeaderError as error:
            raise CannotUnderstand(str(error)) from error
        if header.sop_class_uid != sop_class_uid:
            raise DataSetMismatch(
                "(0008,0016) SOP Class UID differs from the command's", offending=SOP_CLASS_UID
            )
        if header.sop_instance_uid != sop_instance_uid:
            raise DataSetMismatch(
                "(0008,0018) SOP Instance UID differs from the command's",
                offending=SOP_INSTANCE_UID,
            )
        return header

    def _read_bytes(self, offset: int, length: int) -> bytes:
        """Read bytes of the open instance back; those still in the sender's buffer are written."""
        pieces, self._pending = self._pending, ()
        pack = self._open_pack()
        pack.write(pieces)
        return pack.read_back(offset, length)

    def _keep(self, what: NewInstance | QuarantinedInstance, note: bytes, at: datetime) -> None:
        """Close the record, durably, and hand what it is to the index."""
        pack = self._open_pack()
        pack.finish(self._digest.digest(), note, self._pending)
        self._pending = ()
        if pack.unsynced > self._ingest.limits.behind_bytes:
            pack.sync()  # the sender waits for the disk: what may be lost is bounded
        self._ingest.quotas.took(self._source, self._size)
        self._ingest.indexer.put(Entry(brought=self._brought, at=at, what=what, end=pack.end))

    def _quarantined(self, reason: str) -> QuarantinedInstance:
        return QuarantinedInstance(
            digest=self._digest.hexdigest(),
            size=self._size,
            location=self._open_pack().location(self._pending),
            reason=reason,
            listener=self._brought.listener,
            calling_ae=self._brought.calling_ae,
            peer_address=self._brought.peer_address,
        )

    def _new_instance(self, header: IndexHeader) -> NewInstance:
        brought = self._brought
        return NewInstance(
            study_instance_uid=header.study_instance_uid,
            series_instance_uid=header.series_instance_uid,
            sop_instance_uid=header.sop_instance_uid,
            sop_class_uid=header.sop_class_uid,
            transfer_syntax_uid=self._named[2],
            instance_number=header.instance_number,
            digest=self._digest.hexdigest(),
            size=self._size,
            study=header.study,
            series=header.series,
            listener=brought.listener,
            calling_ae=brought.calling_ae,
            peer_address=brought.peer_address,
            location=self._open_pack().location(self._pending),
            quiet_seconds=self._ingest.quiet_time(header.series.modality, brought.calling_ae),
            own_result=self._ingest.own_device.made(header),
        )


def _brought(source: Source, token: str) -> Brought:
    return Brought(
        token=token,
        listener=source.listener,
        calling_ae=source.calling_ae,
        called_ae=source.called_ae,
        peer_address=source.peer_address,
    )


def _is_uid(text: str) -> bool:
    return len(text) <= LONGEST_UID and UID_PATTERN.fullmatch(text) is not None


def tell(what: str, details: Mapping[str, JsonValue]) -> None:
    """Write down what the indexer met: ids and counts, no patient data."""
    write = log.info if what in {"instances.not_new", "index.goes_on"} else log.error
    write(what, **details)
