"""Results and their deliveries, written in the transaction that ends their job."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from storage.leasing import same_work
from storage.models import Delivery, Job, Result
from storage.records import JobOutcome, NewDelivery, NewResult
from storage.states import DeliveryState


def supersede_results(session: Session, job: Job) -> None:
    """Mark what older revisions of this job produced."""
    older = select(Job.id).where(*same_work(job), Job.revision < job.revision)
    session.execute(update(Result).where(Result.job_id.in_(older)).values(superseded=True))


def add_results(session: Session, job: Job, outcome: JobOutcome, now: datetime) -> list[int]:
    """Write results, and what goes to each of the job's destinations; return the deliveries."""
    ids: list[int] = []
    for new in outcome.results:
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
            withheld=new.withheld,
        )
        session.add(row)
        session.flush()
        ids.append(row.id)
    planned = outcome.deliveries
    if planned is None:
        planned = _everything_everywhere(outcome.results, job.destinations)
    deliveries = [_delivery(new, ids, now) for new in planned]
    session.add_all(deliveries)
    session.flush()
    return [item.id for item in deliveries]


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
