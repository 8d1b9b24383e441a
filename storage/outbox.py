"""Results and their deliveries, written in the transaction that ends their job."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from storage.events import append_event
from storage.leasing import same_work
from storage.models import Delivery, Job, Result, Review
from storage.records import JobOutcome, JsonValue, NewDelivery, NewResult, NewReview
from storage.states import DeliveryState, ReviewState


def supersede_results(session: Session, job: Job) -> None:
    """Mark what older revisions of this job produced."""
    older = select(Job.id).where(*same_work(job), Job.revision < job.revision)
    session.execute(update(Result).where(Result.job_id.in_(older)).values(superseded=True))


def add_results(session: Session, job: Job, outcome: JobOutcome, now: datetime) -> list[int]:
    """Write results, and what goes to each of the job's destinations; return the deliveries."""
    rows = _add_rows(session, job, outcome.results, now)
    if outcome.review is not None:
        _add_review(session, job, outcome.review, now)
    planned = outcome.deliveries
    if planned is None:
        planned = _everything_everywhere(outcome.results, job.destinations)
    return add_deliveries(session, rows, planned, now)


def add_deliveries(
    session: Session, results: Sequence[int], planned: Sequence[NewDelivery], now: datetime
) -> list[int]:
    """Write what goes where of some results, which are named by their index; return their ids."""
    deliveries = [_delivery(new, results, now) for new in planned]
    session.add_all(deliveries)
    session.flush()
    return [item.id for item in deliveries]


def _add_review(session: Session, job: Job, new: NewReview, now: datetime) -> None:
    row = Review(
        job_id=job.id,
        state=ReviewState.WAITING.value,
        kind=new.kind,
        reason=new.reason,
        created_at=now,
        decided_by="",
        comment="",
    )
    session.add(row)
    session.flush()
    _add_rows(session, job, new.results, now, review=row.id)
    details: dict[str, JsonValue] = {"review": row.id, "reason": new.reason}
    append_event(
        session, now, "review.opened", study_id=job.study_id, job_id=job.id, details=details
    )


def _add_rows(
    session: Session,
    job: Job,
    results: Sequence[NewResult],
    now: datetime,
    *,
    review: int | None = None,
) -> list[int]:
    ids: list[int] = []
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
            withheld=new.withheld or review is not None,
            review_id=review,
        )
        session.add(row)
        session.flush()
        ids.append(row.id)
    return ids


def _everything_everywhere(
    results: Sequence[NewResult], destinations: Sequence[str]
) -> tuple[NewDelivery, ...]:
    return tuple(
        NewDelivery(destination=destination, result=index)
        for index, result in enumerate(results)
        if not result.withheld
        for destination in destinations
    )


def _delivery(new: NewDelivery, ids: Sequence[int], now: datetime) -> Delivery:
    state = DeliveryState.RESERVED if new.reserved else DeliveryState.QUEUED
    return Delivery(
        result_id=ids[new.result],
        destination=new.destination,
        fallbacks=[[ids[index] for index in group] for group in new.fallbacks],
        state=state.value,
        attempts=0,
        token=0,
        status=None,
        error="",
        created_at=now,
        not_before=now,
        lease_until=None,
        finished_at=None,
    )
