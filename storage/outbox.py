"""Results and their deliveries, written in the transaction that ends their job."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from storage.leasing import same_work
from storage.models import Delivery, Job, Result
from storage.records import NewResult
from storage.states import DeliveryState


def supersede_results(session: Session, job: Job) -> None:
    """Mark what older revisions of this job produced."""
    older = select(Job.id).where(*same_work(job), Job.revision < job.revision)
    session.execute(update(Result).where(Result.job_id.in_(older)).values(superseded=True))


def add_results(
    session: Session, job: Job, results: Sequence[NewResult], now: datetime
) -> list[int]:
    """Write results, and a delivery of each to each of the job's destinations; return their ids."""
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
