"""What is held back until a person has seen it: listed, released to its destinations, discarded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Row, Select, func, select, update
from sqlalchemy.orm import Session

from storage.database import Database
from storage.events import Clock, append_event
from storage.leasing import result_record
from storage.models import Job, Result, Review, Study
from storage.outbox import add_deliveries
from storage.records import (
    BytesDeletedError,
    ConstraintError,
    NewDelivery,
    NotFoundError,
    ResultRecord,
)
from storage.revisions import refuse_older
from storage.states import ReviewState


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewRecord:
    """Results that were held back, and what a person decided of them."""

    id: int
    job_id: int
    study_id: int
    study_instance_uid: str
    revision: int
    engine: str
    destinations: tuple[str, ...]
    state: ReviewState
    kind: str
    reason: str
    created_at: datetime
    decided_at: datetime | None
    decided_by: str
    comment: str


class ReviewStore:
    """Keeps what people have to decide; each method is one transaction."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def list(
        self, *, study_id: int | None = None, waiting: bool = False, limit: int = 100
    ) -> Sequence[ReviewRecord]:
        """Return reviews: those that wait, longest first, or all, newest first."""
        query = _reviews().limit(limit)
        if study_id is not None:
            query = query.where(Job.study_id == study_id)
        if waiting:
            query = query.where(Review.state == ReviewState.WAITING.value)
            query = query.order_by(Review.created_at, Review.id)
        else:
            query = query.order_by(Review.id.desc())
        with self._database.reading() as session:
            return [_record(row) for row in session.execute(query)]

    def waiting(self) -> int:
        """Return how many wait for a person."""
        query = select(func.count()).select_from(Review)
        with self._database.reading() as session:
            found = query.where(Review.state == ReviewState.WAITING.value)
            return session.scalar(found) or 0

    def get(self, review_id: int) -> ReviewRecord:
        """Return one review.

        Raises:
            NotFoundError: there is no such review.
        """
        with self._database.reading() as session:
            return _get(session, review_id)

    def results(self, review_id: int) -> Sequence[ResultRecord]:
        """Return the results that a review is about, in the order in which they were made."""
        with self._database.reading() as session:
            return _results(session, review_id)

    def release(
        self,
        review_id: int,
        *,
        by: str,
        comment: str,
        plan: Callable[[ReviewRecord, Sequence[ResultRecord]], Sequence[NewDelivery]],
    ) -> Sequence[int]:
        """Give results out as if they had never been held; return their deliveries.

        Args:
            review_id: whose results.
            by: the person who decided.
            comment: why, in the person's words.
            plan: says what goes where; results are named by their index.

        Raises:
            NotFoundError: there is no such review.
            ConstraintError: it was decided before.
            SupersededError: the study is at a newer revision.
            BytesDeletedError: retention deleted some of them.
        """
        now = self._clock()
        with self._database.transaction() as session:
            review = _get(session, review_id)
            refuse_older(session, review.study_id, review.revision)
            review = _decide(session, review_id, ReviewState.RELEASED, by, comment, now)
            results = _results(session, review_id)
            if any(item.deletion_id is not None for item in results):
                raise BytesDeletedError("retention deleted these results")
            session.execute(
                update(Result).where(Result.review_id == review_id).values(withheld=False)
            )
            ids = [item.id for item in results]
            deliveries = add_deliveries(session, ids, plan(review, results), now)
            _tell(session, review, "review.released", by, len(deliveries), now)
            return deliveries

    def discard(self, review_id: int, *, by: str, comment: str) -> None:
        """Keep results from everybody for good; what was sent in their place stands.

        Raises:
            NotFoundError: there is no such review.
            ConstraintError: it was decided before.
        """
        now = self._clock()
        with self._database.transaction() as session:
            review = _decide(session, review_id, ReviewState.DISCARDED, by, comment, now)
            _tell(session, review, "review.discarded", by, 0, now)


def _reviews() -> Select[Review, Job, str]:
    return (
        select(Review, Job, Study.study_instance_uid)
        .join(Job, Review.job_id == Job.id)
        .join(Study, Job.study_id == Study.id)
    )


def _get(session: Session, review_id: int) -> ReviewRecord:
    row = session.execute(_reviews().where(Review.id == review_id)).first()
    if row is None:
        raise NotFoundError(f"there is no review {review_id}")
    return _record(row)


def _results(session: Session, review_id: int) -> Sequence[ResultRecord]:
    query = (
        select(Result, Job.engine, Job.revision, Study.study_instance_uid)
        .join(Job, Result.job_id == Job.id)
        .join(Study, Job.study_id == Study.id)
        .where(Result.review_id == review_id)
        .order_by(Result.id)
    )
    return [result_record(row) for row in session.execute(query)]


def _decide(  # noqa: PLR0917 - one column each
    session: Session,
    review_id: int,
    state: ReviewState,
    by: str,
    comment: str,
    now: datetime,
) -> ReviewRecord:
    """Write a decision where none was made; two people who decide at once: the first one does."""
    waits = Review.id == review_id, Review.state == ReviewState.WAITING.value
    decision = {"decided_at": now, "decided_by": by, "comment": comment}
    changed = session.scalar(
        update(Review).where(*waits).values(state=state.value, **decision).returning(Review.id)
    )
    review = _get(session, review_id)
    if changed is None:
        raise ConstraintError(f"review {review_id} is {review.state.value} already")
    return review


def _tell(  # noqa: PLR0917 - what a line of the timeline holds
    session: Session, review: ReviewRecord, action: str, by: str, deliveries: int, now: datetime
) -> None:
    append_event(
        session,
        now,
        action,
        study_id=review.study_id,
        job_id=review.job_id,
        actor=by,
        details={"review": review.id, "deliveries": deliveries, "comment": review.comment},
    )


def _record(row: Row[Review, Job, str]) -> ReviewRecord:
    review, job, study_instance_uid = row
    return ReviewRecord(
        id=review.id,
        job_id=review.job_id,
        study_id=job.study_id,
        study_instance_uid=study_instance_uid,
        revision=job.revision,
        engine=job.engine,
        destinations=tuple(job.destinations),
        state=ReviewState(review.state),
        kind=review.kind,
        reason=review.reason,
        created_at=review.created_at,
        decided_at=review.decided_at,
        decided_by=review.decided_by,
        comment=review.comment,
    )
