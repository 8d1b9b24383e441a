"""What goes in the place of a result object that its destination refused.

The deliveries of one job to one destination are judged together, whenever one of them ends. What is
held in reserve is sent when something that it stands in for was refused, and is not needed once
nothing that it stands in for is on its way any more: it never outlasts the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from storage.models import Delivery, Result
from storage.owners import Owner
from storage.revisions import change_deliveries, lock_in_order
from storage.states import DeliveryState

ON_ITS_WAY: Final = frozenset({DeliveryState.QUEUED, DeliveryState.SENDING, DeliveryState.PARKED})
TAKEN: Final = frozenset({DeliveryState.SENT, DeliveryState.WARNED, DeliveryState.CONFIRMED})
CAN_BE_SENT: Final = frozenset({DeliveryState.RESERVED, DeliveryState.NOT_NEEDED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where a delivery stands. `fallbacks` are results; `kept` says that its bytes are there."""

    delivery_id: int
    result_id: int
    state: DeliveryState
    fallbacks: tuple[tuple[int, ...], ...] = ()
    kept: bool = True

    @property
    def stands_in(self) -> bool:
        """Whether it can be there, or be on its way, in the place of another."""
        return self.state in ON_ITS_WAY | TAKEN or (self.state in CAN_BE_SENT and self.kept)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What follows from the end of a delivery: its state, and the others that change.

    `instead` are the deliveries in its place, `released` those of them that were in reserve.
    """

    state: DeliveryState
    instead: tuple[int, ...] = ()
    released: tuple[int, ...] = ()
    not_needed: tuple[int, ...] = ()


def judge(
    ended: int, state: DeliveryState, standings: Sequence[Standing], *, stuck: bool = False
) -> Verdict:
    """Judge an attempt among the deliveries of its job to its destination; a pure function.

    What is `stuck` keeps its state, and what stands in for it is released as if it had failed.
    """
    own = next(item for item in standings if item.delivery_id == ended)
    others = [item for item in standings if item.delivery_id != ended]
    lost = state is DeliveryState.FAILED
    instead = _in_place_of(own, others) if lost or stuck else ()
    released = {item.delivery_id for item in instead if item.state in CAN_BE_SENT}
    going = [own] if state in ON_ITS_WAY else []
    going += [item for item in others if item.state in ON_ITS_WAY or item.delivery_id in released]
    wanted = {result for item in going for group in item.fallbacks for result in group}
    return Verdict(
        state=DeliveryState.REPLACED if instead and lost else state,
        instead=tuple(item.delivery_id for item in instead) if lost or released else (),
        released=tuple(sorted(released)),
        not_needed=tuple(
            item.delivery_id
            for item in others
            if item.state is DeliveryState.RESERVED
            and item.delivery_id not in released
            and item.result_id not in wanted
        ),
    )


def _in_place_of(refused: Standing, others: Sequence[Standing]) -> tuple[Standing, ...]:
    """Return the first of its fallbacks of which anything was not refused itself."""
    for group in refused.fallbacks:
        found = tuple(item for item in others if item.result_id in group and item.stands_in)
        if found:
            return found
    return ()


def judge_end(
    session: Session, owner: Owner, state: DeliveryState, *, stuck: bool = False
) -> Verdict:
    """Judge an attempt by its row and those beside it.

    What may change with it is locked, in order, its own row too. The study's revision must be held
    unless the attempt ended well: nothing may be released that a newer revision takes the place of.
    """
    if state is DeliveryState.QUEUED and not stuck:
        return Verdict(state=state)
    found = _standings(session, owner)
    reserve = any(item.state is DeliveryState.RESERVED for item in found)
    if not reserve and state is not DeliveryState.FAILED:
        return Verdict(state=state)
    if not any(item.fallbacks for item in found):
        return Verdict(state=state)
    lock_in_order(session, Delivery.id.in_([item.delivery_id for item in found]))
    return judge(owner.delivery_id, state, _standings(session, owner), stuck=stuck)


def follow(session: Session, owner: Owner, verdict: Verdict, now: datetime) -> None:
    """Write what a verdict says of the other deliveries; their rows are locked."""
    change_deliveries(
        session,
        verdict.released,
        state=DeliveryState.QUEUED.value,
        not_before=now,
        status=None,
        error="",
        finished_at=None,
    )
    change_deliveries(
        session, verdict.not_needed, state=DeliveryState.NOT_NEEDED.value, finished_at=now
    )
    for delivery_id in verdict.released:
        owner.of(delivery_id).tell(session, now, "delivery.released", instead_of=owner.delivery_id)
    for delivery_id in verdict.not_needed:
        owner.of(delivery_id).tell(session, now, "delivery.not_needed")


def _standings(session: Session, owner: Owner) -> list[Standing]:
    return [
        Standing(
            delivery_id=delivery_id,
            result_id=result_id,
            state=DeliveryState(state),
            fallbacks=tuple(map(tuple, fallbacks)),
            kept=deletion_id is None,
        )
        for delivery_id, result_id, state, fallbacks, deletion_id in session.execute(
            _BESIDE.where(Result.job_id == owner.job_id, Delivery.destination == owner.destination)
        )
    ]


_BESIDE: Final[Select[int, int, str, list[list[int]], int | None]] = (
    select(Delivery.id, Delivery.result_id, Delivery.state, Delivery.fallbacks, Result.deletion_id)
    .join(Result, Delivery.result_id == Result.id)
    .order_by(Delivery.id)
)
