"""Deliveries: each result on its way to each destination, on its own (R50)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, func, select, update
from sqlalchemy.orm import Session

from storage.database import Database
from storage.events import Clock, append_event
from storage.models import Delivery, Destination, Job, Result, Study
from storage.records import (
    DeliveryAttempt,
    DeliveryRecord,
    DestinationRecord,
    JsonValue,
    LeasedDelivery,
    LeaseLostError,
    NotFoundError,
)
from storage.states import DELIVERY_TRANSITIONS, DeliveryState, check_transition

ACTIONS = {
    DeliveryState.SENT: "delivery.sent",
    DeliveryState.WARNED: "delivery.warned",
    DeliveryState.FAILED: "delivery.failed",
    DeliveryState.QUEUED: "delivery.retried",
}


class DeliveryStore:
    """The outbox; each method is one transaction."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def set_destinations(self, destinations: Sequence[tuple[str, str]]) -> None:
        """Make the table of destinations (name, kind) what the configuration says.

        A destination that went stays while deliveries refer to it; its breaker state is kept.
        """
        with self._database.transaction() as session:
            known = {row.name: row for row in session.scalars(select(Destination))}
            for name, kind in destinations:
                row = known.pop(name, None)
                if row is None:
                    row = Destination(name=name, kind=kind, failures=0, last_error="")
                    session.add(row)
                row.kind = kind
            for row in known.values():
                used = select(Delivery.id).where(Delivery.destination == row.name).limit(1)
                if session.scalar(used) is None:
                    session.delete(row)

    def destinations(self) -> Sequence[DestinationRecord]:
        """Return every destination with its breaker, by name."""
        with self._database.reading() as session:
            rows = session.scalars(select(Destination).order_by(Destination.name))
            return [_destination_record(row) for row in rows]

    def lease(self, destination: str, *, limit: int, seconds: float) -> Sequence[LeasedDelivery]:
        """Claim what waits for a destination, oldest first; nothing while it is parked."""
        now = self._clock()
        with self._database.transaction() as session:
            row = session.get(Destination, destination)
            if row is None or row.parked_until is not None:
                return []
            wanted = (
                select(Delivery.id)
                .where(
                    Delivery.destination == destination,
                    Delivery.state == DeliveryState.QUEUED.value,
                    Delivery.not_before <= now,
                )
                .order_by(Delivery.result_id)
                .limit(limit)
                .with_for_update(skip_locked=True)
            )
            claim = (
                update(Delivery)
                .where(Delivery.id.in_(wanted), Delivery.state == DeliveryState.QUEUED.value)
                .values(
                    state=DeliveryState.SENDING.value,
                    attempts=Delivery.attempts + 1,
                    token=Delivery.token + 1,
                    lease_until=now + timedelta(seconds=seconds),
                )
                .returning(Delivery.id)
            )
            ids = session.scalars(claim).all()
            rows = session.execute(
                _deliveries().where(Delivery.id.in_(ids)).order_by(Delivery.result_id)
            )
            return [_leased(row) for row in rows]

    def record(self, delivery_id: int, token: int, attempt: DeliveryAttempt) -> None:
        """Write what came of one attempt.

        Raises:
            LeaseLostError: the delivery is not this owner's any more; nothing was written.
        """
        check_transition(DELIVERY_TRANSITIONS, DeliveryState.SENDING, attempt.state)
        now = self._clock()
        again = attempt.state is DeliveryState.QUEUED
        with self._database.transaction() as session:
            statement = (
                update(Delivery)
                .where(*_owned(delivery_id, token))
                .values(
                    state=attempt.state.value,
                    status=attempt.status,
                    error=attempt.error,
                    not_before=now + timedelta(seconds=attempt.retry_in),
                    lease_until=None,
                    finished_at=None if again else now,
                )
                .returning(Delivery.id)
            )
            if session.scalar(statement) is None:
                raise LeaseLostError(f"delivery {delivery_id} belongs to another owner")
            _tell(session, delivery_id, attempt, now)

    def park(self, destination: str, until: datetime, error: str) -> int:
        """Open a destination's breaker: what waits for it is parked; return how many."""
        now = self._clock()
        with self._database.transaction() as session:
            row = _destination(session, destination)
            first = row.parked_until is None
            row.failures += 1
            row.parked_until, row.last_error = until, error
            count = _move_all(session, destination, DeliveryState.QUEUED, DeliveryState.PARKED)
            if first:
                details: dict[str, JsonValue] = {
                    "destination": destination,
                    "deliveries": count,
                    "reason": error,
                }
                append_event(session, now, "destination.parked", details=details)
            return count

    def unpark(self, destination: str) -> int:
        """Close a destination's breaker: what was parked waits to be sent; return how many."""
        now = self._clock()
        with self._database.transaction() as session:
            row = _destination(session, destination)
            row.failures, row.parked_until, row.last_error = 0, None, ""
            session.execute(
                update(Delivery)
                .where(
                    Delivery.destination == destination,
                    Delivery.state == DeliveryState.QUEUED.value,
                )
                .values(not_before=now)
            )
            count = _move_all(
                session, destination, DeliveryState.PARKED, DeliveryState.QUEUED, not_before=now
            )
            details: dict[str, JsonValue] = {"destination": destination, "deliveries": count}
            append_event(session, now, "destination.unparked", details=details)
            return count

    def expire_leases(self) -> int:
        """Return deliveries whose sender fell silent to the queue; return how many."""
        now = self._clock()
        with self._database.transaction() as session:
            ids = session.scalars(
                update(Delivery)
                .where(Delivery.state == DeliveryState.SENDING.value, Delivery.lease_until < now)
                .values(state=DeliveryState.QUEUED.value, lease_until=None, not_before=now)
                .returning(Delivery.id)
            ).all()
            for delivery_id in ids:
                append_event(session, now, "delivery.lease_expired", delivery_id=delivery_id)
            return len(ids)

    def retry(self, delivery_id: int, by: str) -> None:
        """Send a delivery that ended once more (a person's act).

        Raises:
            NotFoundError, TransitionError
        """
        now = self._clock()
        with self._database.transaction() as session:
            row = session.get(Delivery, delivery_id)
            if row is None:
                raise NotFoundError(f"there is no delivery {delivery_id}")
            check_transition(DELIVERY_TRANSITIONS, DeliveryState(row.state), DeliveryState.QUEUED)
            row.state, row.not_before = DeliveryState.QUEUED.value, now
            row.finished_at = None
            append_event(session, now, "delivery.retried", delivery_id=delivery_id, actor=by)

    def list(
        self,
        *,
        study_id: int | None = None,
        destination: str | None = None,
        state: DeliveryState | None = None,
        limit: int = 100,
    ) -> list[DeliveryRecord]:
        """Return deliveries, newest first."""
        query = _deliveries().order_by(Delivery.id.desc()).limit(limit)
        if study_id is not None:
            query = query.where(Job.study_id == study_id)
        if destination is not None:
            query = query.where(Delivery.destination == destination)
        if state is not None:
            query = query.where(Delivery.state == state.value)
        with self._database.reading() as session:
            return [_delivery_record(row) for row in session.execute(query)]

    def counts(self) -> Mapping[DeliveryState, int]:
        """Return how many deliveries are in each state that has any."""
        query = select(Delivery.state, func.count()).group_by(Delivery.state)
        with self._database.reading() as session:
            return {DeliveryState(state): count for state, count in session.execute(query)}


def _owned(delivery_id: int, token: int) -> tuple[ColumnElement[bool], ...]:
    return (
        Delivery.id == delivery_id,
        Delivery.token == token,
        Delivery.state == DeliveryState.SENDING.value,
    )


def _tell(session: Session, delivery_id: int, attempt: DeliveryAttempt, now: datetime) -> None:
    query = select(Job.study_id, Job.id, Delivery.destination, Delivery.attempts)
    query = query.join(Result, Result.job_id == Job.id)
    query = query.join(Delivery, Delivery.result_id == Result.id)
    study_id, job_id, destination, attempts = session.execute(
        query.where(Delivery.id == delivery_id)
    ).one()
    append_event(
        session,
        now,
        ACTIONS[attempt.state],
        study_id=study_id,
        job_id=job_id,
        delivery_id=delivery_id,
        details={
            "destination": destination,
            "attempt": attempts,
            "status": None if attempt.status is None else f"0x{attempt.status:04X}",
            "error": attempt.error,
        },
    )


def _destination(session: Session, name: str) -> Destination:
    row = session.get(Destination, name)
    if row is None:
        raise NotFoundError(f"there is no destination {name}")
    return row


def _move_all(
    session: Session,
    destination: str,
    old: DeliveryState,
    new: DeliveryState,
    **values: Any,  # noqa: ANN401 - further columns
) -> int:
    check_transition(DELIVERY_TRANSITIONS, old, new)
    statement = (
        update(Delivery)
        .where(Delivery.destination == destination, Delivery.state == old.value)
        .values(state=new.value, **values)
        .returning(Delivery.id)
    )
    return len(session.scalars(statement).all())


def _deliveries() -> Select[Delivery, Result, int, str]:
    return (
        select(Delivery, Result, Job.id, Study.study_instance_uid)
        .join(Result, Delivery.result_id == Result.id)
        .join(Job, Result.job_id == Job.id)
        .join(Study, Job.study_id == Study.id)
    )


def _leased(row: Row[Delivery, Result, int, str]) -> LeasedDelivery:
    delivery, result, _, _ = row
    return LeasedDelivery(
        delivery=_delivery_record(row),
        token=delivery.token,
        digest=result.digest,
        transfer_syntax_uid=result.transfer_syntax_uid,
    )


def _delivery_record(row: Row[Delivery, Result, int, str]) -> DeliveryRecord:
    delivery, result, job_id, study_instance_uid = row
    return DeliveryRecord(
        id=delivery.id,
        result_id=delivery.result_id,
        job_id=job_id,
        study_instance_uid=study_instance_uid,
        destination=delivery.destination,
        sop_class_uid=result.sop_class_uid,
        sop_instance_uid=result.sop_instance_uid,
        state=DeliveryState(delivery.state),
        attempts=delivery.attempts,
        status=delivery.status,
        error=delivery.error,
        created_at=delivery.created_at,
        not_before=delivery.not_before,
        finished_at=delivery.finished_at,
    )


def _destination_record(row: Destination) -> DestinationRecord:
    return DestinationRecord(
        name=row.name,
        kind=row.kind,
        failures=row.failures,
        parked_until=row.parked_until,
        last_error=row.last_error,
    )
