"""Rows of associations and packs, as the indexer writes them many times a minute.

Statements are made once, and go past the objects of the ORM: what an index transaction costs
besides its instances is paid at every batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final, cast

from sqlalchemy import Table, bindparam, insert, select, update
from sqlalchemy.orm import Session

from storage.lots import evened
from storage.models import Association, Pack
from storage.records import Brought
from storage.states import AssociationState

ASSOCIATIONS: Final = cast("Table", Association.__table__)
PACKS: Final = cast("Table", Pack.__table__)
INSERT_ASSOCIATION: Final = insert(ASSOCIATIONS).returning(ASSOCIATIONS.c.id)
FIND_ASSOCIATIONS: Final = select(ASSOCIATIONS.c.token, ASSOCIATIONS.c.id).where(
    ASSOCIATIONS.c.token.in_(bindparam("tokens", expanding=True))
)
END_ASSOCIATION: Final = (
    update(ASSOCIATIONS)
    .where(
        ASSOCIATIONS.c.id == bindparam("which"),
        ASSOCIATIONS.c.state == AssociationState.OPEN.value,
    )
    .values(state=bindparam("new_state"), closed_at=bindparam("at"))
)
COUNT_RECEIVED: Final = (
    update(ASSOCIATIONS)
    .where(ASSOCIATIONS.c.id == bindparam("which"))
    .values(received=ASSOCIATIONS.c.received + bindparam("more"))
)
FIND_PACKS: Final = select(PACKS.c.name).where(PACKS.c.name.in_(bindparam("names", expanding=True)))
INSERT_PACK: Final = insert(PACKS)
ADVANCE_PACK: Final = (
    update(PACKS)
    .where(PACKS.c.name == bindparam("which"), PACKS.c.indexed_through < bindparam("through"))
    .values(indexed_through=bindparam("through"))
)


def insert_association(
    session: Session, owner: str, brought: Brought, at: datetime, *, ended: datetime | None
) -> int:
    """Make the row of an association, open or, if its process is gone, ended; return its id."""
    state = AssociationState.OPEN if ended is None else AssociationState.ABORTED
    values = {
        "token": brought.token,
        "owner": owner,
        "listener": brought.listener,
        "calling_ae": brought.calling_ae,
        "called_ae": brought.called_ae,
        "peer_address": brought.peer_address,
        "state": state.value,
        "opened_at": at,
        "closed_at": ended,
        "received": 0,
    }
    return int(session.connection().execute(INSERT_ASSOCIATION, values).scalar_one())


def find_associations(session: Session, tokens: Sequence[str]) -> dict[str, int]:
    """Return the ids of the associations that are there, by token."""
    rows = session.connection().execute(FIND_ASSOCIATIONS, {"tokens": evened(tokens)})
    return {token: found for token, found in rows}  # noqa: C416 - rows are not tuples to mypy


def end_associations(
    session: Session, ended: Sequence[tuple[int, AssociationState, datetime]]
) -> None:
    """End associations that are open: their ids, how, and when."""
    if ended:
        values = [
            {"which": number, "new_state": state.value, "at": at} for number, state, at in ended
        ]
        session.connection().execute(END_ASSOCIATION, values)


def count_received(session: Session, counts: Mapping[int | None, int]) -> None:
    """Add to how many instances associations brought; what came without one is not counted."""
    values = [
        {"which": number, "more": more} for number, more in counts.items() if number is not None
    ]
    if values:
        session.connection().execute(COUNT_RECEIVED, values)


def note_progress(session: Session, owner: str, ends: Mapping[str, int], now: datetime) -> None:
    """Write down up to where packs have rows, by the name of the pack."""
    if not ends:
        return
    connection = session.connection()
    known = set(connection.scalars(FIND_PACKS, {"names": evened(sorted(ends))}))
    advanced = [{"which": name, "through": ends[name]} for name in sorted(known)]
    if advanced:
        connection.execute(ADVANCE_PACK, advanced)
    new = [
        {"name": name, "owner": owner, "indexed_through": ends[name], "created_at": now}
        for name in sorted(ends)
        if name not in known
    ]
    if new:
        connection.execute(INSERT_PACK, new)
