"""What lies in a pack and has no row of its own: duplicates, and our own results come back.

Each record says in its note what it is. It may go when something else accounts for it: the row of
the same instance, or of the result. A record whose note cannot be read may be the only copy.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile

from sqlalchemy import select
from sqlalchemy.orm import Session

from storage.columns import UID
from storage.lots import chunks_of
from storage.models import Instance, Quarantine, Result, Study
from storage.notes import NoteError, read_note
from storage.pack_format import FIRST, PackRecord
from storage.packs import PackStore
from storage.records import NewInstance


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """What a pack holds. Of all but `spare`, the records without a row here, the number."""

    spare: Sequence[PackRecord]
    wanted: int  # a row says that it lies here
    gone: int  # a row says that it was deleted, or it is erased
    unknown: int  # may be the only copy
    end: int  # where its last record ends


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """What the index knows of the records of one pack."""

    kept: frozenset[int]  # offsets of live rows
    places: dict[tuple[str, str], tuple[str, int]]  # UID and digest -> where the row says it lies
    results: frozenset[str]
    set_aside: frozenset[int]  # offsets of what quarantine let go


def look_through(session: Session, packs: PackStore, name: str, through: int) -> Looked:
    """Tell the records of a pack apart, up to where it has rows.

    Of those behind nothing is known yet: one may be about to stand for an instance that was
    deleted and came again.

    Raises:
        OSError: the pack is not here, or cannot be read.
    """
    everything = list(takewhile(lambda record: record.end <= through, packs.outlines(name)))
    there = [record for record in everything if not record.erased]
    noted = {record.location.offset: _noted(record) for record in there}
    known = _known(session, name, [new for new in noted.values() if new is not None])
    spare, wanted, gone = [], 0, len(everything) - len(there)
    for record in there:
        offset = record.location.offset
        if offset in known.kept:
            wanted += 1
        elif _has_row_elsewhere(known, name, offset, noted[offset]):
            spare.append(record)
        elif _was_let_go(known, name, offset, noted[offset]):
            gone += 1
    return Looked(
        spare=spare,
        wanted=wanted,
        gone=gone,
        unknown=len(everything) - len(spare) - wanted - gone,
        end=everything[-1].end if everything else FIRST,
    )


def _noted(record: PackRecord) -> NewInstance | None:
    """Return what a record says it is; None: nothing that can be read, or of quarantine."""
    try:
        what = read_note(record).what
    except NoteError:
        return None
    return what if isinstance(what, NewInstance) else None


def _has_row_elsewhere(known: _Known, name: str, offset: int, new: NewInstance | None) -> bool:
    if new is None:
        return False
    place = known.places.get((new.sop_instance_uid, new.digest))
    if place is not None:
        return place != (name, offset)
    return new.own_result or new.sop_instance_uid in known.results


def _was_let_go(known: _Known, name: str, offset: int, new: NewInstance | None) -> bool:
    """Say whether the record's own row says that retention deleted it: it may not be erased yet."""
    if offset in known.set_aside:
        return True
    return new is not None and known.places.get((new.sop_instance_uid, new.digest)) == (
        name,
        offset,
    )


def _known(session: Session, name: str, noted: Sequence[NewInstance]) -> _Known:
    kept = [
        *session.scalars(
            select(Instance.pack_offset).where(
                Instance.pack == name, Instance.deletion_id.is_(None)
            )
        ),
        *session.scalars(
            select(Quarantine.pack_offset).where(
                Quarantine.pack == name, Quarantine.deletion_id.is_(None)
            )
        ),
    ]
    set_aside = session.scalars(
        select(Quarantine.pack_offset).where(
            Quarantine.pack == name, Quarantine.deletion_id.is_not(None)
        )
    )
    return _Known(
        kept=frozenset(kept),
        places=_places(session, _storable(new.study_instance_uid for new in noted)),
        results=_results(session, _storable(new.sop_instance_uid for new in noted)),
        set_aside=frozenset(set_aside),
    )


def _storable(uids: Iterable[str]) -> set[str]:
    """Return the UIDs that a row can have; a sender may have made up longer ones."""
    return {uid for uid in uids if len(uid) <= UID.length}


def _places(session: Session, studies: set[str]) -> dict[tuple[str, str], tuple[str, int]]:
    query = select(
        Instance.sop_instance_uid, Instance.digest, Instance.pack, Instance.pack_offset
    ).join(Study, Instance.study_id == Study.id)
    return {
        (uid, digest): (pack, offset)
        for chunk in chunks_of(sorted(studies))
        for uid, digest, pack, offset in session.execute(
            query.where(Study.study_instance_uid.in_(chunk))
        )
    }


def _results(session: Session, uids: set[str]) -> frozenset[str]:
    query = select(Result.sop_instance_uid)
    return frozenset(
        uid
        for chunk in chunks_of(sorted(uids))
        for uid in session.scalars(query.where(Result.sop_instance_uid.in_(chunk)))
    )
