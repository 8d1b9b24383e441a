"""What is past its deadline, each told once (invariant 9).

Notes that results are rejected are among it: one that cannot be made, and one that is refused,
which leaves a result that was taken back where people see it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Select, exists, func, select
from sqlalchemy.orm import Session

from storage.database import Database
from storage.events import Clock, append_event
from storage.models import Delivery, Event, Job, Result, Review, Study, Withdrawal
from storage.states import DeliveryState, JobState, ReviewState, StudyState

ACTION = "alert.overdue"


@dataclass(frozen=True, slots=True, kw_only=True)
class OverdueLimits:
    """How long an item may stay in a state that is not an end. Seconds.

    `study` counts from the moment a study should have been complete; the others from their
    creation. A `review` waits for a person; a note to be made has as long as a
    delivery.
    """

    study: float
    job: float
    delivery: float
    review: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Overdue:
    """One item past its deadline, for an alert. `since` is the moment its time began."""

    kind: str  # "study", "job", "delivery", "note" (a refused one), "withdrawal" or "review"
    id: int
    study_id: int
    state: str
    since: datetime
    delivery_id: int | None = None  # on whose row it is told
    job_id: int | None = None  # where it is a job or a review


class OverdueStore:
    """Finds items past their deadline and writes one alert for each onto its timeline."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def raise_alerts(self, limits: OverdueLimits) -> Sequence[Overdue]:
        """Return what is past its deadline and was not told before; a second call returns nothing.

        A study is told again when a new instance came after the alert; a note that is refused is
        told at once.
        """
        now = self._clock()
        with self._database.transaction() as session:
            found = [
                *_studies(session, now - timedelta(seconds=limits.study)),
                *_jobs(session, now - timedelta(seconds=limits.job)),
                *_deliveries(session, now - timedelta(seconds=limits.delivery)),
                *_refused_notes(session),
                *_withdrawals(session, now - timedelta(seconds=limits.delivery), now),
                *_reviews(session, now - timedelta(seconds=limits.review), now),
            ]
            for item in found:
                append_event(
                    session,
                    now,
                    ACTION,
                    study_id=item.study_id,
                    job_id=item.job_id,
                    delivery_id=item.delivery_id,
                    details={
                        "kind": item.kind,
                        "state": item.state,
                        "seconds": round((now - item.since).total_seconds()),
                    },
                )
            return found


def _studies(session: Session, before: datetime) -> list[Overdue]:
    told = exists().where(
        Event.study_id == Study.id,
        Event.action == ACTION,
        Event.job_id.is_(None),
        Event.delivery_id.is_(None),
        Event.at > Study.last_received_at,
    )
    states = (StudyState.RECEIVING.value, StudyState.COMPLETE.value)
    query = select(Study.id, Study.id, Study.state, Study.complete_after).where(
        Study.state.in_(states), Study.complete_after < before, ~told
    )
    return _found(session, "study", query)


def _jobs(session: Session, before: datetime) -> list[Overdue]:
    states = (JobState.QUEUED.value, JobState.RUNNING.value)
    query = select(Job.id, Job.study_id, Job.state, Job.created_at).where(
        Job.state.in_(states), Job.created_at < before, ~_told(Event.job_id == Job.id)
    )
    return [replace(item, job_id=item.id) for item in _found(session, "job", query)]


def _deliveries(session: Session, before: datetime) -> list[Overdue]:
    states = (
        DeliveryState.QUEUED.value,
        DeliveryState.SENDING.value,
        DeliveryState.PARKED.value,
    )
    query = (
        select(Delivery.id, Job.study_id, Delivery.state, Delivery.created_at)
        .join(Result, Delivery.result_id == Result.id)
        .join(Job, Result.job_id == Job.id)
        .where(
            Delivery.state.in_(states),
            Delivery.created_at < before,
            ~_told(Event.delivery_id == Delivery.id),
        )
    )
    return _with_delivery(_found(session, "delivery", query))


def _refused_notes(session: Session) -> list[Overdue]:
    """Return notes that were refused: what they name goes on being shown, whatever goes instead."""
    ended = func.coalesce(Delivery.finished_at, Delivery.created_at)
    told = exists().where(
        Event.study_id == Job.study_id,
        Event.action == ACTION,
        Event.delivery_id == Delivery.id,
        Event.at >= ended,
    )
    query = (
        select(Delivery.id, Job.study_id, Delivery.state, ended)
        .join(Result, Delivery.result_id == Result.id)
        .join(Job, Result.job_id == Job.id)
        .where(
            Delivery.state.in_((DeliveryState.FAILED.value, DeliveryState.REPLACED.value)),
            Result.withdrawal_id.is_not(None),
            ~told,
        )
    )
    return _with_delivery(_found(session, "note", query))


def _withdrawals(session: Session, before: datetime, now: datetime) -> list[Overdue]:
    """Return whose note is not made yet, and mark them as told; a delivery of each is named."""
    query = (
        select(Withdrawal, func.min(Delivery.id))
        .join(Delivery, Delivery.withdrawal_id == Withdrawal.id)
        .where(
            Withdrawal.made_at.is_(None),
            Withdrawal.alerted_at.is_(None),
            Withdrawal.at < before,
        )
        .group_by(Withdrawal.id)
        .order_by(Withdrawal.id)
    )
    found = []
    for row, delivery_id in session.execute(query).all():
        row.alerted_at = now
        item = Overdue(
            kind="withdrawal",
            id=row.id,
            study_id=row.study_id,
            state="not made" if row.error else "waiting",
            since=row.at,
            delivery_id=delivery_id,
        )
        found.append(item)
    return found


def _with_delivery(found: list[Overdue]) -> list[Overdue]:
    return [replace(item, delivery_id=item.id) for item in found]


def _reviews(session: Session, before: datetime, now: datetime) -> list[Overdue]:
    query = (
        select(Review, Job.study_id)
        .join(Job, Review.job_id == Job.id)
        .where(
            Review.state == ReviewState.WAITING.value,
            Review.created_at < before,
            Review.told_at.is_(None),
        )
        .order_by(Review.id)
    )
    found = []
    for review, study_id in session.execute(query):
        review.told_at = now
        found.append(
            Overdue(
                kind="review",
                id=review.id,
                study_id=study_id,
                state=review.state,
                since=review.created_at,
                job_id=review.job_id,
            )
        )
    return found


def _told(same: ColumnElement[bool]) -> ColumnElement[bool]:
    return exists().where(Event.action == ACTION, same)


def _found(session: Session, kind: str, query: Select[int, int, str, datetime]) -> list[Overdue]:
    return [
        Overdue(kind=kind, id=item, study_id=study_id, state=state, since=since)
        for item, study_id, state, since in session.execute(query)
    ]
