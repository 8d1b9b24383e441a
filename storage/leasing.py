"""Jobs as records, and what a leased job carries with it: study, instances, predecessors."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from sqlalchemy import ColumnElement, Row, Select, func, select
from sqlalchemy.orm import Session

from storage.models import Delivery, Instance, Job, Result, Series, Study
from storage.queries import instance_record, study_records
from storage.records import InstanceRecord, JobRecord, LeasedJob, Predecessor, ResultRecord
from storage.states import DeliveryState, ErrorClass, InstanceState, JobState

ARRIVED: Final = (
    DeliveryState.SENT.value,
    DeliveryState.WARNED.value,
    DeliveryState.CONFIRMED.value,
)


def same_work(job: Job) -> tuple[ColumnElement[bool], ...]:
    """Return the condition for jobs that do the same on any revision of the study."""
    return (
        Job.study_id == job.study_id,
        Job.rule == job.rule,
        Job.engine == job.engine,
        Job.series_key == job.series_key,
    )


def leased_job(session: Session, job: Job, until: datetime) -> LeasedJob:
    """Return all that a worker needs of a job it has just claimed."""
    row = session.execute(jobs_query().where(Job.id == job.id)).one()
    created = session.scalar(select(func.min(Job.created_at)).where(*same_work(job)))
    return LeasedJob(
        job=job_record(row),
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
    arrived = (
        select(Delivery.result_id)
        .join(Result, Delivery.result_id == Result.id)
        .where(Delivery.state.in_(ARRIVED), Result.withdrawal_id.is_(None))
    )
    older = (
        select(func.max(Job.revision))
        .join(Result, Result.job_id == Job.id)
        .where(*same_work(job), Job.revision < job.revision, Result.id.in_(arrived))
        .scalar_subquery()
    )
    query = (
        select(Result, Study.study_instance_uid)
        .join(Job, Result.job_id == Job.id)
        .join(Study, Job.study_id == Study.id)
        .where(*same_work(job), Job.revision == older, Result.id.in_(arrived))
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


def jobs_query() -> Select[Job, str]:
    """Return the query for jobs with their study's UID."""
    return select(Job, Study.study_instance_uid).join(Study, Job.study_id == Study.id)


def job_record(row: Row[Job, str]) -> JobRecord:
    """Return one row of `jobs_query` as a record."""
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


def result_record(row: Row[Result, str, int, str]) -> ResultRecord:
    """Return one result, its job's engine and revision, and its study's UID as a record."""
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
        withheld=result.withheld,
        review_id=result.review_id,
        deletion_id=result.deletion_id,
        recall_id=result.recall_id,
        withdrawal_id=result.withdrawal_id,
    )
