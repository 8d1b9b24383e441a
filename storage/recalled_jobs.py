"""Runs of jobs that are under way while their engine is recalled: what they make is not sent.

A recall writes down each run that it finds, under a lock of its job. The end of a run, which locks
the job too, looks whether it was one of them: which version ran is known only then. A later run of
the same job is not meant, nor is a job that waits: they run on what is installed by then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple

from sqlalchemy import ColumnElement, Select, exists, func, or_, select, update
from sqlalchemy.orm import Session

from storage.events import append_event
from storage.models import Job, Recall, RecalledJob, Result, Review, Study
from storage.recall_records import RecallScope
from storage.states import JobState, ReviewState

DIGEST_FROM: Final = 8
"""So many characters of a package digest at least name it."""


class Run(NamedTuple):
    """One run of a job."""

    job_id: int
    token: int
    study_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenBack:
    """What was taken back in one study: at once, or as the end of a job."""

    study_id: int
    results: int
    withdrawn: Sequence[int]  # deliveries
    destinations: Sequence[str] = ()
    job_id: int | None = None


def runs_under_way(
    session: Session, scope: RecallScope, now: datetime, *, lock: bool = False
) -> Sequence[Run]:
    """Return the runs that may make what a scope names, and that no recall wrote down yet.

    With `lock` their jobs end after this transaction only.
    """
    if scope.until is not None and scope.until <= now:
        return []
    query = _jobs(scope, JobState.RUNNING).where(~_written_down(scope, now)).order_by(Job.id)
    if lock:
        query = query.with_for_update(of=Job, key_share=True)
    return [Run(*row) for row in session.execute(query)]


def waiting_jobs(session: Session, scope: RecallScope) -> int:
    """Return how many jobs of the engine wait: no recall is about them."""
    query = select(func.count()).select_from(_jobs(scope, JobState.QUEUED).subquery())
    return session.scalar(query) or 0


def write_down(session: Session, recall: Recall, runs: Sequence[Run]) -> None:
    """Write down that what these runs make is recalled."""
    for run in runs:
        session.add(RecalledJob(recall_id=recall.id, job_id=run.job_id, token=run.token))
        append_event(
            session,
            recall.at,
            "job.recalled",
            study_id=run.study_id,
            job_id=run.job_id,
            actor=recall.by,
            details={"recall": recall.id, "version": recall.version, "reason": recall.reason},
        )


def recall_of(session: Session, job: Job, now: datetime) -> Recall | None:
    """Return the recall that takes back what a job, which ends now, has made; None: none does."""
    recalls = session.scalars(
        select(Recall)
        .join(RecalledJob, RecalledJob.recall_id == Recall.id)
        .where(RecalledJob.job_id == job.id, RecalledJob.token == job.token)
        .order_by(Recall.id)
    )
    return next((recall for recall in recalls if _is_meant(recall, job, now)), None)


def tell_recalled(session: Session, recall: Recall, at: datetime, what: TakenBack) -> None:
    """Write onto a study's timeline what was taken back, and which of its deliveries ended."""
    for delivery_id in what.withdrawn:
        append_event(
            session,
            at,
            "delivery.withdrawn",
            study_id=what.study_id,
            job_id=what.job_id,
            delivery_id=delivery_id,
            actor=recall.by,
        )
    append_event(
        session,
        at,
        "results.recalled",
        study_id=what.study_id,
        job_id=what.job_id,
        actor=recall.by,
        details={
            "recall": recall.id,
            "engine": recall.engine,
            "version": recall.version,
            "results": what.results,
            "withdrawn": len(what.withdrawn),
            "destinations": list(what.destinations),
            "reason": recall.reason,
        },
    )


def discard_reviews(session: Session, recall: Recall, at: datetime) -> None:
    """End the waiting of recalled results for a person: nobody may release them any more."""
    held = select(Result.review_id).where(
        Result.recall_id == recall.id, Result.review_id.is_not(None)
    )
    discarded = session.execute(
        update(Review)
        .where(Review.id.in_(held), Review.state == ReviewState.WAITING.value)
        .values(
            state=ReviewState.DISCARDED.value,
            decided_at=at,
            decided_by=recall.by,
            comment=recall.reason,
        )
        .returning(Review.id, Review.job_id)
    ).all()
    for review_id, job_id in discarded:
        append_event(
            session,
            at,
            "review.discarded",
            study_id=session.get_one(Job, job_id).study_id,
            job_id=job_id,
            actor=recall.by,
            details={"review": review_id, "recall": recall.id, "comment": recall.reason},
        )


def of_version(version: str) -> list[ColumnElement[bool]]:
    """Return the conditions for jobs of an engine's version, as a recall names it."""
    if not version:
        return []
    wanted = [Job.engine_version == version]
    if len(version) >= DIGEST_FROM:
        wanted.append(Job.engine_digest.startswith(version, autoescape=True))
    return [or_(*wanted)]


def _is_meant(recall: Recall, job: Job, now: datetime) -> bool:
    wanted = recall.version
    digest = len(wanted) >= DIGEST_FROM and job.engine_digest.startswith(wanted)
    if wanted and wanted != job.engine_version and not digest:
        return False
    begun = recall.since is None or recall.since <= now
    return begun and (recall.until is None or now < recall.until)


def _jobs(scope: RecallScope, state: JobState) -> Select[int, int, int]:
    query = select(Job.id, Job.token, Job.study_id).where(
        Job.engine == scope.engine, Job.state == state.value
    )
    if scope.study_instance_uid:
        query = query.join(Study, Job.study_id == Study.id).where(
            Study.study_instance_uid == scope.study_instance_uid
        )
    return query


def _written_down(scope: RecallScope, now: datetime) -> ColumnElement[bool]:
    """Return the condition that a recall of as much, or more, has a run already."""
    ends: ColumnElement[bool] = Recall.until.is_(None)
    if scope.until is not None:
        ends = or_(ends, Recall.until >= scope.until)
    found = exists().where(
        RecalledJob.job_id == Job.id,
        RecalledJob.token == Job.token,
        Recall.id == RecalledJob.recall_id,
        Recall.version.in_({"", scope.version}),
        or_(Recall.since.is_(None), Recall.since <= now),
        ends,
    )
    return found.correlate(Job)
