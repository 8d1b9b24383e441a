"""Which bytes retention may delete: questions to the database, each also asked of one row again.

Done is a study that was routed, that no rule wanted, or that failed; whose jobs have all ended and
whose results nobody waits for; that no association carries, and that is not held. What a person
can still set going again (a failed or dead job, a refused delivery, a study that could not be
routed) has a rule of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import ColumnElement, Select, and_, exists, func, or_, select
from sqlalchemy.orm import Session

from storage.indexing import NO_DUPLICATE
from storage.models import Delivery, Hold, Instance, Job, Pack, Quarantine, Receipt, Result, Study
from storage.queries import carried
from storage.retention_records import RetentionPolicy
from storage.states import (
    DeletionRule,
    DeliveryState,
    JobState,
    ReceiptOutcome,
    StudyState,
)

PAGE: Final = 200
DECIDED: Final = (
    StudyState.ROUTED.value,
    StudyState.UNMATCHED.value,
    StudyState.FAILED.value,
)
OPEN_JOBS: Final = (JobState.QUEUED.value, JobState.RUNNING.value)
FAILED_JOBS: Final = (JobState.FAILED.value, JobState.DEAD.value)
OPEN_DELIVERIES: Final = (
    DeliveryState.QUEUED.value,
    DeliveryState.SENDING.value,
    DeliveryState.PARKED.value,
    DeliveryState.RESERVED.value,
)


def cutoff_of(policy: RetentionPolicy, rule: DeletionRule, now: datetime) -> datetime | None:
    """Return the moment before which something must have ended to be deleted; None: never."""
    if rule is DeletionRule.DISK:
        return now if policy.low_bytes > 0 else None
    days = {
        DeletionRule.STUDIES: policy.studies_days,
        DeletionRule.FAILED: policy.failed_days,
        DeletionRule.RESULTS: policy.results_days,
        DeletionRule.QUARANTINE: policy.quarantine_days,
        DeletionRule.DUPLICATES: policy.duplicates_days,
    }.get(rule)
    return None if days is None else now - timedelta(days=days)


# ---------------------------------------------------------------- studies


def expired_studies(
    session: Session, rule: DeletionRule, cutoff: datetime
) -> Iterator[tuple[int, str, datetime]]:
    """Yield the studies whose instances a rule lets go: row, UID, last instance; oldest first."""
    query = (
        select(Study.id, Study.study_instance_uid, Study.last_received_at)
        .where(Study.emptied_at.is_(None), *may_go(rule, cutoff))
        .order_by(Study.last_received_at, Study.id)
        .limit(PAGE)
    )
    last: tuple[datetime, int] | None = None
    while True:
        rows = session.execute(query if last is None else query.where(_behind(*last))).all()
        for study_id, uid, received in rows:
            yield study_id, uid, received
            last = received, study_id
        if len(rows) < PAGE:
            return


def _behind(received: datetime, study_id: int) -> ColumnElement[bool]:
    """Return the condition for studies that come later in that order."""
    later = Study.last_received_at > received
    return or_(later, and_(Study.last_received_at == received, Study.id > study_id))


def may_go(rule: DeletionRule, cutoff: datetime) -> tuple[ColumnElement[bool], ...]:
    """Return the conditions under which a rule lets a study's instances go."""
    failed = _failed()
    return (
        Study.state.in_(DECIDED),
        Study.last_received_at < cutoff,
        Study.complete_after < cutoff,
        ~_jobs(or_(Job.state.in_(OPEN_JOBS), Job.finished_at >= cutoff)),
        ~_deliveries(or_(Delivery.state.in_(OPEN_DELIVERIES), Delivery.finished_at >= cutoff)),
        ~exists().where(Hold.study_id == Study.id),
        ~carried(),
        failed if rule is DeletionRule.FAILED else ~failed,
    )


def _failed() -> ColumnElement[bool]:
    """Return the condition that a person could still set something of the study going again."""
    return or_(
        Study.state == StudyState.FAILED.value,
        _jobs(and_(Job.state.in_(FAILED_JOBS), Job.revision == Study.revision)),
        _deliveries(
            and_(Delivery.state == DeliveryState.FAILED.value, Job.revision == Study.revision)
        ),
    )


def _jobs(which: ColumnElement[bool]) -> ColumnElement[bool]:
    return exists().where(Job.study_id == Study.id, which).correlate(Study)


def _deliveries(which: ColumnElement[bool]) -> ColumnElement[bool]:
    return (
        exists()
        .where(
            Job.study_id == Study.id,
            Result.job_id == Job.id,
            Delivery.result_id == Result.id,
            which,
        )
        .correlate(Study)
    )


def kept_instances(session: Session, study_id: int) -> list[tuple[str, int, int]]:
    """Return the packs that hold a study's instances: name, how many, how many bytes."""
    query = (
        select(Instance.pack, func.count(), func.sum(Instance.length))
        .where(Instance.study_id == study_id, Instance.deletion_id.is_(None))
        .group_by(Instance.pack)
    )
    return [(name, count, int(size)) for name, count, size in session.execute(query)]


# ---------------------------------------------------------------- results


def expired_results(
    rule: DeletionRule, cutoff: datetime, *, study_id: int | None = None
) -> Select[int, int, int]:
    """Return the query for result objects that a rule lets go: row, study, size; oldest first.

    Under RESULTS every delivery ended well, or a newer revision took its place; under FAILED one
    was refused, or there never was one: then no copy is known to be anywhere else.
    """
    delivered = exists().where(Delivery.result_id == Result.id).correlate(Result)
    refused = or_(~delivered, _sent(Delivery.state == DeliveryState.FAILED.value))
    query = (
        select(Result.id, Job.study_id, Result.size)
        .join(Job, Result.job_id == Job.id)
        .where(
            Result.deletion_id.is_(None),
            Result.created_at < cutoff,
            ~_sent(or_(Delivery.state.in_(OPEN_DELIVERIES), Delivery.finished_at >= cutoff)),
            ~exists().where(Hold.study_id == Job.study_id).correlate(Job),
            refused if rule is DeletionRule.FAILED else ~refused,
        )
        .order_by(Result.created_at, Result.id)
    )
    return query if study_id is None else query.where(Job.study_id == study_id)


def _sent(which: ColumnElement[bool]) -> ColumnElement[bool]:
    return exists().where(Delivery.result_id == Result.id, which).correlate(Result)


# ---------------------------------------------------------------- quarantine, packs


def expired_quarantine(rule: DeletionRule, cutoff: datetime) -> Select[Quarantine]:
    """Return the query for what may go from quarantine, oldest first.

    What was acknowledged and then not indexed is somebody's only copy: FAILED is its rule.
    """
    receipt = (
        exists()
        .where(
            Receipt.outcome == ReceiptOutcome.NOT_INDEXED.value,
            Receipt.digest == Quarantine.digest,
        )
        .correlate(Quarantine)
    )
    acknowledged = or_(receipt, Quarantine.reason == NO_DUPLICATE)
    return (
        select(Quarantine)
        .where(
            Quarantine.deletion_id.is_(None),
            Quarantine.at < cutoff,
            acknowledged if rule is DeletionRule.FAILED else ~acknowledged,
        )
        .order_by(Quarantine.id)
    )


def packs_to_tidy(session: Session, cutoff: datetime) -> Sequence[tuple[str, datetime, int]]:
    """Return packs of which bytes without a row may go, that were not looked through before.

    Name, moment of the first row, and up to where they have rows.
    """
    query = (
        select(Pack.name, Pack.created_at, Pack.indexed_through)
        .where(Pack.tidied_at.is_(None), Pack.removed_at.is_(None), Pack.created_at < cutoff)
        .order_by(Pack.created_at)
    )
    return [(name, created, through) for name, created, through in session.execute(query)]


def packs_without_rows(session: Session) -> Sequence[tuple[str, int]]:
    """Return packs of which no row wants a byte any more, and up to where they have rows."""
    query = (
        select(Pack.name, Pack.indexed_through)
        .where(
            Pack.removed_at.is_(None),
            ~exists().where(Instance.pack == Pack.name, Instance.deletion_id.is_(None)),
            ~exists().where(Quarantine.pack == Pack.name, Quarantine.deletion_id.is_(None)),
        )
        .order_by(Pack.created_at, Pack.name)
    )
    return [(name, through) for name, through in session.execute(query)]
