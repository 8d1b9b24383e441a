"""Whose delivery it is: study revision and job, and the events that go onto their timeline."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from storage.errors import LeaseLostError, RecalledError
from storage.events import append_event
from storage.lots import chunks_of
from storage.models import Delivery, Job, Result
from storage.records import JsonValue
from storage.revisions import hold_revision, refuse_older
from storage.states import DeliveryState


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """The study revision and job that a delivery belongs to."""

    delivery_id: int
    destination: str
    job_id: int
    revision: int
    study_id: int

    def over(self, session: Session) -> DeliveryState | None:
        """Hold the study's revision, and say how a delivery ends that may not be sent any more.

        WITHDRAWN if its result was recalled, SUPERSEDED if a newer revision took its place; None if
        it may be sent. A note that others are rejected is of every revision.
        """
        revision = hold_revision(session, self.study_id)
        recalled, note = session.execute(_MARKS.where(Delivery.id == self.delivery_id)).one()
        if recalled is not None:
            return DeliveryState.WITHDRAWN
        if note is None and revision != self.revision:
            return DeliveryState.SUPERSEDED
        return None

    def refuse_over(self, session: Session) -> None:
        """Hold the study's revision, and refuse to send what may not be sent any more.

        Raises:
            SupersededError: the study is at a newer revision.
            RecalledError: the result was recalled.
        """
        over = self.over(session)
        if over is DeliveryState.WITHDRAWN:
            raise RecalledError(f"the result of delivery {self.delivery_id} was recalled")
        if over is DeliveryState.SUPERSEDED:
            refuse_older(session, self.study_id, self.revision)

    def of(self, delivery_id: int) -> Owner:
        """Return the owner of another delivery of the same job to the same destination."""
        return replace(self, delivery_id=delivery_id)

    def tell(
        self,
        session: Session,
        now: datetime,
        action: str,
        *,
        actor: str = "node",
        **details: JsonValue,
    ) -> None:
        """Write an event of the delivery onto the study's timeline."""
        append_event(
            session,
            now,
            action,
            study_id=self.study_id,
            job_id=self.job_id,
            delivery_id=self.delivery_id,
            actor=actor,
            details={"destination": self.destination, **details},
        )


def owner_of(session: Session, delivery_id: int) -> Owner:
    """Return whose delivery this is.

    Raises:
        LeaseLostError: there is no such delivery.
    """
    row = session.execute(_OWNERS.where(Delivery.id == delivery_id)).first()
    if row is None:
        raise lease_lost(delivery_id)
    _, destination, job_id, revision, study_id = row
    return Owner(
        delivery_id=delivery_id,
        destination=destination,
        job_id=job_id,
        revision=revision,
        study_id=study_id,
    )


_OWNERS: Final = (
    select(Delivery.id, Delivery.destination, Job.id, Job.revision, Job.study_id)
    .join(Result, Delivery.result_id == Result.id)
    .join(Job, Result.job_id == Job.id)
)


_MARKS: Final = select(Result.recall_id, Result.withdrawal_id).join(
    Delivery, Delivery.result_id == Result.id
)


def lease_lost(delivery_id: int) -> LeaseLostError:
    """Return the error for a delivery that somebody else owns by now."""
    return LeaseLostError(f"delivery {delivery_id} belongs to another owner")


def tell_studies(
    session: Session,
    now: datetime,
    action: str,
    destination: str,
    counts: Mapping[int, int],
    *,
    whole: bool,
) -> None:
    """Write an event onto the timeline of each study, and one for the destination as a whole."""
    if whole:
        details: dict[str, JsonValue] = {
            "destination": destination,
            "deliveries": sum(counts.values()),
        }
        append_event(session, now, action, details=details)
    for study_id, count in sorted(counts.items()):
        details = {"destination": destination, "deliveries": count}
        append_event(session, now, action, study_id=study_id, details=details)


def by_study(session: Session, ids: Sequence[int]) -> Mapping[int, int]:
    """Return how many of the deliveries belong to each study."""
    counts: Counter[int] = Counter()
    for chunk in chunks_of(ids):
        owners = session.execute(_OWNERS.where(Delivery.id.in_(chunk)))
        counts.update(study_id for *_, study_id in owners)
    return counts
