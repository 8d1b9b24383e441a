"""Writes down that bytes go, by which rule: rows, and a line on the study's timeline, together.

Nothing is deleted here, and nothing may be deleted that is not written down here first.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from storage.events import append_event
from storage.expired import (
    cutoff_of,
    expired_quarantine,
    expired_results,
    kept_instances,
    may_go,
)
from storage.leftovers import look_through
from storage.lots import chunks_of
from storage.models import Deletion, Instance, Pack, Quarantine, Result, Study
from storage.pack_format import PackRecord
from storage.packs import PackStore
from storage.retention_records import Planned, RetentionPolicy
from storage.states import DeletionKind, DeletionRule


def bury(
    session: Session, packs: PackStore, item: Planned, policy: RetentionPolicy, now: datetime
) -> int:
    """Write down that an item of a plan goes, if its rule still lets it; return how many did."""
    cutoff = cutoff_of(policy, item.rule, now)
    if cutoff is None:
        return 0
    if item.kind is DeletionKind.DUPLICATES:
        return _bury_duplicates(session, packs, str(item.key), now)
    if item.kind is DeletionKind.QUARANTINE:
        return _bury_quarantine(session, int(item.key), item.rule, cutoff, now)
    study = session.get(Study, int(item.key), with_for_update={"key_share": True})
    if study is None:
        return 0
    if item.kind is DeletionKind.RESULTS:
        return _bury_results(session, study, item.rule, cutoff, now)
    return _bury_instances(session, packs, study, item.rule, cutoff, now)


def _bury_instances(  # noqa: PLR0917 - what the item of a plan says
    session: Session,
    packs: PackStore,
    study: Study,
    rule: DeletionRule,
    cutoff: datetime,
    now: datetime,
) -> int:
    still = select(Study.id).where(Study.id == study.id, *may_go(rule, cutoff))
    if session.scalar(still) is None:
        return 0
    kept = kept_instances(session, study.id)
    here = [entry for entry in kept if packs.path_of(entry[0]).exists()]
    if not here:
        return 0
    row = _deletion(
        session,
        DeletionKind.INSTANCES,
        rule,
        now,
        study_id=study.id,
        count=sum(count for _, count, _ in here),
        size=sum(size for _, _, size in here),
    )
    for names in chunks_of([name for name, _, _ in here]):
        session.execute(
            update(Instance)
            .where(
                Instance.study_id == study.id,
                Instance.deletion_id.is_(None),
                Instance.pack.in_(names),
            )
            .values(deletion_id=row.id)
        )
    if len(here) == len(kept):
        study.emptied_at = now
    _tell(session, "study.bytes_deleted", row)
    return 1


def _bury_results(
    session: Session, study: Study, rule: DeletionRule, cutoff: datetime, now: datetime
) -> int:
    found = session.execute(expired_results(rule, cutoff, study_id=study.id)).all()
    if not found:
        return 0
    row = _deletion(
        session,
        DeletionKind.RESULTS,
        rule,
        now,
        study_id=study.id,
        count=len(found),
        size=sum(size for _, _, size in found),
    )
    for ids in chunks_of([result_id for result_id, _, _ in found]):
        session.execute(update(Result).where(Result.id.in_(ids)).values(deletion_id=row.id))
    _tell(session, "results.bytes_deleted", row)
    return 1


def _bury_quarantine(
    session: Session, key: int, rule: DeletionRule, cutoff: datetime, now: datetime
) -> int:
    query = expired_quarantine(rule, cutoff).where(Quarantine.id == key)
    item = session.scalars(query.with_for_update()).first()
    if item is None:
        return 0
    row = _deletion(session, DeletionKind.QUARANTINE, rule, now, count=1, size=item.length)
    item.deletion_id = row.id
    _tell(session, "quarantine.bytes_deleted", row)
    return 1


def _bury_duplicates(session: Session, packs: PackStore, name: str, now: datetime) -> int:
    """Write down what of a pack has no row, and that it was looked through."""
    pack = session.get(Pack, name, with_for_update=True)
    if pack is None or pack.tidied_at is not None or pack.removed_at is not None:
        return 0
    spare = look_through(session, packs, name, pack.indexed_through).spare
    pack.tidied_at = now
    if not spare:
        return 0
    session.add(spare_deletion(spare, DeletionRule.DUPLICATES, now))
    return 1


def spare_deletion(spare: Sequence[PackRecord], rule: DeletionRule, now: datetime) -> Deletion:
    """Return the row for records of a pack that have none of their own."""
    places = [record.location for record in spare]
    return Deletion(
        at=now,
        kind=DeletionKind.DUPLICATES.value,
        rule=rule.value,
        study_id=None,
        count=len(places),
        size=sum(place.length for place in places),
        places=[[place.pack, place.offset, place.length] for place in places],
        finished_at=None,
    )


def _deletion(
    session: Session,
    kind: DeletionKind,
    rule: DeletionRule,
    now: datetime,
    *,
    count: int,
    size: int,
    study_id: int | None = None,
) -> Deletion:
    row = Deletion(
        at=now,
        kind=kind.value,
        rule=rule.value,
        study_id=study_id,
        count=count,
        size=size,
        places=[],
        finished_at=None,
    )
    session.add(row)
    session.flush()
    return row


def _tell(session: Session, action: str, row: Deletion) -> None:
    append_event(
        session,
        row.at,
        action,
        study_id=row.study_id,
        actor="retention",
        details={"rule": row.rule, "count": row.count, "bytes": row.size, "deletion": row.id},
    )
