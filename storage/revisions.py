"""Revisions of a study: opening one ends the work of those before it.

Locks are taken in one order, study before job before delivery. A study row is locked FOR NO KEY
UPDATE, which lets an event be written for it: the key in an event locks the study FOR KEY SHARE.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, select, update
from sqlalchemy.orm import Session

from storage.errors import SupersededError
from storage.events import append_event
from storage.lots import chunks_of
from storage.models import Delivery, Job, Result, Review, Study
from storage.states import (
    STUDY_TRANSITIONS,
    DeliveryState,
    JobState,
    ReviewState,
    StudyState,
    check_transition,
)

OPEN: Final = (JobState.QUEUED.value, JobState.RUNNING.value)
UNSENT: Final = (
    DeliveryState.QUEUED.value,
    DeliveryState.PARKED.value,
    DeliveryState.RESERVED.value,
)


def hold_revision(session: Session, study_id: int) -> int:
    """Return a study's revision; it cannot be opened again before this transaction ends."""
    return session.scalars(
        select(Study.revision).where(Study.id == study_id).with_for_update(read=True)
    ).one()


def refuse_older(session: Session, study_id: int, revision: int) -> None:
    """Hold a study's revision, and refuse work of an older one.

    Raises:
        SupersededError: naming both revisions.
    """
    current = hold_revision(session, study_id)
    if revision != current:
        raise SupersededError(f"this belongs to revision {revision}; the study is at {current}")


def lock_in_order(session: Session, *which: ColumnElement[bool]) -> Sequence[int]:
    """Lock deliveries by their id and return the ids.

    Two that lock many of them never wait for each other, as long as each locks all it will change
    in one go and changes no others.
    """
    query = select(Delivery.id).where(*which).order_by(Delivery.id)
    return session.scalars(query.with_for_update(key_share=True)).all()


def change_deliveries(session: Session, ids: Sequence[int], **values: Any) -> None:  # noqa: ANN401
    """Change columns of deliveries that are locked."""
    for chunk in chunks_of(ids):
        session.execute(update(Delivery).where(Delivery.id.in_(chunk)).values(**values))


def move_study(study: Study, state: StudyState) -> None:
    """Change a study's state as the table allows.

    Raises:
        TransitionError
    """
    check_transition(STUDY_TRANSITIONS, StudyState(study.state), state)
    study.state = state.value


def open_revision(session: Session, study: Study, now: datetime, *, reason: str, by: str) -> None:
    """Open a locked study's next revision, and end what older ones have open.

    Raises:
        TransitionError: it is receiving already.
    """
    move_study(study, StudyState.RECEIVING)
    study.revision += 1
    study.evidence, study.explanation, study.reason = {}, {}, ""
    study.rule_revision = None
    append_event(
        session,
        now,
        "study.reopened",
        study_id=study.id,
        actor=by,
        details={"revision": study.revision, "reason": reason},
    )
    _supersede_open_work(session, now, study)


def _supersede_open_work(session: Session, at: datetime, study: Study) -> None:
    """End what waits or runs. What is being sent just now is judged when its answer comes."""
    jobs = session.scalars(
        update(Job)
        .where(Job.study_id == study.id, Job.revision < study.revision, Job.state.in_(OPEN))
        .values(state=JobState.SUPERSEDED.value, finished_at=at, lease_until=None)
        .returning(Job.id)
    ).all()
    for job_id in jobs:
        append_event(session, at, "job.superseded", study_id=study.id, job_id=job_id)
    older = (
        select(Result.id)
        .join(Job)
        .where(
            Job.study_id == study.id,
            Job.revision < study.revision,
            Result.withdrawal_id.is_(None),  # what is rejected stays so in any revision
        )
    )
    deliveries = lock_in_order(session, Delivery.result_id.in_(older), Delivery.state.in_(UNSENT))
    superseded = DeliveryState.SUPERSEDED.value
    change_deliveries(session, deliveries, state=superseded, finished_at=at, lease_until=None)
    for delivery_id in deliveries:
        append_event(session, at, "delivery.superseded", study_id=study.id, delivery_id=delivery_id)
    held = select(Job.id).where(Job.study_id == study.id, Job.revision < study.revision)
    reviews = session.execute(
        update(Review)
        .where(Review.job_id.in_(held), Review.state == ReviewState.WAITING.value)
        .values(state=ReviewState.SUPERSEDED.value, decided_at=at)
        .returning(Review.job_id)
    ).all()
    for (job_id,) in reviews:
        append_event(session, at, "review.superseded", study_id=study.id, job_id=job_id)
