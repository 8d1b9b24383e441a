"""Notes that results are rejected: which wait to be made, and the deliveries of those that are.

A note is a result of the newest job whose results it names, so that what goes in its place at a
destination that refuses it is found as for any result (`storage.fallbacks`).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import ColumnElement, Row, Select, exists, or_, select
from sqlalchemy.orm import Session

from storage.database import Database
from storage.events import Clock, append_event
from storage.fallbacks import ON_ITS_WAY
from storage.models import Delivery, Job, Recall, Result, Study, Withdrawal
from storage.outbox import add_notes
from storage.queries import study_records
from storage.recall_records import PendingWithdrawal, RejectedResult, WithdrawalRecord
from storage.records import NewResult
from storage.states import DeliveryState, Reached

WAITS: Final = select(Withdrawal.id).where(Withdrawal.made_at.is_(None))
_THERE: Final = Delivery.reached != Reached.NO.value


class WithdrawalStore:
    """Hands out notes to be made, and takes them; each method is one transaction."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def pending(self, *, limit: int) -> Sequence[PendingWithdrawal]:
        """Return notes to be made, oldest first, of which nothing is being sent just now.

        What was superseded stands until its destination has all that is on its way there.
        """
        if not self._database.finds(WAITS):
            return []
        query = _withdrawals().where(
            Withdrawal.made_at.is_(None),
            ~_being_sent(),
            or_(Withdrawal.recall_id.is_not(None), ~_on_its_way()),
        )
        with self._database.reading() as session:
            rows = session.execute(query.order_by(Withdrawal.id).limit(limit)).all()
            return [_pending(session, row) for row in rows]

    def made(self, withdrawal_id: int, notes: Sequence[Sequence[NewResult]]) -> Sequence[int]:
        """Keep notes and queue the first of each lot; its others go in its place.

        Return the deliveries. Once made, or with nothing to be told, a withdrawal is done with:
        again nothing happens.
        """
        now = self._clock()
        with self._database.transaction() as session:
            row = session.get_one(Withdrawal, withdrawal_id, with_for_update={"key_share": True})
            if row.made_at is not None:
                return []
            row.made_at, row.error = now, ""
            job_id = _newest_job(session, withdrawal_id)
            deliveries: Sequence[int] = []
            if job_id is not None:
                deliveries = [
                    delivery
                    for lot in notes
                    for delivery in add_notes(session, job_id, row, lot, now)
                ]
            _tell_made(session, row, now, job_id, deliveries)
            return deliveries

    def failed(self, withdrawal_id: int, error: str) -> None:
        """Write why a note could not be made; it goes on waiting."""
        with self._database.transaction() as session:
            session.get_one(Withdrawal, withdrawal_id).error = error

    def list(self, *, study_id: int) -> Sequence[WithdrawalRecord]:
        """Return who is told of a study's recalled results, oldest first."""
        query = _withdrawals().where(Withdrawal.study_id == study_id).order_by(Withdrawal.id)
        with self._database.reading() as session:
            return [_record(row) for row in session.execute(query)]


def _being_sent() -> ColumnElement[bool]:
    sending = exists().where(
        Delivery.withdrawal_id == Withdrawal.id, Delivery.state == DeliveryState.SENDING.value
    )
    return sending.correlate(Withdrawal)


def _on_its_way() -> ColumnElement[bool]:
    going = exists().where(
        Job.study_id == Withdrawal.study_id,
        Result.job_id == Job.id,
        Delivery.result_id == Result.id,
        Delivery.destination == Withdrawal.destination,
        Delivery.state.in_([state.value for state in ON_ITS_WAY]),
    )
    return going.correlate(Withdrawal)


def _withdrawals() -> Select[Withdrawal, Recall | None, str]:
    return (
        select(Withdrawal, Recall, Study.study_instance_uid)
        .outerjoin(Recall, Withdrawal.recall_id == Recall.id)
        .join(Study, Withdrawal.study_id == Study.id)
    )


def _record(row: Row[Withdrawal, Recall | None, str]) -> WithdrawalRecord:
    withdrawal, recall, study_instance_uid = row
    return WithdrawalRecord(
        id=withdrawal.id,
        recall_id=withdrawal.recall_id,
        study_instance_uid=study_instance_uid,
        destination=withdrawal.destination,
        at=withdrawal.at,
        made_at=withdrawal.made_at,
        error=withdrawal.error,
        by=recall.by if recall else "",
        reason=recall.reason if recall else "",
        code=recall.code if recall else "",
    )


def _pending(session: Session, row: Row[Withdrawal, Recall | None, str]) -> PendingWithdrawal:
    withdrawal = row[0]
    found = session.execute(
        select(Result, Job, Delivery.reached)
        .join(Delivery, Delivery.result_id == Result.id)
        .join(Job, Result.job_id == Job.id)
        .where(Delivery.withdrawal_id == withdrawal.id, _THERE)
        .order_by(Result.id)
    ).all()
    newest = found[-1][1] if found else None
    (study,) = study_records(session, select(Study).where(Study.id == withdrawal.study_id))
    return PendingWithdrawal(
        withdrawal=_record(row),
        study=study,
        engine=newest.engine if newest else "",
        engine_version=newest.engine_version if newest else "",
        engine_digest=newest.engine_digest if newest else "",
        rejected=tuple(_rejected(result, reached) for result, _, reached in found),
    )


def _rejected(row: Result, reached: str) -> RejectedResult:
    return RejectedResult(
        taken=reached == Reached.YES.value,
        sop_class_uid=row.sop_class_uid,
        sop_instance_uid=row.sop_instance_uid,
        series_instance_uid=row.series_instance_uid,
        digest=row.digest,
        deleted=row.deletion_id is not None,
    )


def _newest_job(session: Session, withdrawal_id: int) -> int | None:
    query = (
        select(Result.job_id)
        .join(Delivery, Delivery.result_id == Result.id)
        .where(Delivery.withdrawal_id == withdrawal_id, _THERE)
        .order_by(Result.id.desc())
        .limit(1)
    )
    return session.scalar(query)


def _tell_made(
    session: Session, row: Withdrawal, at: datetime, job_id: int | None, deliveries: Sequence[int]
) -> None:
    append_event(
        session,
        at,
        "withdrawal.made" if deliveries else "withdrawal.not_needed",
        study_id=row.study_id,
        job_id=job_id,
        delivery_id=deliveries[0] if deliveries else None,
        details={"destination": row.destination, "recall": row.recall_id},
    )
