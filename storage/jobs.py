"""Jobs: one engine on one study revision. Leased in one statement, fenced by a token."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, ScalarSelect, bindparam, func, select, update
from sqlalchemy.orm import Session

from storage.database import Database
from storage.events import Clock, append_event
from storage.gone import refuse_gone_instances
from storage.leasing import (
    job_record,
    jobs_query,
    leased_job,
    result_record,
)
from storage.models import Job, Result, Study
from storage.outbox import add_results, supersede_results
from storage.recalled_jobs import TakenBack, discard_reviews, recall_of, tell_recalled
from storage.records import (
    JobOutcome,
    JobRecord,
    JsonValue,
    LeasedJob,
    LeaseLostError,
    NewJob,
    NotFoundError,
    ResultRecord,
    Routing,
)
from storage.revisions import refuse_older
from storage.states import (
    JOB_TRANSITIONS,
    ErrorClass,
    JobState,
    check_transition,
)


def series_key(series_instance_uids: Sequence[str]) -> str:
    """Return what stands for a set of series in a unique constraint."""
    return hashlib.sha256("\n".join(sorted(series_instance_uids)).encode()).hexdigest()


WAITING: Final = select(Job.id).where(
    Job.state == JobState.QUEUED.value, Job.not_before <= bindparam("now")
)
EXPIRED: Final = select(Job.id).where(
    Job.state == JobState.RUNNING.value, Job.lease_until < bindparam("now")
)


class JobStore:
    """Hands jobs out and takes their outcomes; each method is one transaction."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def lease(
        self, worker: str, seconds: float, *, without: Collection[str] = ()
    ) -> LeasedJob | None:
        """Claim the most urgent job that is not for an engine of `without`, or return None.

        The attempt is counted here, at the claim.
        """
        now = self._clock()
        if not self._database.finds(WAITING, now=now):
            return None
        until = now + timedelta(seconds=seconds)
        claim = (
            update(Job)
            .where(Job.id == _most_urgent(now, without), Job.state == JobState.QUEUED.value)
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
            return leased_job(session, job, until)

    def renew(self, job_id: int, token: int, seconds: float) -> bool:
        """Extend a lease; False: the job is somebody else's now, or superseded."""
        until = self._clock() + timedelta(seconds=seconds)
        with self._database.transaction() as session:
            statement = update(Job).where(*_owned(job_id, token)).values(lease_until=until)
            return session.scalar(statement.returning(Job.id)) is not None

    def finish(self, job_id: int, token: int, outcome: JobOutcome) -> Sequence[int]:
        """Write a job's end, its results and their deliveries, together; return delivery ids.

        The results of a run that was recalled while it went on are sent nowhere.

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
                engine_version=outcome.engine_version,
                engine_digest=outcome.engine_digest,
                finished_at=now,
                lease_until=None,
            )
            job = session.get_one(Job, job_id)
            recall = recall_of(session, job, now)
            rejecting = outcome.rejecting if recall is None else ()  # nothing comes in its place
            supersede_results(session, job, rejecting, now)
            deliveries = add_results(session, job, outcome, now, recall)
            append_event(
                session,
                now,
                f"job.{outcome.state.value}",
                study_id=job.study_id,
                job_id=job_id,
                details={"results": len(outcome.results), "deliveries": len(deliveries)},
            )
            if recall is not None:
                discard_reviews(session, recall, now)
                taken = TakenBack(
                    study_id=job.study_id,
                    results=len(outcome.results),
                    withdrawn=deliveries,
                    job_id=job_id,
                )
                tell_recalled(session, recall, now, taken)
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
        if not self._database.finds(EXPIRED, now=now):
            return []
        with self._database.transaction() as session:
            jobs = session.scalars(
                select(Job)
                .where(Job.state == JobState.RUNNING.value, Job.lease_until < now)
                .with_for_update(skip_locked=True, key_share=True)
            ).all()
            for job in jobs:
                self._expire(session, job, now)
            return [job.id for job in jobs]

    def retry(self, job_id: int, by: str) -> None:
        """Queue a failed or dead job again, with all its attempts (a person's act).

        Raises:
            NotFoundError, TransitionError
            SupersededError: the study is at a newer revision.
            BytesDeletedError: its instances are not all there any more.
        """
        now = self._clock()
        with self._database.transaction() as session:
            job = session.get(Job, job_id)
            if job is None:
                raise NotFoundError(f"there is no job {job_id}")
            refuse_older(session, job.study_id, job.revision)
            refuse_gone_instances(session, job.study_id)
            session.refresh(job, with_for_update={"key_share": True})
            check_transition(JOB_TRANSITIONS, JobState(job.state), JobState.QUEUED)
            job.state, job.attempts, job.not_before = JobState.QUEUED.value, 0, now
            job.error_class, job.error, job.finished_at = None, "", None
            append_event(
                session, now, "job.retried", study_id=job.study_id, job_id=job_id, actor=by
            )

    def get(self, job_id: int) -> JobRecord:
        """Return one job.

        Raises:
            NotFoundError: there is no such job.
        """
        with self._database.reading() as session:
            row = session.execute(jobs_query().where(Job.id == job_id)).first()
            if row is None:
                raise NotFoundError(f"there is no job {job_id}")
            return job_record(row)

    def list(
        self, *, study_id: int | None = None, state: JobState | None = None, limit: int = 100
    ) -> Sequence[JobRecord]:
        """Return jobs, newest first."""
        query = jobs_query().order_by(Job.id.desc()).limit(limit)
        if study_id is not None:
            query = query.where(Job.study_id == study_id)
        if state is not None:
            query = query.where(Job.state == state.value)
        with self._database.reading() as session:
            return [job_record(row) for row in session.execute(query)]

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
            return [result_record(row) for row in session.execute(query)]

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


def _most_urgent(now: datetime, without: Collection[str]) -> ScalarSelect[int]:
    """Choose the queued job that comes first, passing over those that others are claiming."""
    return (
        select(Job.id)
        .where(
            Job.state == JobState.QUEUED.value,
            Job.not_before <= now,
            Job.engine.not_in(sorted(without)),
        )
        .order_by(Job.priority.desc(), Job.created_at, Job.id)
        .limit(1)
        .with_for_update(skip_locked=True, key_share=True)
        .scalar_subquery()
    )


def _owned(job_id: int, token: int) -> tuple[ColumnElement[bool], ...]:
    return (Job.id == job_id, Job.token == token, Job.state == JobState.RUNNING.value)


def new_job(study: Study, routing: Routing, new: NewJob, max_attempts: int, now: datetime) -> Job:
    """Return the row of a job that routing asks for."""
    return Job(
        study_id=study.id,
        revision=study.revision,
        rule=new.rule,
        rule_revision=routing.rule_revision,
        engine=new.engine,
        series_key=series_key(new.series_instance_uids),
        series_instance_uids=list(new.series_instance_uids),
        destinations=list(new.destinations),
        priority=new.priority,
        state=JobState.QUEUED.value,
        attempts=0,
        max_attempts=max_attempts,
        worker="",
        token=0,
        error_class=None,
        error="",
        created_at=now,
        not_before=now,
        started_at=None,
        finished_at=None,
        lease_until=None,
        summary={},
        timings={},
    )
