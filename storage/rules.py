"""Rule revisions: immutable, numbered, the newest in force."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from typing import Final

from sqlalchemy import select

from storage.database import Database
from storage.events import Clock, append_event
from storage.models import RuleSetRevision
from storage.records import ConstraintError, JsonValue, NotFoundError, RuleRevision

RACES: Final = 5
"""How often a save is tried again when somebody else saved meanwhile."""


class RuleStore:
    """Keeps every revision of the rules that was ever in force (R20)."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def save(self, text: str, *, by: str) -> RuleRevision:
        """Put rules in force as a new revision; the same text again stays the same revision."""
        for _ in range(RACES):
            with suppress(ConstraintError):  # somebody else took the number: look again
                return self._save(text, by)
        return self._save(text, by)

    def _save(self, text: str, by: str) -> RuleRevision:
        digest = hashlib.sha256(text.encode()).hexdigest()
        with self._database.transaction() as session:
            newest = session.scalars(_NEWEST).first()
            if newest is not None and newest.digest == digest:
                return _record(newest)
            row = RuleSetRevision(
                revision=1 if newest is None else newest.revision + 1,
                text=text,
                digest=digest,
                created_at=self._clock(),
                created_by=by,
            )
            session.add(row)
            details: dict[str, JsonValue] = {"revision": row.revision, "digest": digest}
            append_event(session, row.created_at, "rules.saved", actor=by, details=details)
            return _record(row)

    def current(self) -> RuleRevision | None:
        """Return the revision in force, or None if rules were never saved."""
        with self._database.reading() as session:
            row = session.scalars(_NEWEST).first()
            return None if row is None else _record(row)

    def get(self, revision: int) -> RuleRevision:
        """Return one revision.

        Raises:
            NotFoundError: there is no such revision.
        """
        with self._database.reading() as session:
            row = session.get(RuleSetRevision, revision)
            if row is None:
                raise NotFoundError(f"there is no rule revision {revision}")
            return _record(row)


_NEWEST = select(RuleSetRevision).order_by(RuleSetRevision.revision.desc()).limit(1)


def _record(row: RuleSetRevision) -> RuleRevision:
    return RuleRevision(
        revision=row.revision,
        text=row.text,
        digest=row.digest,
        created_at=row.created_at,
        created_by=row.created_by,
    )
