"""What was kept and cannot be indexed: rows that say so, with the reason."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.orm import Session

from storage.events import append_event
from storage.models import Quarantine, Receipt
from storage.records import Arrival, QuarantinedInstance
from storage.states import ReceiptOutcome


def set_aside(session: Session, arrival: Arrival, reason: str) -> None:
    """Account for an acknowledged instance that the index refuses: kept, visible, with a reason."""
    new = arrival.new
    keep_not_indexed(session, arrival, reason)
    session.add(
        Receipt(
            at=arrival.at,
            association_id=arrival.association_id,
            sop_instance_uid=new.sop_instance_uid[:64],
            digest=new.digest,
            outcome=ReceiptOutcome.NOT_INDEXED.value,
        )
    )


def keep_not_indexed(session: Session, arrival: Arrival, reason: str) -> None:
    """Write down an acknowledged instance that has no row of its own, so that somebody sees it."""
    new = arrival.new
    item = QuarantinedInstance(
        digest=new.digest,
        size=new.size,
        location=new.location,
        reason=reason,
        listener=new.listener,
        calling_ae=new.calling_ae,
        peer_address=new.peer_address,
    )
    keep_note(session, item, arrival.at, arrival.association_id, action="instance.not_indexed")


def keep_note(
    session: Session,
    item: QuarantinedInstance,
    at: datetime,
    association_id: int | None,
    *,
    action: str = "instance.quarantined",
) -> None:
    """Write down bytes that could not be indexed, within the caller's transaction."""
    session.add(
        Quarantine(
            at=at,
            association_id=association_id,
            listener=item.listener,
            calling_ae=item.calling_ae,
            peer_address=item.peer_address,
            digest=item.digest,
            size=item.size,
            pack=item.location.pack,
            pack_offset=item.location.offset,
            length=item.location.length,
            reason=item.reason,
        )
    )
    append_event(session, at, action, details={"digest": item.digest})
