"""What a start does about the last end: nothing acknowledged is left lying (invariant 4)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import structlog
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info

from node.clock import Clock
from node.headers import HeaderError, read_index_header
from node.ingest import StudyIngest
from node.interfaces import IngestError, Received, Source
from storage.associations import AssociationStore
from storage.events import EventStore
from storage.objects import ObjectStore
from storage.studies import StudyStore

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciled:
    """What a start found: counts."""

    associations_ended: int
    parts_removed: int
    adopted: int
    quarantined: int
    missing: int


class Reconciliation:
    """Brings rows and bytes together again after an end that was not clean."""

    def __init__(
        self,
        *,
        objects: ObjectStore,
        studies: StudyStore,
        associations: AssociationStore,
        events: EventStore,
        ingest: StudyIngest,
        clock: Clock,
        own_model: str,
    ) -> None:
        self._objects = objects
        self._studies = studies
        self._associations = associations
        self._events = events
        self._ingest = ingest
        self._clock = clock
        self._own_model = own_model

    def run(self) -> Reconciled:
        """End open associations, sweep part files, adopt blobs without a row, raise rows without.

        Runs before the listeners open: no instance can be between its bytes and its row.
        """
        ended = self._associations.abandon_open()
        parts = self._objects.sweep_parts(self._clock() + timedelta(seconds=1))
        known = frozenset(self._studies.known_digests())
        there = frozenset(self._objects.digests())
        adopted = sum(self._adopt(digest) for digest in sorted(there - known))
        missing = known - there
        for digest in sorted(missing):
            self._raise_missing(digest)
        result = Reconciled(
            associations_ended=ended,
            parts_removed=parts,
            adopted=adopted,
            quarantined=len(there - known) - adopted,
            missing=len(missing),
        )
        log.info(
            "node.reconciled",
            associations_ended=ended,
            parts_removed=parts,
            adopted=adopted,
            quarantined=result.quarantined,
            missing=result.missing,
        )
        return result

    def _adopt(self, digest: str) -> bool:
        """Index bytes that became durable but whose row did not; the sender was never answered.

        A result object without a row is left alone: its job is still open and makes the same
        bytes again.
        """
        path = self._objects.path(digest)
        try:
            meta = read_file_meta_info(path)
            transfer_syntax_uid = str(meta.TransferSyntaxUID)
            with path.open("rb") as file:
                start = 144 + meta.FileMetaInformationGroupLength
                file.seek(start)
                header = read_index_header(file, transfer_syntax_uid)
                if header.manufacturer_model_name == self._own_model:
                    return False
                file.seek(start)
                self._ingest.accept(
                    Received(
                        source=Source(listener="reconciliation"),
                        sop_class_uid=header.sop_class_uid,
                        sop_instance_uid=header.sop_instance_uid,
                        transfer_syntax_uid=transfer_syntax_uid,
                        data=file,
                    )
                )
        except (IngestError, HeaderError, InvalidDicomError, AttributeError, OSError) as error:
            log.warning("object.not_adopted", digest=digest, error=type(error).__name__)
            return False
        return True

    def _raise_missing(self, digest: str) -> None:
        log.error("object.missing", digest=digest)
        self._events.append("object.missing", details={"digest": digest})
