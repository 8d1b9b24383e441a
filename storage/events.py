"""The timeline: append-only, written in the transaction of what it tells of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TypeAlias

from sqlalchemy import select
from sqlalchemy.orm import Session

from storage.database import Database
from storage.models import Event
from storage.records import EventRecord, JsonValue

Clock: TypeAlias = Callable[[], datetime]


def append_event(  # noqa: PLR0913 - one column each
    session: Session,
    at: datetime,
    action: str,
    *,
    study_id: int | None = None,
    job_id: int | None = None,
    delivery_id: int | None = None,
    actor: str = "node",
    details: Mapping[str, JsonValue] | None = None,
) -> None:
    """Add one line within the caller's transaction."""
    session.add(
        Event(
            at=at,
            study_id=study_id,
            job_id=job_id,
            delivery_id=delivery_id,
            action=action,
            actor=actor,
            details=dict(details or {}),
        )
    )


class EventStore:
    """Reads timelines, and takes lines that belong to no other store's transaction."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def append(
        self,
        action: str,
        *,
        study_id: int | None = None,
        job_id: int | None = None,
        delivery_id: int | None = None,
        actor: str = "node",
        details: Mapping[str, JsonValue],
    ) -> None:
        """Add one line."""
        with self._database.transaction() as session:
            append_event(
                session,
                self._clock(),
                action,
                study_id=study_id,
                job_id=job_id,
                delivery_id=delivery_id,
                actor=actor,
                details=details,
            )

    def timeline(self, study_id: int) -> list[EventRecord]:
        """Return everything that happened to one study, oldest first."""
        query = select(Event).where(Event.study_id == study_id).order_by(Event.id)
        with self._database.reading() as session:
            return [_record(row) for row in session.scalars(query)]

    def recent(self, limit: int = 100) -> list[EventRecord]:
        """Return the newest lines of all studies, newest first."""
        query = select(Event).order_by(Event.id.desc()).limit(limit)
        with self._database.reading() as session:
            return [_record(row) for row in session.scalars(query)]


def _record(row: Event) -> EventRecord:
    return EventRecord(
        id=row.id,
        at=row.at,
        study_id=row.study_id,
        job_id=row.job_id,
        delivery_id=row.delivery_id,
        action=row.action,
        actor=row.actor,
        details=row.details,
    )
