"""Whether a destination has an object, or may have it: by every attempt so far, not the last alone.

What was sent and is queued again is there all the same; so may be what had no answer, and what was
being sent as its sender died.
"""

from __future__ import annotations

from sqlalchemy import ColumnElement, case, literal, or_

from storage.models import Delivery
from storage.states import DeliveryState, Reached


def reached() -> ColumnElement[bool]:
    """Return the condition for what is there, may be there, or may be in a moment."""
    return or_(Delivery.state == DeliveryState.SENDING.value, Delivery.reached != Reached.NO.value)


def further(attempt: Reached) -> ColumnElement[str]:
    """Return the value of `reached` after one more attempt; it never goes back."""
    if attempt is Reached.NO:
        return Delivery.reached.expression
    if attempt is Reached.YES:
        return literal(attempt.value)
    return case((Delivery.reached == Reached.YES.value, Reached.YES.value), else_=attempt.value)


def after(state: DeliveryState, attempt: Reached) -> Reached:
    """Return what an attempt that ended in this state says; a success says it by itself."""
    taken = state in {DeliveryState.SENT, DeliveryState.WARNED}
    return Reached.YES if taken else attempt
