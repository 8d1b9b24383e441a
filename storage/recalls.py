"""Recalls: results that were wrong, taken back wherever they went. No row is ever removed.

A recall marks results and ends what of them still waits; for each study and destination where some
arrived, or may be arriving, a withdrawal waits until its note is made (`storage.withdrawals`).
Locks are taken as everywhere: studies in order, then jobs, then deliveries, in order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final, NamedTuple

from sqlalchemy import ColumnElement, Select, func, or_, select, update
from sqlalchemy.orm import Session

from storage.arrivals import reached
from storage.database import Database
from storage.events import Clock
from storage.lots import chunks_of
from storage.models import Delivery, Job, Recall, Result, Study, Withdrawal
from storage.outbox import ask_for_note
from storage.recall_records import AffectedStudy, Recalled, RecallRecord, RecallScope
from storage.recalled_jobs import (
    TakenBack,
    discard_reviews,
    of_version,
    runs_under_way,
    tell_recalled,
    waiting_jobs,
    write_down,
)
from storage.records import NotFoundError
from storage.revisions import UNSENT, change_deliveries, lock_in_order
from storage.states import DeliveryState

_STANDINGS: Final = select(Delivery.id, Delivery.destination, Delivery.state.in_(UNSENT), reached())


class RecallStore:
    """Recalls results; each method is one transaction."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def affected(self, scope: RecallScope) -> Recalled:
        """Return what a recall of this scope would take back; nothing is changed.

        Raises:
            NotFoundError: no job was ever done by this engine, or the study never arrived.
        """
        with self._database.reading() as session:
            return _affected(session, scope, self._clock())

    def recall(self, scope: RecallScope, *, code: str, reason: str, by: str) -> Recalled:
        """Take back what a scope names and was not taken back before.

        What jobs of the engine make that are under way is taken back when they end.

        Args:
            scope: which results.
            code: title of the notes (DCM, of CID 7010).
            reason: in words; it stands on timelines and in the notes.
            by: who says so.

        Raises:
            NotFoundError: no job was ever done by this engine, or the study never arrived.
        """
        now = self._clock()
        with self._database.transaction() as session:
            _lock_studies(session, scope, now)
            runs = runs_under_way(session, scope, now, lock=True)
            found = replace(_affected(session, scope, now), running=len(runs))
            if not found.studies and not runs:
                return found
            row = Recall(
                at=now,
                by=by,
                reason=reason,
                code=code,
                engine=scope.engine,
                version=scope.version,
                study_instance_uid=scope.study_instance_uid,
                since=scope.since,
                until=scope.until,
            )
            session.add(row)
            session.flush()
            write_down(session, row, runs)
            results = session.execute(_results(scope)).all()
            for study_id in sorted({study_id for _, study_id in results}):
                _take_back(session, row, study_id, [one for one, of in results if of == study_id])
            discard_reviews(session, row, now)
            return replace(found, recall_id=row.id)

    def list(self, *, study_id: int | None = None, limit: int = 100) -> Sequence[RecallRecord]:
        """Return recalls, newest first."""
        query = select(Recall).order_by(Recall.id.desc()).limit(limit)
        if study_id is not None:
            of_study = (
                select(Result.recall_id)
                .join(Job, Result.job_id == Job.id)
                .where(Job.study_id == study_id, Result.recall_id.is_not(None))
            )
            query = query.where(Recall.id.in_(of_study))
        with self._database.reading() as session:
            return [_record(session, row) for row in session.scalars(query)]


def _results(scope: RecallScope) -> Select[int, int]:
    """Return the query for results of a scope that nobody recalled yet: result, study."""
    return (
        select(Result.id, Job.study_id)
        .join(Job, Result.job_id == Job.id)
        .join(Study, Job.study_id == Study.id)
        .where(*_in_scope(scope), *of_version(scope.version))
        .order_by(Result.id)
    )


def _in_scope(scope: RecallScope) -> list[ColumnElement[bool]]:
    found = [
        Job.engine == scope.engine,
        Result.recall_id.is_(None),
        Result.withdrawal_id.is_(None),
    ]
    if scope.study_instance_uid:
        found.append(Study.study_instance_uid == scope.study_instance_uid)
    if scope.since is not None:
        found.append(Result.created_at >= scope.since)
    if scope.until is not None:
        found.append(Result.created_at < scope.until)
    return found


def _lock_studies(session: Session, scope: RecallScope, now: datetime) -> None:
    """Lock the studies of a scope in order: none is opened again, nothing of them ends meanwhile.

    The statement's own order counts: a set of ids would be locked in any.
    """
    made = {study_id for _, study_id in session.execute(_results(scope))}
    ids = sorted(made | {run.study_id for run in runs_under_way(session, scope, now)})
    for chunk in chunks_of(ids):
        query = select(Study.id).where(Study.id.in_(chunk)).order_by(Study.id)
        session.scalars(query.with_for_update(key_share=True)).all()


def _affected(session: Session, scope: RecallScope, now: datetime) -> Recalled:
    _refuse_unknown(session, scope)
    results = session.execute(_results(scope)).all()
    by_study: dict[int, list[int]] = {}
    for result_id, study_id in results:
        by_study.setdefault(study_id, []).append(result_id)
    studies = [_affected_study(session, *item) for item in sorted(by_study.items())]
    return Recalled(
        recall_id=None,
        studies=tuple(studies),
        unversioned=_unversioned(session, scope),
        running=len(runs_under_way(session, scope, now)),
        queued=waiting_jobs(session, scope),
    )


def _unversioned(session: Session, scope: RecallScope) -> int:
    if not scope.version:
        return 0
    query = (
        select(func.count(Result.id))
        .join(Job, Result.job_id == Job.id)
        .join(Study, Job.study_id == Study.id)
        .where(*_in_scope(scope), Job.engine_version == "")
    )
    return session.scalar(query) or 0


def _refuse_unknown(session: Session, scope: RecallScope) -> None:
    if session.scalar(select(Job.id).where(Job.engine == scope.engine).limit(1)) is None:
        raise NotFoundError(f"no job was ever done by an engine {scope.engine}")
    uid = scope.study_instance_uid
    if uid and session.scalar(select(Study.id).where(Study.study_instance_uid == uid)) is None:
        raise NotFoundError(f"there is no study {uid}")


def _affected_study(session: Session, study_id: int, results: Sequence[int]) -> AffectedStudy:
    rows = [
        _Standing(*row)
        for chunk in chunks_of(results)
        for row in session.execute(_STANDINGS.where(Delivery.result_id.in_(chunk)))
    ]
    return AffectedStudy(
        study_instance_uid=session.get_one(Study, study_id).study_instance_uid,
        results=len(results),
        destinations=tuple(sorted({row.destination for row in rows if row.reached})),
        waiting=sum(row.waits for row in rows),
    )


def _take_back(session: Session, recall: Recall, study_id: int, results: Sequence[int]) -> None:
    """Mark results of one study, end what waits of them, and ask for the notes."""
    withdrawn: list[int] = []
    there: dict[str, list[int]] = {}
    for chunk in chunks_of(results):
        session.execute(update(Result).where(Result.id.in_(chunk)).values(recall_id=recall.id))
        for item in _locked(session, chunk):
            if item.waits:
                withdrawn.append(item.id)
            if item.reached:
                there.setdefault(item.destination, []).append(item.id)
    ended = DeliveryState.WITHDRAWN.value
    change_deliveries(session, withdrawn, state=ended, finished_at=recall.at, lease_until=None)
    for destination, deliveries in sorted(there.items()):
        ask_for_note(session, study_id, destination, deliveries, recall.at, recall_id=recall.id)
    taken = TakenBack(
        study_id=study_id,
        results=len(results),
        withdrawn=withdrawn,
        destinations=sorted(there),
    )
    tell_recalled(session, recall, recall.at, taken)


class _Standing(NamedTuple):
    """Where a delivery stands: what was sent and waits to be sent again does both."""

    id: int
    destination: str
    waits: bool
    reached: bool


def _locked(session: Session, results: Sequence[int]) -> Iterator[_Standing]:
    """Lock, in one go, the deliveries of results on which a recall has anything to do."""
    concerned = or_(Delivery.state.in_(UNSENT), reached())
    ids = lock_in_order(session, Delivery.result_id.in_(results), concerned)
    for chunk in chunks_of(ids):
        for row in session.execute(_STANDINGS.where(Delivery.id.in_(chunk)).order_by(Delivery.id)):
            yield _Standing(*row)


def _record(session: Session, row: Recall) -> RecallRecord:
    results, studies = session.execute(
        select(func.count(Result.id), func.count(Job.study_id.distinct()))
        .join(Job, Result.job_id == Job.id)
        .where(Result.recall_id == row.id)
    ).one()
    waiting = select(func.count()).where(
        Withdrawal.recall_id == row.id, Withdrawal.made_at.is_(None)
    )
    return RecallRecord(
        id=row.id,
        at=row.at,
        by=row.by,
        reason=row.reason,
        code=row.code,
        scope=RecallScope(
            engine=row.engine,
            version=row.version,
            study_instance_uid=row.study_instance_uid,
            since=row.since,
            until=row.until,
        ),
        results=results,
        studies=studies,
        waiting=session.scalar(waiting) or 0,
    )
