"""The one way in: durable bytes, then a row, then the caller may acknowledge (invariant 1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

import structlog
from pydicom.dataset import FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import UID

from node.headers import HeaderError, IndexHeader, read_index_header
from node.interfaces import (
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    CannotUnderstand,
    DataSetMismatch,
    Ingest,
    IngestError,
    OutOfResources,
    Received,
    Source,
)
from storage.associations import AssociationStore
from storage.objects import ObjectStore
from storage.records import (
    DataRefusedError,
    NewInstance,
    ObjectTooLargeError,
    QuarantinedInstance,
    StorageError,
    StoredObject,
)
from storage.states import AssociationState, ReceiptOutcome
from storage.studies import StudyStore

QuietTime: TypeAlias = Callable[[str, str], float]
"""(modality, calling AE title) -> seconds after the last instance until a study is complete."""

PREAMBLE: Final = b"\0" * 128 + b"DICM"

log = structlog.get_logger()


def part10_prefix(sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str) -> bytes:
    """Return preamble and file meta group for a data set received over the wire (PS3.10 7.1).

    The preamble is ours, zeros: what a sender puts there is never kept.
    """
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID = UID(sop_class_uid)
    meta.MediaStorageSOPInstanceUID = UID(sop_instance_uid)
    meta.TransferSyntaxUID = UID(transfer_syntax_uid)
    meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    buffer = DicomBytesIO()
    buffer.write(PREAMBLE)
    write_file_meta_info(buffer, meta, enforce_standard=True)
    return buffer.getvalue()


class StudyIngest(Ingest):
    """Takes instances into the object store and the index."""

    def __init__(
        self,
        *,
        objects: ObjectStore,
        studies: StudyStore,
        associations: AssociationStore,
        quiet_time: QuietTime,
        max_object_bytes: int,
        reserve_bytes: int,
    ) -> None:
        self._objects = objects
        self._studies = studies
        self._associations = associations
        self._quiet_time = quiet_time
        self._max_object_bytes = max_object_bytes
        self._reserve_bytes = reserve_bytes

    def association_opened(self, source: Source) -> int:
        """Record an accepted association, so that it holds its studies open (R2)."""
        try:
            return self._associations.opened(
                listener=source.listener,
                calling_ae=source.calling_ae,
                called_ae=source.called_ae,
                peer_address=source.peer_address,
            )
        except StorageError as error:
            raise OutOfResources("storage is not available") from error

    def association_closed(self, association_id: int, *, aborted: bool) -> None:
        """Record how an association ended."""
        state = AssociationState.ABORTED if aborted else AssociationState.RELEASED
        try:
            self._associations.closed(association_id, state)
        except StorageError as error:
            raise OutOfResources("storage is not available") from error

    def accept(self, received: Received) -> None:
        """Store, sync and index one instance.

        Raises:
            OutOfResources: no space (refused before the write) or no database.
            CannotUnderstand, DataSetMismatch: kept in quarantine, with the reason.
        """
        self._refuse_when_full()
        try:
            header = _read_header(received)
        except IngestError as error:
            self._quarantine(received, str(error))
            raise
        try:
            stored = self._store(received)
            recorded = self._studies.record(self._new_instance(received, header, stored))
        except ObjectTooLargeError as error:
            raise OutOfResources(str(error)) from error
        except DataRefusedError as error:
            self._quarantine(received, str(error))
            raise CannotUnderstand("the index refuses what the header says") from error
        except StorageError as error:
            raise OutOfResources("storage is not available") from error
        if recorded.outcome is not ReceiptOutcome.STORED:
            log.info(
                "instance.not_new",
                outcome=recorded.outcome.value,
                study_id=recorded.study_id,
                listener=received.source.listener,
            )

    def _refuse_when_full(self) -> None:
        if self._objects.free_bytes() < self._reserve_bytes:
            raise OutOfResources("the disk is full up to the reserve for studies in flight")

    def _store(self, received: Received) -> StoredObject:
        prefix = part10_prefix(
            received.sop_class_uid, received.sop_instance_uid, received.transfer_syntax_uid
        )
        return self._objects.write(received.data, prefix=prefix, limit=self._max_object_bytes)

    def _quarantine(self, received: Received, reason: str) -> None:
        try:
            stored = self._store(received)
            self._studies.quarantine(
                QuarantinedInstance(
                    digest=stored.digest,
                    size=stored.size,
                    reason=reason,
                    listener=received.source.listener,
                    calling_ae=received.source.calling_ae,
                    peer_address=received.source.peer_address,
                    association_id=received.source.association_id,
                )
            )
        except (StorageError, ValueError) as error:
            log.warning("quarantine.failed", error=type(error).__name__)

    def _new_instance(
        self, received: Received, header: IndexHeader, stored: StoredObject
    ) -> NewInstance:
        source = received.source
        return NewInstance(
            study_instance_uid=header.study_instance_uid,
            series_instance_uid=header.series_instance_uid,
            sop_instance_uid=header.sop_instance_uid,
            sop_class_uid=header.sop_class_uid,
            transfer_syntax_uid=received.transfer_syntax_uid,
            instance_number=header.instance_number,
            digest=stored.digest,
            size=stored.size,
            study=header.study,
            series=header.series,
            listener=source.listener,
            calling_ae=source.calling_ae,
            peer_address=source.peer_address,
            association_id=source.association_id,
            quiet_seconds=self._quiet_time(header.series.modality, source.calling_ae),
        )


def _read_header(received: Received) -> IndexHeader:
    start = received.data.tell()
    try:
        header = read_index_header(received.data, received.transfer_syntax_uid)
    except HeaderError as error:
        raise CannotUnderstand(str(error)) from error
    finally:
        received.data.seek(start)
    if header.sop_class_uid != received.sop_class_uid:
        raise DataSetMismatch("(0008,0016) SOP Class UID differs from the command's")
    if header.sop_instance_uid != received.sop_instance_uid:
        raise DataSetMismatch("(0008,0018) SOP Instance UID differs from the command's")
    return header
