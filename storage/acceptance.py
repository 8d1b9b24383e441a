"""What destinations do with the SOP classes that are sent to them, learnt from their answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from storage.leasing import ARRIVED
from storage.lots import chunks_of
from storage.models import Delivery, Result
from storage.records import ClassRecord
from storage.states import DeliveryState

_TAKEN: Final = Delivery.state.in_(ARRIVED)
_REFUSED: Final = Delivery.state.in_([DeliveryState.FAILED.value, DeliveryState.REPLACED.value])
_CLASSES: Final = (
    select(
        Delivery.destination,
        Result.sop_class_uid,
        func.count().filter(_TAKEN),
        func.count().filter(_REFUSED),
        func.max(Delivery.finished_at).filter(_TAKEN),
        func.max(Delivery.finished_at).filter(_REFUSED),
        func.max(Delivery.id).filter(_REFUSED),
    )
    .join(Result, Delivery.result_id == Result.id)
    .where(or_(_TAKEN, _REFUSED))
    .group_by(Delivery.destination, Result.sop_class_uid)
    .order_by(Delivery.destination, Result.sop_class_uid)
)


def acceptance(session: Session) -> Sequence[ClassRecord]:
    """Return what each destination did with each SOP class, and why it refused one last."""
    rows = session.execute(_CLASSES).all()
    errors = _errors(session, [row[-1] for row in rows if row[-1] is not None])
    return [
        ClassRecord(
            destination=destination,
            sop_class_uid=sop_class_uid,
            taken=taken,
            refused=refused,
            last_taken_at=last_taken_at,
            last_refused_at=last_refused_at,
            error="" if refusal is None else errors[refusal],
        )
        for (
            destination,
            sop_class_uid,
            taken,
            refused,
            last_taken_at,
            last_refused_at,
            refusal,
        ) in rows
    ]


def _errors(session: Session, ids: Sequence[int]) -> dict[int, str]:
    query = select(Delivery.id, Delivery.error)
    return {
        delivery_id: error
        for chunk in chunks_of(ids)
        for delivery_id, error in session.execute(query.where(Delivery.id.in_(chunk)))
    }
