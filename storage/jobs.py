"""Jobs: one engine on one study revision. Leased in one statement, fenced by a token."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, Row, Select, func, select, update
from sqlalchemy.orm import Session

from storage.database import Database
from storage.events import Clock, append_event
from storage.models import Delivery, Instance, Job, Result, Series, Study
from storage.queries import instance_record, study_records
from storage.records import (
    InstanceRecord,
    JobOutcome,
    JobRecord,
    JsonValue,
    LeasedJob,
    LeaseLostError,
    NewResult,
    NotFoundError,
    Predecessor,
    ResultRecord,
)
from storage.states import (
    JOB_TRANSITIONS,
    DeliveryState,
    ErrorClass,
    InstanceState,
    JobState,
    check_transition,
)

ARRIVED: Final = (
    DeliveryState.SENT.value,
    DeliveryState.WARNED.value,
    DeliveryState.CONFIRMED.value,
)
UNSENT: Final = (DeliveryState.QUEUED.value, DeliveryState.PARKED.value)
OPEN: Final = (JobState.QUEUED.value, JobState.RUNNING.value)


def series_key(series_instance_uids: Sequence[str]) -> str:
    """Return what stands for a set of series in a unique constraint."""
    return hashlib.sha256("\n".join(sorted(series_instance_uids)).encode()).hexdigest()


def supersede_open_work(session: Session, at: datetime, study: Study) -> None:
    """End what older revisions of a study still have open, within the caller's transaction."""
    jobs = session.scalars(
        update(Job)
        .where(Job.study_id == study.id, Job.revision < study.revision, Job.state.in_(OPEN))
        .values(state=JobState.SUPERSEDED.value, finished_at=at, lease_until=None)
        .returning(Job.id)
    ).all()
    for job_id in jobs:
        append_event(session, at, "job.superseded", study_id=study.id, job_id=job_id)
    older = (
        select(Result.id).join(Job).where(Job.study_id == study.id, Job.revision < study.revision)
    )
    deliveries = session.scalars(
        update(Delivery)
        .where(Delivery.result_id.in_(older), Delivery.state.in_(UNSENT))
        .values(state=DeliveryState.SUPERSEDED.value, finished_at=at, lease_until=None)
        .returning(Delivery.id)
    ).all()
    for delivery_id in deliveries:
        append_event(session, at, "delivery.superseded", study_id=study.id, delivery_id=delivery_id)


class JobStore:
    """Hands jobs out and takes their outcomes; each method is one transaction."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def lease(self, worker: str, seconds: float) -> LeasedJob | None:
        """Claim the most urgent job, or return None. The attempt is counted here, at the claim."""
        now = self._clock()
        until = now + timedelta(seconds=seconds)
        wanted = (
            select(Job.id)
            .where(Job.state == JobState.QUEUED.value, Job.not_before <= now)
            .order_by(Job.priority.desc(), Job.created_at, Job.id)
            .limit(1)
            .with_for_update(skip_locked=True)
            .scalar_subquery()
        )
        claim = (
            update(Job)
            .where(Job.id == wanted, Job.state == JobState.QUEUED.value)
            .values(
                state=JobState.RUNNING.value,
                attempts=Job.attempts + 1,
                token=Job.token + 1,
                worker=worker,
                started_at=now,
                finished_at=None,
                lease_until=until,
                error="",
                error_class=None,
            )
            .returning(Job.id)
        )
        with self._database.transaction() as session:
            job_id = session.scalar(claim)
            if job_id is None:
                return None
            job = session.get_one(Job, job_id)
            details: dict[str, JsonValue] = {"worker": worker, "attempt": job.attempts}
            append_event(
                session, now, "job.leased", study_id=job.study_id, job_id=job_id, details=details
            )
            return _leased(session, job, until)

    def renew(self, job_id: int, token: int, seconds: float) -> bool:
        """Extend a lease; False: the job is somebody else's now, or superseded."""
        until = self._clock() + timedelta(seconds=seconds)
        with self._database.transaction() as session:
            statement = update(Job).where(*_owned(job_id, token)).values(lease_until=until)
            return session.scalar(statement.returning(Job.id)) is not None

    def finish(self, job_id: int, token: int, outcome: JobOutcome) -> Sequence[int]:
        """Write a job's end, its results and their deliveries, together; return delivery ids.

        Raises:
            LeaseLostError: the job is not this owner's any more; nothing was written.
        """
        check_transition(JOB_TRANSITIONS, JobState.RUNNING, outcome.state)
        now = self._clock()
        with self._database.transaction() as session:
            self._end(
                session,
                job_id,
                token,
                state=outcome.state.value,
                summary=dict(outcome.summary),
                timings=dict(outcome.timings),
                finished_at=now,
                lease_until=None,
            )
            job = session.get_one(Job, job_id)
            _supersede_results(session, job)
            deliveries = _add_results(session, job, outcome.results, now)
            append_event(
                session,
                now,
                f"job.{outcome.state.value}",
                study_id=job.study_id,
                job_id=job_id,
                details={"results": len(outcome.results), "deliveries": len(deliveries)},
            )
            return deliveries

    def fail(
        self,
        job_id: int,
        token: int,
        *,
        error_class: ErrorClass,
        error: str,
        retry_in: float | None,
    ) -> JobState:
        """Write a failed attempt: QUEUED again, or FAILED (no retry), or DEAD (attempts spent).

        Raises:
            LeaseLostError: the job is not this owner's any more; nothing was written.
        """
        now = self._clock()
        with self._database.transaction() as session:
            job = session.get(Job, job_id)
            if job is None:
                raise NotFoundError(f"there is no job {job_id}")
            state = JobState.FAILED
            if retry_in is not None:
                spent = job.attempts >= job.max_attempts
                state = JobState.DEAD if spent else JobState.QUEUED
            self._end(
                session,
                job_id,
                token,
                state=state.value,
                error_class=error_class.value,
                error=error,
                not_before=now + timedelta(seconds=retry_in or 0.0),
                finished_at=None if state is JobState.QUEUED else now,
                lease_until=None,
            )
            action = "job.retried" if state is JobState.QUEUED else f"job.{state.value}"
            details = {"error_class": error_class.value, "attempt": job.attempts}
            append_event(
                session, now, action, study_id=job.study_id, job_id=job_id, details=details
            )
            return state

    def give_back(self, job_id: int, token: int) -> None:
        """Return a job that was interrupted on purpose; the attempt does not count.

        Raises:
            LeaseLostError: the job is not this owner's any more; nothing was written.
        """
        now = self._clock()
        with self._database.transaction() as session:
            self._end(
                session,
                job_id,
                token,
                state=JobState.QUEUED.value,
                attempts=Job.attempts - 1,
                not_before=now,
                lease_until=None,
            )
            job = session.get_one(Job, job_id)
            append_event(session, now, "job.given_back", study_id=job.study_id, job_id=job_id)

    def expire_leases(self) -> Sequence[int]:
        """Return jobs whose owner fell silent to the queue, or DEAD when attempts are spent."""
        now = self._clock()
        with self._database.transaction() as session:
            jobs = session.scalars(
                select(Job)
                .where(Job.state == JobState.RUNNING.value, Job.lease_until < now)
                .with_for_update(skip_locked=True)
            ).all()
            for job in jobs:
                self._expire(session, job, now)
            return [job.id for job in jobs]

    def retry(self, job_id: int, by: str) -> None:
        """Queue a failed or dead job again, with all its attempts (a person's act).

        Raises:
            NotFoundError, TransitionError
        """
        now = self._clock()
        with self._database.transaction() as session:
            job = session.get(Job, job_id)
            if job is None:
                raise NotFoundError(f"there is no job {job_id}")
            check_transition(JOB_TRANSITIONS, JobState(job.state), JobState.QUEUED)
            job.state, job.attempts, job.not_before = JobState.QUEUED.value, 0, now
            append_event(
                session, now, "job.retried", study_id=job.study_id, job_id=job_id, actor=by
            )

    def get(self, job_id: int) -> JobRecord:
        """Return one job.

        Raises:
            NotFoundError: there is no such job.
        """
        with self._database.reading() as session:
            row = session.execute(_jobs().where(Job.id == job_id)).first()
            if row is None:
                raise NotFoundError(f"there is no job {job_id}")
            return _job_record(row)

    def list(
        self, *, study_id: int | None = None, state: JobState | None = None, limit: int = 100
    ) -> Sequence[JobRecord]:
        """Return jobs, newest first."""
        query = _jobs().order_by(Job.id.desc()).limit(limit)
        if study_id is not None:
            query = query.where(Job.study_id == study_id)
        if state is not None:
            query = query.where(Job.state == state.value)
        with self._database.reading() as session:
            return [_job_record(row) for row in session.execute(query)]

    def results(
        self, *, study_id: int | None = None, job_id: int | None = None
    ) -> Sequence[ResultRecord]:
        """Return the result objects of a study or a job, oldest first."""
        query = (
            select(Result, Job.engine, Job.revision, Study.study_instance_uid)
            .join(Job, Result.job_id == Job.id)
            .join(Study, Job.study_id == Study.id)
            .order_by(Result.id)
        )
        if study_id is not None:
            query = query.where(Job.study_id == study_id)
        if job_id is not None:
            query = query.where(Result.job_id == job_id)
        with self._database.reading() as session:
            return [_result_record(row) for row in session.execute(query)]

    def counts(self) -> Mapping[JobState, int]:
        """Return how many jobs are in each state that has any."""
        query = select(Job.state, func.count()).group_by(Job.state)
        with self._database.reading() as session:
            return {JobState(state): count for state, count in session.execute(query)}

    @staticmethod
    def _end(session: Session, job_id: int, token: int, **values: Any) -> None:  # noqa: ANN401
        statement = update(Job).where(*_owned(job_id, token)).values(**values)
        if session.scalar(statement.returning(Job.id)) is None:
            raise LeaseLostError(f"job {job_id} belongs to another owner")

    @staticmethod
    def _expire(session: Session, job: Job, now: datetime) -> None:
        spent = job.attempts >= job.max_attempts
        state = JobState.DEAD if spent else JobState.QUEUED
        check_transition(JOB_TRANSITIONS, JobState(job.state), state)
        job.state = state.value
        job.lease_until = None
        job.not_before = now
        job.finished_at = now if spent else None
        job.error_class = ErrorClass.CRASH.value
        job.error = "the worker fell silent: its lease ended"
        action = "job.dead" if spent else "job.lease_expired"
        details: dict[str, JsonValue] = {"worker": job.worker, "attempt": job.attempts}
        append_event(session, now, action, study_id=job.study_id, job_id=job.id, details=details)


def _owned(job_id: int, token: int) -> tuple[ColumnElement[bool], ...]:
    return (Job.id == job_id, Job.token == token, Job.state == JobState.RUNNING.value)


def _same_work(job: Job) -> tuple[ColumnElement[bool], ...]:
    return (
        Job.study_id == job.study_id,
        Job.rule == job.rule,
        Job.engine == job.engine,
        Job.series_key == job.series_key,
    )


def _leased(session: Session, job: Job, until: datetime) -> LeasedJob:
    row = session.execute(_jobs().where(Job.id == job.id)).one()
    created = session.scalar(select(func.min(Job.created_at)).where(*_same_work(job)))
    return LeasedJob(
        job=_job_record(row),
        token=job.token,
        lease_until=until,
        study=study_records(session, select(Study).where(Study.id == job.study_id))[0],
        instances=_instances(session, job),
        predecessors=_predecessors(session, job),
        series_created_at=job.created_at if created is None else created,
    )


def _instances(session: Session, job: Job) -> tuple[InstanceRecord, ...]:
    query = (
        select(Instance, Series.series_instance_uid)
        .join(Series)
        .where(
            Series.study_id == job.study_id,
            Series.series_instance_uid.in_(job.series_instance_uids),
            Instance.state == InstanceState.CURRENT.value,
        )
        .order_by(Instance.sop_instance_uid)
    )
    return tuple(instance_record(row, uid) for row, uid in session.execute(query))


def _predecessors(session: Session, job: Job) -> tuple[Predecessor, ...]:
    """Return the results of the newest older revision that reached anybody."""
    arrived = select(Delivery.result_id).where(Delivery.state.in_(ARRIVED))
    older = (
        select(func.max(Job.revision))
        .join(Result, Result.job_id == Job.id)
        .where(*_same_work(job), Job.revision < job.revision, Result.id.in_(arrived))
        .scalar_subquery()
    )
    query = (
        select(Result, Study.study_instance_uid)
        .join(Job, Result.job_id == Job.id)
        .join(Study, Job.study_id == Study.id)
        .where(*_same_work(job), Job.revision == older, Result.id.in_(arrived))
        .order_by(Result.id)
    )
    return tuple(
        Predecessor(
            writer=result.writer,
            sop_class_uid=result.sop_class_uid,
            sop_instance_uid=result.sop_instance_uid,
            series_instance_uid=result.series_instance_uid,
            study_instance_uid=study_instance_uid,
        )
        for result, study_instance_uid in session.execute(query)
    )


def _supersede_results(session: Session, job: Job) -> None:
    older = select(Job.id).where(*_same_work(job), Job.revision < job.revision)
    session.execute(update(Result).where(Result.job_id.in_(older)).values(superseded=True))


def _add_results(
    session: Session, job: Job, results: Sequence[NewResult], now: datetime
) -> list[int]:
    deliveries: list[Delivery] = []
    for new in results:
        row = Result(
            job_id=job.id,
            writer=new.writer,
            sop_class_uid=new.sop_class_uid,
            sop_instance_uid=new.sop_instance_uid,
            series_instance_uid=new.series_instance_uid,
            transfer_syntax_uid=new.transfer_syntax_uid,
            digest=new.digest,
            size=new.size,
            created_at=now,
            superseded=False,
        )
        session.add(row)
        session.flush()
        deliveries += [_delivery(row.id, name, now) for name in job.destinations]
    session.add_all(deliveries)
    session.flush()
    return [item.id for item in deliveries]


def _delivery(result_id: int, destination: str, now: datetime) -> Delivery:
    return Delivery(
        result_id=result_id,
        destination=destination,
        state=DeliveryState.QUEUED.value,
        attempts=0,
        token=0,
        status=None,
        error="",
        created_at=now,
        not_before=now,
        lease_until=None,
        finished_at=None,
    )


def _jobs() -> Select[Job, str]:
    return select(Job, Study.study_instance_uid).join(Study, Job.study_id == Study.id)


def _job_record(row: Row[Job, str]) -> JobRecord:
    job, study_instance_uid = row
    return JobRecord(
        id=job.id,
        study_id=job.study_id,
        study_instance_uid=study_instance_uid,
        revision=job.revision,
        rule=job.rule,
        rule_revision=job.rule_revision,
        engine=job.engine,
        priority=job.priority,
        series_instance_uids=tuple(job.series_instance_uids),
        destinations=tuple(job.destinations),
        state=JobState(job.state),
        attempts=job.attempts,
        max_attempts=job.max_attempts,
        worker=job.worker,
        error_class=None if job.error_class is None else ErrorClass(job.error_class),
        error=job.error,
        created_at=job.created_at,
        not_before=job.not_before,
        started_at=job.started_at,
        finished_at=job.finished_at,
        lease_until=job.lease_until,
        summary=job.summary,
        timings=job.timings,
    )


def _result_record(row: Row[Result, str, int, str]) -> ResultRecord:
    result, engine, revision, study_instance_uid = row
    return ResultRecord(
        id=result.id,
        job_id=result.job_id,
        study_instance_uid=study_instance_uid,
        engine=engine,
        writer=result.writer,
        sop_class_uid=result.sop_class_uid,
        sop_instance_uid=result.sop_instance_uid,
        series_instance_uid=result.series_instance_uid,
        transfer_syntax_uid=result.transfer_syntax_uid,
        digest=result.digest,
        size=result.size,
        revision=revision,
        created_at=result.created_at,
        superseded=result.superseded,
    )
