"""Two writers of one index: neither stops the other, and each knows what is its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from storage.indexing import Indexer
from storage.notes import Entry
from storage.records import Brought, Location
from tests.storage.holding import Holding, at_once, new_instance

BROUGHT = Brought(
    token="", listener="dimse", calling_ae="A", called_ae="B", peer_address="127.0.0.1"
)


def entries(held: Holding, studies: Sequence[str], number: int, pack: str) -> list[Entry]:
    """Return one instance of each study, as they came, in a pack."""
    found = []
    for index, study in enumerate(studies):
        new = new_instance(number, study=study)
        at = Location(pack=pack, offset=64 * (index + 1), length=64)
        what = replace(new, location=at)
        found.append(Entry(brought=BROUGHT, at=held.clock(), what=what, end=64 * (index + 2)))
    return found


def test_new_studies_are_made_in_the_order_of_their_uids(held: Holding) -> None:
    Indexer(held.database, held.clock).rebuild(entries(held, ["1.3", "1.2", "1.4"], 1, "a" * 32))
    ids = [held.studies.get(uid).id for uid in ("1.2", "1.3", "1.4")]
    assert ids == sorted(ids)


def test_two_writers_that_meet_the_same_new_studies_do_not_wait_in_a_circle(
    held: Holding, held_again: Holding
) -> None:
    rounds, many = 15, 12
    writers = [
        Indexer(held.database, held.clock, owner="ONE"),
        Indexer(held_again.database, held.clock, owner="TWO"),
    ]

    def write(number: int, turn: int) -> Callable[[], int]:
        uids = [f"1.{turn}.{study}" for study in range(many)]
        lot = entries(held, uids if number else uids[::-1], number, f"{number}" * 32)
        return lambda: writers[number].rebuild(lot)  # a circle would raise here

    for turn in range(rounds):
        assert at_once(write(0, turn), write(1, turn)) == [many, many]
    conservation = held.studies.conservation()
    assert (conservation.received, conservation.missing) == (2 * rounds * many, 0)


def test_packs_of_another_owner_are_told_apart(held: Holding) -> None:
    ours = Indexer(held.database, held.clock, owner="OURS")
    theirs = Indexer(held.database, held.clock, owner="THEIRS")
    ours.rebuild(entries(held, ["1.2"], 1, "a" * 32))
    theirs.rebuild(entries(held, ["1.2"], 2, "b" * 32))
    assert ours.indexed_through(own=True) == {"a" * 32: 128}
    assert ours.indexed_through() == {"a" * 32: 128, "b" * 32: 128}
