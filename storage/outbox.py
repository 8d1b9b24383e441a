"""Results and their deliveries, written in the transaction that ends their job."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from storage.arrivals import reached
from storage.events import append_event
from storage.leasing import same_work
from storage.models import Delivery, Job, Recall, Result, Review, Withdrawal
from storage.records import JobOutcome, JsonValue, NewDelivery, NewResult, NewReview
from storage.revisions import change_deliveries, lock_in_order
from storage.states import DeliveryState, ReviewState


def supersede_results(session: Session, job: Job, rejecting: Collection[str], at: datetime) -> None:
    """Mark what older revisions of this job produced; ask for a note for those `rejecting` it."""
    older = select(Job.id).where(*same_work(job), Job.revision < job.revision)
    made = (Result.job_id.in_(older), Result.withdrawal_id.is_(None))
    session.execute(update(Result).where(*made).values(superseded=True))
    results = select(Result.id).where(*made, Result.recall_id.is_(None))
    for destination in sorted({*rejecting}):
        there = lock_in_order(
            session,
            Delivery.result_id.in_(results),
            Delivery.destination == destination,
            reached(),
            Delivery.withdrawal_id.is_(None),
        )
        ask_for_note(session, job.study_id, destination, there, at)


def ask_for_note(
    session: Session,
    study_id: int,
    destination: str,
    deliveries: Sequence[int],
    at: datetime,
    *,
    recall_id: int | None = None,
) -> None:
    """Write that a destination is to be told that deliveries, which are locked, are rejected."""
    if not deliveries:
        return
    row = Withdrawal(
        recall_id=recall_id,
        study_id=study_id,
        destination=destination,
        at=at,
        made_at=None,
        error="",
    )
    session.add(row)
    session.flush()
    change_deliveries(session, deliveries, withdrawal_id=row.id)


def add_results(
    session: Session, job: Job, outcome: JobOutcome, now: datetime, recall: Recall | None = None
) -> list[int]:
    """Write results, and what goes to each of the job's destinations; return the deliveries.

    What was recalled before it was there goes nowhere.
    """
    recall_id = None if recall is None else recall.id
    ids = [_add_result(session, job.id, new, now, recall_id=recall_id) for new in outcome.results]
    if outcome.review is not None:
        _add_review(session, job, outcome.review, now, recall_id=recall_id)
    planned = outcome.deliveries
    if planned is None:
        planned = _everything_everywhere(outcome.results, job.destinations)
    return add_deliveries(session, ids, planned, now, withdrawn=recall is not None)


def add_notes(
    session: Session, job_id: int, withdrawal: Withdrawal, notes: Sequence[NewResult], now: datetime
) -> list[int]:
    """Write notes that results of a job are rejected; the first goes, the others in its place."""
    ids = [_add_result(session, job_id, new, now, withdrawal_id=withdrawal.id) for new in notes]
    planned = [
        NewDelivery(
            destination=withdrawal.destination,
            result=index,
            fallbacks=tuple((other,) for other in range(index + 1, len(ids))),
            reserved=index > 0,
        )
        for index in range(len(ids))
    ]
    return add_deliveries(session, ids, planned, now)


def _add_result(
    session: Session,
    job_id: int,
    new: NewResult,
    now: datetime,
    *,
    recall_id: int | None = None,
    withdrawal_id: int | None = None,
    review_id: int | None = None,
) -> int:
    row = Result(
        job_id=job_id,
        writer=new.writer,
        sop_class_uid=new.sop_class_uid,
        sop_instance_uid=new.sop_instance_uid,
        series_instance_uid=new.series_instance_uid,
        transfer_syntax_uid=new.transfer_syntax_uid,
        digest=new.digest,
        size=new.size,
        created_at=now,
        superseded=False,
        withheld=new.withheld or review_id is not None,
        review_id=review_id,
        recall_id=recall_id,
        withdrawal_id=withdrawal_id,
    )
    session.add(row)
    session.flush()
    return row.id


def add_deliveries(
    session: Session,
    results: Sequence[int],
    planned: Sequence[NewDelivery],
    now: datetime,
    *,
    withdrawn: bool = False,
) -> list[int]:
    """Write what goes where of some results, which are named by their index; return their ids."""
    deliveries = [_delivery(new, results, now) for new in planned]
    if withdrawn:
        for row in deliveries:
            row.state, row.finished_at = DeliveryState.WITHDRAWN.value, now
    session.add_all(deliveries)
    session.flush()
    return [item.id for item in deliveries]


def _add_review(
    session: Session, job: Job, new: NewReview, now: datetime, *, recall_id: int | None
) -> None:
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
    for item in new.results:
        _add_result(session, job.id, item, now, recall_id=recall_id, review_id=row.id)
    details: dict[str, JsonValue] = {"review": row.id, "reason": new.reason}
    append_event(
        session, now, "review.opened", study_id=job.study_id, job_id=job.id, details=details
    )


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
