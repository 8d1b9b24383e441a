"""Deliveries: each result on its way to each destination, on its own (R50)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import ColumnElement, Row, Select, bindparam, func, select, update
from sqlalchemy.orm import Session

from storage.acceptance import acceptance
from storage.arrivals import after, further
from storage.database import Database
from storage.events import Clock
from storage.fallbacks import Verdict, follow, judge_end
from storage.gone import refuse_gone_result
from storage.lots import chunks_of
from storage.models import Delivery, Destination, Job, Result, Study
from storage.owners import Owner, by_study, lease_lost, owner_of, tell_studies
from storage.records import (
    ClassRecord,
    DeliveryAttempt,
    DeliveryRecord,
    DestinationRecord,
    JsonValue,
    LeasedDelivery,
    NotFoundError,
)
from storage.revisions import change_deliveries, lock_in_order
from storage.states import DELIVERY_TRANSITIONS, DeliveryState, Reached, check_transition

ACTIONS: Final[Mapping[DeliveryState, str]] = {
    DeliveryState.SENT: "delivery.sent",
    DeliveryState.WARNED: "delivery.warned",
    DeliveryState.FAILED: "delivery.failed",
    DeliveryState.QUEUED: "delivery.retried",
    DeliveryState.SUPERSEDED: "delivery.superseded",
    DeliveryState.REPLACED: "delivery.replaced",
    DeliveryState.WITHDRAWN: "delivery.withdrawn",
}
NEEDS_REVISION: Final = frozenset({DeliveryState.QUEUED, DeliveryState.FAILED})
"""Ends of an attempt after which something may be sent: a newer revision, or a recall, forbids it.
"""
WAITING: Final = select(Delivery.id).where(
    Delivery.destination == bindparam("destination"),
    Delivery.state == DeliveryState.QUEUED.value,
    Delivery.not_before <= bindparam("now"),
)
EXPIRED: Final = select(Delivery.id).where(
    Delivery.state == DeliveryState.SENDING.value, Delivery.lease_until < bindparam("now")
)
PARKED: Final = select(Destination.name).where(
    Destination.name == bindparam("destination"), Destination.parked_until <= bindparam("now")
)


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
        if not self._database.finds(WAITING, now=now, destination=destination):
            return []
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
                .with_for_update(skip_locked=True, key_share=True)
                .cte("wanted")
                .prefix_with("MATERIALIZED", dialect="postgresql")  # looked for once: never more
            )
            claim = (
                update(Delivery)
                .where(
                    Delivery.id.in_(select(wanted.c.id)),
                    Delivery.state == DeliveryState.QUEUED.value,
                )
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

        What would wait to be sent again is SUPERSEDED when the study moved on meanwhile, WITHDRAWN
        when it was recalled. What FAILED is REPLACED where its profile has another object for its
        place, and that is sent.

        Raises:
            LeaseLostError: the delivery is not this owner's any more; nothing was written.
        """
        check_transition(DELIVERY_TRANSITIONS, DeliveryState.SENDING, attempt.state)
        now = self._clock()
        with self._database.transaction() as session:
            owner = owner_of(session, delivery_id)
            state = attempt.state
            over = owner.over(session) if state in NEEDS_REVISION else None
            if over is not None and state is DeliveryState.QUEUED:
                state = over
            verdict = (
                Verdict(state=state)
                if over is not None
                else judge_end(session, owner, state, stuck=attempt.stuck)
            )
            again = state is DeliveryState.QUEUED
            statement = (
                update(Delivery)
                .where(*_owned(delivery_id, token))
                .values(
                    state=verdict.state.value,
                    reached=further(after(attempt.state, attempt.reached)),
                    status=attempt.status,
                    error=attempt.error,
                    not_before=now + timedelta(seconds=attempt.retry_in if again else 0.0),
                    lease_until=None,
                    finished_at=None if again else now,
                )
                .returning(Delivery.attempts)
            )
            attempts = session.scalar(statement)
            if attempts is None:
                raise lease_lost(delivery_id)
            _tell_end(session, owner, verdict, now, attempts=attempts, status=attempt.status)
            follow(session, owner, verdict, now)

    def park(self, destination: str, until: datetime, error: str) -> int:
        """Open a destination's breaker: what waits for it is parked; return how many."""
        now = self._clock()
        with self._database.transaction() as session:
            row = _destination(session, destination)
            first = row.parked_until is None
            row.failures += 1
            row.parked_until, row.last_error = until, error
            ids = lock_in_order(session, *_waiting(destination, DeliveryState.QUEUED))
            change_deliveries(session, ids, state=DeliveryState.PARKED.value)
            counts = by_study(session, ids)
            tell_studies(session, now, "destination.parked", destination, counts, whole=first)
            return len(ids)

    def to_ask(self, destination: str) -> bool:
        """Say whether a destination is parked, and its time has come to be asked."""
        return self._database.finds(PARKED, now=self._clock(), destination=destination)

    def unpark(self, destination: str) -> int:
        """Close a destination's breaker: what was parked waits to be sent; return how many."""
        now = self._clock()
        with self._database.transaction() as session:
            row = _destination(session, destination)
            row.failures, row.parked_until, row.last_error = 0, None, ""
            both = (DeliveryState.QUEUED, DeliveryState.PARKED)
            ids = lock_in_order(session, *_waiting(destination, *both))
            parked = _in_state(session, ids, DeliveryState.PARKED)
            change_deliveries(session, ids, state=DeliveryState.QUEUED.value, not_before=now)
            counts = by_study(session, parked)
            tell_studies(session, now, "destination.unparked", destination, counts, whole=True)
            return len(parked)

    def expire_leases(self) -> int:
        """Return deliveries whose sender fell silent to the queue; return how many ended so.

        Those of an older revision of their study are SUPERSEDED, those recalled WITHDRAWN.
        """
        now = self._clock()
        if not self._database.finds(EXPIRED, now=now):
            return 0
        expired = (Delivery.state == DeliveryState.SENDING.value, Delivery.lease_until < now)
        with self._database.transaction() as session:
            ids = session.scalars(select(Delivery.id).where(*expired)).all()
            owners = [owner_of(session, delivery_id) for delivery_id in ids]
            owners.sort(key=lambda owner: owner.study_id)
            over = {owner.delivery_id: owner.over(session) for owner in owners}
            count = 0
            for owner in sorted(owners, key=lambda owner: owner.delivery_id):
                state = over[owner.delivery_id] or DeliveryState.QUEUED
                waits = state is DeliveryState.QUEUED
                statement = (
                    update(Delivery)
                    .where(Delivery.id == owner.delivery_id, *expired)
                    .values(
                        state=state.value,
                        reached=further(Reached.PERHAPS),
                        lease_until=None,
                        not_before=now,
                        finished_at=None if waits else now,
                    )
                    .returning(Delivery.attempts)
                )
                attempts = session.scalar(statement)
                if attempts is None:
                    continue  # its sender came back after all
                action = "delivery.lease_expired" if waits else ACTIONS[state]
                owner.tell(session, now, action, attempt=attempts)
                count += 1
            return count

    def retry(self, delivery_id: int, by: str) -> None:
        """Send a delivery that ended once more (a person's act).

        Raises:
            NotFoundError, TransitionError
            SupersededError: the study is at a newer revision.
            RecalledError: the result was recalled.
            BytesDeletedError: the result object is not there any more.
        """
        now = self._clock()
        with self._database.transaction() as session:
            row = session.get(Delivery, delivery_id)
            if row is None:
                raise NotFoundError(f"there is no delivery {delivery_id}")
            owner = owner_of(session, delivery_id)
            owner.refuse_over(session)
            refuse_gone_result(session, row.result_id)
            session.refresh(row, with_for_update={"key_share": True})
            check_transition(DELIVERY_TRANSITIONS, DeliveryState(row.state), DeliveryState.QUEUED)
            row.state, row.not_before = DeliveryState.QUEUED.value, now
            row.status, row.error, row.finished_at = None, "", None
            owner.tell(session, now, "delivery.retried", actor=by)

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

    def sop_classes(self) -> Sequence[ClassRecord]:
        """Return what each destination did with each SOP class that was sent to it (VIEW-01)."""
        with self._database.reading() as session:
            return acceptance(session)

    def counts(self) -> Mapping[DeliveryState, int]:
        """Return how many deliveries are in each state that has any."""
        query = select(Delivery.state, func.count()).group_by(Delivery.state)
        with self._database.reading() as session:
            return {DeliveryState(state): count for state, count in session.execute(query)}


def _tell_end(
    session: Session,
    owner: Owner,
    verdict: Verdict,
    now: datetime,
    *,
    attempts: int,
    status: int | None,
) -> None:
    """Write onto the timeline how an attempt ended, and what goes in its place."""
    action, code = ACTIONS[verdict.state], None if status is None else f"0x{status:04X}"
    if verdict.instead:
        instead: list[JsonValue] = list(verdict.instead)
        owner.tell(session, now, action, attempt=attempts, status=code, instead=instead)
    else:
        owner.tell(session, now, action, attempt=attempts, status=code)


def _owned(delivery_id: int, token: int) -> tuple[ColumnElement[bool], ...]:
    return (
        Delivery.id == delivery_id,
        Delivery.token == token,
        Delivery.state == DeliveryState.SENDING.value,
    )


def _waiting(destination: str, *states: DeliveryState) -> tuple[ColumnElement[bool], ...]:
    values = [state.value for state in states]
    return (Delivery.destination == destination, Delivery.state.in_(values))


def _in_state(session: Session, ids: Sequence[int], state: DeliveryState) -> list[int]:
    query = select(Delivery.id).where(Delivery.state == state.value)
    return [
        delivery_id
        for chunk in chunks_of(ids)
        for delivery_id in session.scalars(query.where(Delivery.id.in_(chunk)))
    ]


def _destination(session: Session, name: str) -> Destination:
    row = session.get(Destination, name, with_for_update=True)
    if row is None:
        raise NotFoundError(f"there is no destination {name}")
    return row


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
