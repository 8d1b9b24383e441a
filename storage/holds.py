"""What people ask of retention: hold a study, release it, and see what was deleted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from sqlalchemy import Select, func, select

from storage.database import Database
from storage.events import Clock, append_event
from storage.gone import deletion_record, deletions
from storage.models import Deletion, Hold, Study
from storage.records import NotFoundError
from storage.retention_records import DeletionRecord, DeletionTotal, HoldRecord
from storage.states import DeletionKind, DeletionRule


class HoldStore:
    """Keeps holds, and reads what retention wrote; each method is one transaction."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def hold(self, study_instance_uid: str, *, by: str, reason: str) -> None:
        """Keep a study whatever the rules say; again: the new reason stands. On the timeline.

        Raises:
            NotFoundError: the study never arrived here.
        """
        now = self._clock()
        with self._database.transaction() as session:
            study_id = _locked(session.scalar(_lock(study_instance_uid)), study_instance_uid)
            row = session.get(Hold, study_id)
            if row is None:
                row = Hold(study_id=study_id)
                session.add(row)
            row.at, row.by, row.reason = now, by, reason
            append_event(session, now, "study.held", study_id=study_id, actor=by)

    def release(self, study_instance_uid: str, *, by: str) -> bool:
        """Leave a study to the rules again; False: it was not held. On the timeline.

        Raises:
            NotFoundError: the study never arrived here.
        """
        now = self._clock()
        with self._database.transaction() as session:
            study_id = _locked(session.scalar(_lock(study_instance_uid)), study_instance_uid)
            row = session.get(Hold, study_id)
            if row is None:
                return False
            session.delete(row)
            append_event(session, now, "study.released", study_id=study_id, actor=by)
            return True

    def list(self, *, study_id: int | None = None) -> Sequence[HoldRecord]:
        """Return the studies that are held, or whether one is, oldest hold first."""
        query = (
            select(Hold, Study.study_instance_uid)
            .join(Study, Hold.study_id == Study.id)
            .order_by(Hold.at, Hold.study_id)
        )
        if study_id is not None:
            query = query.where(Hold.study_id == study_id)
        with self._database.reading() as session:
            return [
                HoldRecord(study_instance_uid=uid, at=row.at, by=row.by, reason=row.reason)
                for row, uid in session.execute(query)
            ]

    def count(self) -> int:
        """Return how many studies are held."""
        with self._database.reading() as session:
            return session.scalar(select(func.count()).select_from(Hold)) or 0

    # ------------------------------------------------------------ what retention did

    def deletions(
        self, *, study_id: int | None = None, limit: int = 100
    ) -> Sequence[DeletionRecord]:
        """Return what was deleted, newest first."""
        query = deletions().order_by(Deletion.id.desc()).limit(limit)
        if study_id is not None:
            query = query.where(Deletion.study_id == study_id)
        with self._database.reading() as session:
            return [deletion_record(row) for row in session.execute(query)]

    def named(self, ids: Iterable[int | None]) -> Sequence[DeletionRecord]:
        """Return these deletions, oldest first."""
        wanted = sorted({item for item in ids if item is not None})
        query = deletions().where(Deletion.id.in_(wanted)).order_by(Deletion.id)
        with self._database.reading() as session:
            return [deletion_record(row) for row in session.execute(query)]

    def totals(self) -> Sequence[DeletionTotal]:
        """Return how much each rule has deleted."""
        query = (
            select(Deletion.kind, Deletion.rule, func.sum(Deletion.count), func.sum(Deletion.size))
            .group_by(Deletion.kind, Deletion.rule)
            .order_by(Deletion.kind, Deletion.rule)
        )
        with self._database.reading() as session:
            return [
                DeletionTotal(
                    kind=DeletionKind(kind),
                    rule=DeletionRule(rule),
                    count=int(count),
                    size=int(size),
                )
                for kind, rule, count, size in session.execute(query)
            ]

    def unfinished(self) -> int:
        """Return how many deletions have bytes left."""
        query = select(func.count()).where(Deletion.finished_at.is_(None))
        with self._database.reading() as session:
            return session.scalar(query) or 0

    def oldest_kept(self) -> datetime | None:
        """Return when the study received last that waits longest to be deleted."""
        query = select(func.min(Study.last_received_at)).where(Study.emptied_at.is_(None))
        with self._database.reading() as session:
            return session.scalar(query)


def _lock(study_instance_uid: str) -> Select[int]:
    return (
        select(Study.id)
        .where(Study.study_instance_uid == study_instance_uid)
        .with_for_update(key_share=True)
    )


def _locked(study_id: int | None, study_instance_uid: str) -> int:
    if study_id is None:
        raise NotFoundError(f"there is no study {study_instance_uid}")
    return study_id
