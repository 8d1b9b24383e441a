"""What a start does about the last end: nothing acknowledged is left lying (invariant 4)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import timedelta

import structlog

from node.clock import Clock
from storage.associations import AssociationStore
from storage.events import EventStore
from storage.indexing import Indexer
from storage.notes import Entry, NoteError, read_note
from storage.objects import ObjectStore
from storage.pack_format import FIRST
from storage.packs import PackStore
from storage.studies import StudyStore

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciled:
    """What a start found: counts."""

    associations_ended: int
    parts_removed: int
    indexed: int  # instances that were durable and had no rows
    unread: int  # records whose note cannot be read
    missing: int  # packs and result objects that rows refer to, and that are not there


class PackReconciliation:
    """Brings the rows and packs of one process together again after an end that was not clean."""

    def __init__(
        self,
        *,
        packs: PackStore,
        associations: AssociationStore,
        indexer: Indexer,
        events: EventStore,
    ) -> None:
        self._packs = packs
        self._associations = associations
        self._indexer = indexer
        self._events = events
        self._unread = 0

    def run(self) -> Reconciled:
        """End open associations, sweep cut-off files, index what has no rows, raise what is lost.

        Nobody may write to these packs meanwhile.
        """
        ended = self._associations.abandon_open()
        parts = self._packs.sweep()
        self._unread = 0
        indexed = self._indexer.rebuild(self._not_indexed())
        return Reconciled(
            associations_ended=ended,
            parts_removed=parts,
            indexed=indexed,
            unread=self._unread,
            missing=self._raise_missing(),
        )

    def _not_indexed(self) -> Iterator[Entry]:
        """Yield what packs hold and the index does not; cut each pack behind its last record."""
        known = self._indexer.indexed_through()
        for name, size in sorted(self._packs.names().items()):
            end = known.get(name, FIRST)
            if size == end:
                continue
            for record in self._packs.records(name, end):
                end = record.end
                if record.erased:
                    continue  # by retention: the database is older than the pack
                try:
                    yield read_note(record)
                except NoteError as error:
                    self._unread += 1
                    log.error("record.unread", pack=name, reason=str(error))
                    self._events.append(
                        "record.unread",
                        details={"pack": name, "offset": record.location.offset},
                    )
            self._packs.settle(name, end)

    def _raise_missing(self) -> int:
        there, going = self._packs.names(), self._indexer.going()
        missing = [
            (name, end)
            for name, end in sorted(self._indexer.indexed_through(own=True).items())
            if there.get(name, 0) < end and name not in going
        ]
        for name, end in missing:
            log.error("pack.missing", pack=name, needed=end, there=there.get(name, 0))
            self._events.append(
                "pack.missing",
                details={"pack": name, "needed": end, "there": there.get(name, 0)},
            )
        return len(missing)


class Reconciliation:
    """Brings rows and bytes together again after an end of the node that was not clean."""

    def __init__(
        self,
        *,
        packs: PackStore,
        objects: ObjectStore,
        studies: StudyStore,
        associations: AssociationStore,
        indexer: Indexer,
        events: EventStore,
        clock: Clock,
    ) -> None:
        self._of_packs = PackReconciliation(
            packs=packs, associations=associations, indexer=indexer, events=events
        )
        self._objects = objects
        self._studies = studies
        self._events = events
        self._clock = clock

    def run(self) -> Reconciled:
        """Reconcile the packs and the result objects.

        Runs before the listeners open, so that nobody writes to a pack meanwhile. A result object
        without a row is left alone: its job is still open and makes the same bytes again.
        """
        found = self._of_packs.run()
        parts = self._objects.sweep_parts(self._clock() + timedelta(seconds=1))
        result = replace(
            found,
            parts_removed=found.parts_removed + parts,
            missing=found.missing + self._raise_missing_results(),
        )
        log.info("node.reconciled", **asdict(result))
        return result

    def _raise_missing_results(self) -> int:
        missing = [
            digest
            for digest in sorted(set(self._studies.result_digests()))
            if not self._objects.exists(digest)
        ]
        for digest in missing:
            log.error("object.missing", digest=digest)
            self._events.append("object.missing", details={"digest": digest})
        return len(missing)
