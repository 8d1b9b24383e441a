"""Associations: who connected, when, and how it ended."""

from __future__ import annotations

import uuid

from sqlalchemy import select, update

from storage.database import Database
from storage.events import Clock
from storage.models import Association
from storage.records import AssociationRecord
from storage.states import ASSOCIATION_TRANSITIONS, AssociationState, check_transition


class AssociationStore:
    """Keeps associations, so that an open one holds its studies open (R2).

    `owner` is the process of a node that accepts them, by its name: where several share a database,
    each ends only its own after a crash.
    """

    def __init__(self, database: Database, clock: Clock, *, owner: str = "") -> None:
        self._database = database
        self._clock = clock
        self._owner = owner

    def opened(self, *, listener: str, calling_ae: str, called_ae: str, peer_address: str) -> int:
        """Record an accepted association; return its id."""
        with self._database.transaction() as session:
            row = Association(
                token=uuid.uuid4().hex,
                owner=self._owner,
                listener=listener,
                calling_ae=calling_ae,
                called_ae=called_ae,
                peer_address=peer_address,
                state=AssociationState.OPEN.value,
                opened_at=self._clock(),
                closed_at=None,
                received=0,
            )
            session.add(row)
            session.flush()
            return row.id

    def closed(self, association_id: int, state: AssociationState) -> None:
        """Record how an association ended; a second end is not an error and changes nothing."""
        check_transition(ASSOCIATION_TRANSITIONS, AssociationState.OPEN, state)
        with self._database.transaction() as session:
            session.execute(
                update(Association)
                .where(
                    Association.id == association_id,
                    Association.state == AssociationState.OPEN.value,
                )
                .values(state=state.value, closed_at=self._clock())
            )

    def abandon_open(self) -> int:
        """End the associations that this owner left open; return how many."""
        with self._database.transaction() as session:
            ids = session.scalars(
                update(Association)
                .where(
                    Association.state == AssociationState.OPEN.value,
                    Association.owner == self._owner,
                )
                .values(state=AssociationState.ABORTED.value, closed_at=self._clock())
                .returning(Association.id)
            ).all()
        return len(ids)

    def recent(self, limit: int = 50) -> list[AssociationRecord]:
        """Return the newest associations, newest first, with what each brought."""
        query = select(Association).order_by(Association.id.desc()).limit(limit)
        with self._database.reading() as session:
            return [_record(row) for row in session.scalars(query)]


def _record(row: Association) -> AssociationRecord:
    return AssociationRecord(
        id=row.id,
        listener=row.listener,
        calling_ae=row.calling_ae,
        called_ae=row.called_ae,
        peer_address=row.peer_address,
        state=AssociationState(row.state),
        opened_at=row.opened_at,
        closed_at=row.closed_at,
        received=row.received,
    )
