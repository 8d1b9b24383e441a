"""The only code that deletes: first a row says what goes and why, then the bytes go (invariant 2).

A sweep may end anywhere: what a row says is gone and is still there, the next one deletes. Bytes
that a running job, a waiting delivery, an open association or a hold wants are never in a plan, and
each item of a plan is judged again, under the lock of its study, in the transaction that writes it
down.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import partial
from itertools import islice
from typing import Final, TypeAlias

from sqlalchemy import exists, select, update
from sqlalchemy.orm import Session, aliased

from storage.burial import bury, spare_deletion
from storage.database import Database
from storage.erasing import erase_records, remove_pack
from storage.events import Clock
from storage.expired import packs_without_rows
from storage.leftovers import Looked, look_through
from storage.models import Deletion, Instance, Job, Pack, Quarantine, Result
from storage.objects import ObjectStore
from storage.packs import PackStore
from storage.records import JsonValue, Location, StorageError
from storage.retention_plan import RetentionPlan
from storage.retention_records import Planned, RetentionPolicy, Swept
from storage.states import DeletionKind, DeletionRule

MOST_AT_ONCE: Final = 1000
"""Items that one sweep writes down: those that are left wait for the next."""

Tell: TypeAlias = Callable[[str, Mapping[str, JsonValue]], None]
"""(what happened, details without patient data): the caller's log."""


class Retention:
    """Deletes what a policy lets go. Several may run over one database: each item goes once."""

    def __init__(
        self,
        *,
        database: Database,
        packs: PackStore,
        objects: ObjectStore,
        clock: Clock,
        policy: RetentionPolicy,
        tell: Tell = lambda _what, _details: None,
    ) -> None:
        self._database = database
        self._packs = packs
        self._objects = objects
        self._clock = clock
        self._policy = policy
        self._tell = tell
        self._stopping = threading.Event()
        self._sweeping = threading.Lock()
        self._holes = True  # whether the file system can give parts of a pack back
        self._left: set[str] = set()  # packs that were looked through and stay: a sealed one does
        self._freed = 0

    def stop(self) -> None:
        """Let a sweep end after the item in hand."""
        self._stopping.set()

    def plan(self) -> list[Planned]:
        """Return what a sweep would delete now; nothing is changed."""
        with self._database.reading() as session:
            plan = self._plan(session)
            items = [item for item in plan.by_time() if item.count]
            free = self._packs.free_bytes() + sum(item.size for item in items)
            planned = frozenset(item.key for item in items if item.kind is DeletionKind.INSTANCES)
            return [*items, *plan.for_room(free, planned)]

    def short_of_room(self) -> bool:
        """Say whether studies that are done would go early now."""
        return self._packs.free_bytes() < self._policy.low_bytes

    def sweep(self) -> Swept:
        """Delete what may go, and finish what an earlier sweep began; one sweep at a time."""
        with self._sweeping:
            return self._sweep()

    def _sweep(self) -> Swept:
        self._freed = 0
        packs = self._finish()
        with self._database.reading() as session:
            items = list(islice(self._plan(session).by_time(), MOST_AT_ONCE))
        written = self._bury(items)
        packs += self._finish() if written else 0
        with self._database.reading() as session:
            room = self._plan(session).for_room(self._packs.free_bytes())
            items = list(islice(room, MOST_AT_ONCE))
        early = self._bury(items)
        packs += self._finish() if early else 0
        return Swept(
            deletions=written + early,
            packs=packs,
            freed=self._freed,
            unfinished=len(self._pending()),
        )

    def _plan(self, session: Session) -> RetentionPlan:
        return RetentionPlan(session, self._packs, self._policy, self._clock())

    # ------------------------------------------------------------ the rows

    def _bury(self, items: list[Planned]) -> int:
        """Write down that these go; what came into use since is passed over. Return how many."""
        return sum(
            self._guarded(f"{item.kind.value} {item.key}", partial(self._bury_one, item))
            for item in items
        )

    def _bury_one(self, item: Planned) -> bool:
        now = self._clock()
        with self._database.transaction() as session:
            return bury(session, self._packs, item, self._policy, now) > 0

    # ------------------------------------------------------------ the bytes

    def _finish(self) -> int:
        """Delete the bytes of all that rows say is gone; return how many packs went as a whole."""
        packs = 0
        for name in self._going():
            packs += self._guarded(name, partial(self._remove, name))
        for deletion_id in self._pending():
            self._guarded(str(deletion_id), partial(self._finish_one, deletion_id))
        return packs

    def _guarded(self, what: str, act: Callable[[], bool]) -> bool:
        """Do one thing; a disk or database that fails is told, and the next thing is tried."""
        if self._stopping.is_set():
            return False
        try:
            return act()
        except (StorageError, OSError) as error:
            self._tell("retention.failed", {"what": what, "error": str(error)})
            return False

    def _going(self) -> list[str]:
        """Return packs that go as a whole: those begun with, and those nobody wants bytes of."""
        here = self._packs.names_of_all()
        with self._database.reading() as session:
            begun = session.scalars(select(Pack.name).where(Pack.removed_at.is_not(None))).all()
            unwanted = [
                name
                for name, through in packs_without_rows(session)
                if here.get(name) == through and name not in self._left
            ]
        return [*begun, *unwanted]

    def _remove(self, name: str) -> bool:
        """Remove a whole pack: the row says so first and goes last."""
        freed = remove_pack(self._packs, name, lambda: self._mark_removed(name))
        if freed is None:
            return False
        self._forget(name)
        self._freed += freed
        return True

    def _mark_removed(self, name: str) -> bool:
        """Write down that a pack goes, if no record in it is wanted or not known."""
        now = self._clock()
        with self._database.transaction() as session:
            row = session.get(Pack, name)
            if row is None:
                return False
            if row.removed_at is not None:
                return True
            path = self._packs.path_of(name)
            size = path.stat().st_size if path.exists() else 0
            if size != row.indexed_through:
                return False  # it is written to, or has no rows yet for all it holds
            looked = look_through(session, self._packs, name, size)
            if not _may_be_removed(looked, size):
                self._left.add(name)
                return False
            if looked.spare:
                session.add(spare_deletion(looked.spare, DeletionRule.PACK, now))
            row.removed_at = now
            return True

    def _forget(self, name: str) -> None:
        with self._database.transaction() as session:
            row = session.get(Pack, name)
            if row is not None:
                session.delete(row)

    def _pending(self) -> list[int]:
        query = select(Deletion.id).where(Deletion.finished_at.is_(None)).order_by(Deletion.id)
        with self._database.reading() as session:
            return list(session.scalars(query))

    def _finish_one(self, deletion_id: int) -> bool:
        with self._database.reading() as session:
            row = session.get_one(Deletion, deletion_id)
            if row.kind == DeletionKind.RESULTS.value:
                digests = _digests(session, row)
                places: dict[str, list[Location]] = {}
            else:
                digests, places = [], _places(session, row)
        for digest in digests:
            self._freed += self._objects.delete(digest)
        gone = [self._erase(name, locations) for name, locations in places.items()]
        if not all(gone):
            return False
        with self._database.transaction() as session:
            session.execute(
                update(Deletion)
                .where(Deletion.id == deletion_id, Deletion.finished_at.is_(None))
                .values(finished_at=self._clock())
            )
        return True

    def _erase(self, name: str, locations: list[Location]) -> bool:
        """Erase records; False: they are elsewhere, or wait until their whole pack goes."""
        if not self._packs.path_of(name).exists():
            with self._database.reading() as session:
                return session.get(Pack, name) is None
        if not self._holes:
            return False
        erased = erase_records(self._packs, name, locations)
        self._freed += erased.freed
        if not erased.whole:
            self._holes = False
            self._tell("retention.no_holes", {"pack": name})
        return erased.whole


def _may_be_removed(looked: Looked, size: int) -> bool:
    """Say whether nothing in a pack is wanted, or may be the only copy.

    Where nothing went, there are only duplicates: they have a rule of their own.
    """
    known = looked.end == size and not looked.wanted and not looked.unknown
    return known and looked.gone > 0


def _digests(session: Session, row: Deletion) -> list[str]:
    """Return the objects of a deletion that no other result has."""
    other = aliased(Result)
    kept = exists().where(other.digest == Result.digest, other.deletion_id.is_(None))
    query = (
        select(Result.digest)
        .join(Job, Result.job_id == Job.id)
        .where(
            Job.study_id == row.study_id,
            Result.deletion_id == row.id,
            ~kept.correlate(Result),
        )
    )
    return list(session.scalars(query))


def _places(session: Session, row: Deletion) -> dict[str, list[Location]]:
    """Return where the bytes of a deletion lie, by pack."""
    found: dict[str, list[Location]] = {}
    for pack, offset, length in _rows(session, row):
        location = Location(pack=pack, offset=offset, length=length)
        found.setdefault(pack, []).append(location)
    return found


def _rows(session: Session, row: Deletion) -> list[tuple[str, int, int]]:
    if row.kind == DeletionKind.DUPLICATES.value:
        return [(pack, offset, length) for pack, offset, length in row.places]
    if row.kind == DeletionKind.QUARANTINE.value:
        table: type[Quarantine | Instance] = Quarantine
        which = Quarantine.deletion_id == row.id
    else:
        table = Instance
        which = (Instance.study_id == row.study_id) & (Instance.deletion_id == row.id)
    query = select(table.pack, table.pack_offset, table.length).where(which)
    return [(pack, offset, length) for pack, offset, length in session.execute(query)]
