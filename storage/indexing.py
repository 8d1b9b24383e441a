"""The one writer of the index: rows follow what the packs hold, many in one transaction.

What it is handed is durable already, with a note in its pack. If the process ends before the rows
are written, or the database is away for longer than the process lives, `rebuild` writes them at the
next start: a pack's row says up to where it has them.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeAlias

from sqlalchemy import select
from sqlalchemy.orm import Session

from storage.database import Database
from storage.duplicates import twins_of
from storage.events import Clock
from storage.models import Pack
from storage.notes import Entry
from storage.progress import (
    end_associations,
    find_associations,
    insert_association,
    note_progress,
)
from storage.receiving import receive
from storage.records import (
    Arrival,
    Brought,
    ConstraintError,
    DataRefusedError,
    JsonValue,
    Location,
    NewInstance,
    Recorded,
    StorageError,
)
from storage.setting_aside import keep_not_indexed, keep_note, set_aside
from storage.states import AssociationState, ReceiptOutcome

MOST_IN_ONE: Final = 1000
LINGER_SECONDS: Final = 0.25
SHARE_OF_URGENT: Final = 10
"""One in so many of what may wait is kept for urgent sources."""
RACES: Final = 5
"""How often a batch is tried again when another node wrote the same row meanwhile."""
FIRST_WAIT_SECONDS: Final = 0.1
LONGEST_WAIT_SECONDS: Final = 2.0

Tell: TypeAlias = Callable[[str, Mapping[str, JsonValue]], None]
"""(what happened, details without patient data): the caller's log."""
SameBytes: TypeAlias = Callable[[Location, Location, int], bool]
"""(where one instance lies, where another, size of their data sets) -> whether these are equal."""
NO_DUPLICATE: Final = (
    "its digest is that of an instance with the same UID, and its bytes are not: it was made so"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """An association was accepted."""

    brought: Brought
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """An association ended; everything it brought was handed over before."""

    token: str
    state: AssociationState
    at: datetime


Item: TypeAlias = Opened | Entry | Ended


class Indexer:
    """Takes what happened at the doors, and writes it to the index in that order.

    `most_waiting` bounds what may be acknowledged without rows yet; beyond it `full` says so.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        owner: str = "",
        most_waiting: int = 20_000,
        same_bytes: SameBytes = lambda _one, _other, _size: True,
        tell: Tell = lambda _what, _details: None,
    ) -> None:
        self._database = database
        self._clock = clock
        self._owner = owner
        self._most_waiting = most_waiting
        self._same_bytes = same_bytes
        self._tell = tell
        self._items: deque[Item] = deque()
        self._changed = threading.Condition()
        self._taken = 0  # items that are being written just now
        self._hurry = 0  # callers of drain
        self._stopping = False
        self._idle = False  # the writer waits for something to write
        self._ids: dict[str, int] = {}  # of open associations
        self._thread = threading.Thread(target=self._run, name="indexer", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def stop(self, seconds: float = 10.0) -> None:
        """Write what waits, within some seconds; what is left is written at the next start."""
        if self._thread.is_alive():
            self.drain(seconds)
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(seconds)

    def put(self, item: Item) -> None:
        """Take one thing that happened."""
        self._items.append(item)
        if self._idle:  # set before the writer looks whether there is something
            with self._changed:
                self._changed.notify_all()

    @property
    def waiting(self) -> int:
        """How many things have no rows yet."""
        return len(self._items) + self._taken

    @property
    def full(self) -> bool:
        """Say whether no more should be acknowledged until some rows are written."""
        return self.waiting >= self._most_waiting

    @property
    def nearly_full(self) -> bool:
        """Say whether what is left of the room should be for what is urgent."""
        return self.waiting >= self._most_waiting - self._most_waiting // SHARE_OF_URGENT

    def drain(self, seconds: float) -> bool:
        """Wait until all that was put before has its rows; False if that took too long."""
        until = time.monotonic() + seconds
        with self._changed:
            self._hurry += 1
            self._changed.notify_all()
            try:
                while self.waiting:
                    left = until - time.monotonic()
                    if left <= 0 or self._stopping:
                        return False
                    self._changed.wait(left)
            finally:
                self._hurry -= 1
        return True

    def rebuild(self, entries: Iterable[Entry]) -> int:
        """Write rows from the notes of packs, at a start, before anything else; return how many.

        Raises:
            StorageError: the database cannot take them; nothing is lost, the packs stay.
        """
        count = 0
        lot: list[Item] = []
        for entry in entries:
            lot.append(entry)
            count += 1
            if len(lot) == MOST_IN_ONE:
                self._write(lot)
                lot = []
        if lot:
            self._write(lot)
        return count

    def indexed_through(self, *, own: bool = False) -> dict[str, int]:
        """Return up to where each pack has rows; with `own` only those of this owner."""
        query = select(Pack.name, Pack.indexed_through)
        with self._database.reading() as session:
            rows = session.execute(query.where(Pack.owner == self._owner) if own else query)
            return {name: end for name, end in rows}  # noqa: C416 - rows are not tuples to mypy

    def going(self) -> frozenset[str]:
        """Return the packs that retention removes as a whole: they may be gone already."""
        query = select(Pack.name).where(Pack.removed_at.is_not(None))
        with self._database.reading() as session:
            return frozenset(session.scalars(query))

    # ------------------------------------------------------------ the thread

    def _run(self) -> None:
        while True:
            lot = self._next()
            if not lot:
                return
            if not self._write_until_done(lot):
                return  # the packs have it
            with self._changed:
                self._taken = 0
                self._changed.notify_all()

    def _next(self) -> list[Item]:
        """Wait for work, and a moment more for company; empty: the end."""
        with self._changed:
            self._idle = True
            while not self._items and not self._stopping:
                self._changed.wait()
            self._idle = False
            until = time.monotonic() + LINGER_SECONDS
            while len(self._items) < MOST_IN_ONE and not (self._hurry or self._stopping):
                left = until - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            lot = [self._items.popleft() for _ in range(min(len(self._items), MOST_IN_ONE))]
            self._taken = len(lot)
            return lot

    def _write_until_done(self, lot: Sequence[Item]) -> bool:
        wait = FIRST_WAIT_SECONDS
        while True:
            try:
                self._write(lot)
            except StorageError as error:
                if wait == FIRST_WAIT_SECONDS:
                    self._tell("index.waits", {"error": str(error), "instances": len(lot)})
                with self._changed:
                    if self._stopping:
                        return False
                    self._changed.wait(wait)
                wait = min(wait * 2, LONGEST_WAIT_SECONDS)
            else:
                if wait > FIRST_WAIT_SECONDS:
                    self._tell("index.goes_on", {"instances": len(lot)})
                return True

    # ------------------------------------------------------------ writing

    def _write(self, lot: Sequence[Item]) -> None:
        """Write a lot whole; where the database refuses one thing in it, all but that."""
        for _ in range(RACES):
            try:
                self._write_once(lot)
            except ConstraintError:
                continue  # another node wrote the same row: look again
            except DataRefusedError:
                break
            else:
                return
        if len(lot) == 1:
            self._write_alone(lot[0])
            return
        for item in lot:
            self._write([item])

    def _write_alone(self, item: Item) -> None:
        try:
            self._write_once([item])
        except (ConstraintError, DataRefusedError) as error:
            if not isinstance(item, Entry) or not isinstance(item.what, NewInstance):
                self._tell("index.refused", {"error": str(error), "what": type(item).__name__})
                return
            self._tell("instance.not_indexed", {"error": str(error), "digest": item.what.digest})
            with self._database.transaction() as session:
                ids = self._associations(session, [item])
                arrival = Arrival(
                    new=item.what, at=item.at, association_id=ids.get(item.brought.token)
                )
                set_aside(session, arrival, str(error))
                self._note_progress(session, [item])

    def _write_once(self, lot: Sequence[Item]) -> None:
        entries = [item for item in lot if isinstance(item, Entry)]
        with self._database.transaction() as session:
            ids = self._associations(session, lot)
            arrivals = []
            for entry in entries:
                association_id = ids.get(entry.brought.token)
                if isinstance(entry.what, NewInstance):
                    arrivals.append(
                        Arrival(new=entry.what, at=entry.at, association_id=association_id)
                    )
                else:
                    keep_note(session, entry.what, entry.at, association_id)
            recorded = receive(session, arrivals) if arrivals else []
            self._note_progress(session, entries)
            self._end(session, [item for item in lot if isinstance(item, Ended)], ids)
        self._ids = ids
        self._tell_unusual(recorded)
        duplicates = [
            arrival
            for arrival, record in zip(arrivals, recorded, strict=True)
            if record.outcome is ReceiptOutcome.DUPLICATE
        ]
        if duplicates:
            self._compare(duplicates)

    def _compare(self, duplicates: Sequence[Arrival]) -> None:
        """Hold duplicates against the bytes that they are taken for: a digest can be made up."""
        try:
            with self._database.reading() as session:
                pairs = twins_of(session, duplicates)
            for arrival, twin in pairs:
                new = arrival.new
                if self._same_bytes(new.location, twin, new.size):
                    continue
                self._tell("instance.no_duplicate", {"digest": new.digest})
                with self._database.transaction() as session:
                    keep_not_indexed(session, arrival, NO_DUPLICATE)
        except StorageError as error:  # the rows are written: they must not be written again
            self._tell("duplicates.not_compared", {"error": str(error)})

    def _tell_unusual(self, recorded: Sequence[Recorded]) -> None:
        counts = Counter(record.outcome.value for record in recorded)
        counts.pop(ReceiptOutcome.STORED.value, None)
        if counts:
            self._tell("instances.not_new", dict(counts))

    def _associations(self, session: Session, lot: Sequence[Item]) -> dict[str, int]:
        """Return the ids of associations by token; those of a crashed process are made, ended."""
        ids = dict(self._ids)
        for item in lot:
            if isinstance(item, Opened):
                ids[item.brought.token] = insert_association(
                    session, self._owner, item.brought, item.at, ended=None
                )
        unknown = {
            item.brought.token: item
            for item in lot
            if isinstance(item, Entry) and item.brought.token and item.brought.token not in ids
        }
        if unknown:
            ids |= find_associations(session, sorted(unknown))
        for token, item in unknown.items():
            if token not in ids:
                ids[token] = insert_association(
                    session, self._owner, item.brought, item.at, ended=self._clock()
                )
        return ids

    def _end(self, session: Session, ended: Sequence[Ended], ids: dict[str, int]) -> None:
        """End associations, those that have a row."""
        known = [(ids.pop(item.token, None), item) for item in ended]
        end_associations(
            session,
            [(number, item.state, item.at) for number, item in known if number is not None],
        )

    def _note_progress(self, session: Session, entries: Sequence[Entry]) -> None:
        ends: dict[str, int] = {}
        for entry in entries:
            name = entry.what.location.pack
            ends[name] = max(ends.get(name, 0), entry.end)
        note_progress(session, self._owner, ends, self._clock())
