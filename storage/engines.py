"""Engine packages as this node knows them, and whether they may take jobs."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select

from storage.database import Database
from storage.events import Clock, append_event
from storage.models import EnginePackageRow
from storage.records import EngineRecord, NotFoundError
from storage.states import EngineState


class EngineStore:
    """Keeps one row for each engine."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def register(self, record: EngineRecord) -> None:
        """Write an engine down, or bring its row up to date."""
        with self._database.transaction() as session:
            row = session.get(EnginePackageRow, record.name)
            if row is None or row.digest != record.digest:
                details = {
                    "engine": record.name,
                    "version": record.version,
                    "digest": record.digest,
                }
                append_event(session, self._clock(), "engine.registered", details=details)
            session.merge(
                EnginePackageRow(
                    name=record.name,
                    version=record.version,
                    digest=record.digest,
                    task=record.task,
                    runtime=record.runtime,
                    intended_use=record.intended_use,
                    state=record.state.value,
                    reason=record.reason,
                    golden=dict(record.golden),
                )
            )

    def set_state(self, name: str, state: EngineState, reason: str = "") -> None:
        """Say whether an engine may take jobs, and if not why.

        Raises:
            NotFoundError: the engine was never registered.
        """
        with self._database.transaction() as session:
            row = session.get(EnginePackageRow, name)
            if row is None:
                raise NotFoundError(f"there is no engine {name}")
            row.state, row.reason = state.value, reason
            details = {"engine": name, "digest": row.digest, "reason": reason}
            append_event(session, self._clock(), f"engine.{state.value}", details=details)

    def get(self, name: str) -> EngineRecord:
        """Return one engine.

        Raises:
            NotFoundError: the engine was never registered.
        """
        with self._database.reading() as session:
            row = session.get(EnginePackageRow, name)
            if row is None:
                raise NotFoundError(f"there is no engine {name}")
            return _record(row)

    def list(self) -> Sequence[EngineRecord]:
        """Return every engine, by name."""
        with self._database.reading() as session:
            rows = session.scalars(select(EnginePackageRow).order_by(EnginePackageRow.name))
            return [_record(row) for row in rows]


def _record(row: EnginePackageRow) -> EngineRecord:
    return EngineRecord(
        name=row.name,
        version=row.version,
        digest=row.digest,
        task=row.task,
        runtime=row.runtime,
        intended_use=row.intended_use,
        state=EngineState(row.state),
        reason=row.reason,
        golden=row.golden,
    )
