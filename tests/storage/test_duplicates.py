"""Two instances with one digest are compared: a digest of 128 bits that is quick can be made up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from storage.duplicates import same_bytes
from storage.erasing import erase_records
from storage.indexing import Indexer
from storage.notes import Entry
from storage.packs import PackStore
from storage.records import Brought, Location, NewInstance
from storage.states import ReceiptOutcome
from tests.storage.holding import Holding, new_instance

PREFIX = bytes(128) + b"DICM" + b"file meta"
DIGEST = "ab" * 16
DATA = b"0123456789" * 200_000


@pytest.fixture
def packs(tmp_path: Path) -> PackStore:
    return PackStore(tmp_path / "packs", pack_bytes=1 << 24)


def kept(packs: PackStore, data: bytes, prefix: bytes = PREFIX) -> Location:
    """Put an instance into a pack, under the one digest."""
    pack = packs.borrow()
    pack.begin(prefix)
    location = pack.location([data])
    pack.finish(bytes.fromhex(DIGEST), b"{}", [data])
    packs.give_back(pack)
    return location


def arriving(packs: PackStore, data: bytes) -> NewInstance:
    location = kept(packs, data)
    return replace(new_instance(), digest=DIGEST, size=len(data), location=location)


@pytest.mark.parametrize(
    ("other", "same"),
    [(DATA, True), (DATA[:-1] + b"x", False), (b"x" + DATA[1:], False)],
)
def test_data_sets_are_compared_whatever_stands_before_them(
    packs: PackStore,
    other: bytes,
    same: bool,
) -> None:
    one = kept(packs, DATA)
    two = kept(packs, other, PREFIX + b"of another version")
    assert same_bytes(packs, one, two, len(DATA)) is same


@pytest.mark.parametrize(
    "away",
    [
        lambda packs, at: erase_records(packs, at.pack, [at]),
        lambda packs, at: packs.path(at).unlink(),
    ],
)
def test_nothing_is_said_against_bytes_that_are_gone(
    packs: PackStore, away: Callable[[PackStore, Location], object]
) -> None:
    one, two = kept(packs, DATA), kept(packs, b"x" * len(DATA))
    assert not same_bytes(packs, one, two, len(DATA))
    away(packs, one)
    assert same_bytes(packs, two, one, len(DATA))


def index(held: Holding, packs: PackStore, told: list[str], *instances: NewInstance) -> None:
    indexer = Indexer(
        held.database,
        held.clock,
        same_bytes=partial(same_bytes, packs),
        tell=lambda what, _details: told.append(what),
    )
    brought = Brought(token="", listener="dimse")
    indexer.rebuild(
        Entry(brought=brought, at=held.clock(), what=new, end=new.location.offset)
        for new in instances
    )


def outcomes(held: Holding) -> list[str]:
    return [row[0] for row in held.execute("SELECT outcome FROM receipt ORDER BY id")]


@pytest.mark.parametrize("together", [True, False])
def test_other_bytes_under_the_same_digest_are_kept_and_told(
    held: Holding,
    packs: PackStore,
    together: bool,
) -> None:
    told: list[str] = []
    arrivals = [arriving(packs, DATA), arriving(packs, DATA), arriving(packs, DATA[::-1])]
    for lot in [arrivals] if together else [[item] for item in arrivals]:
        index(held, packs, told, *lot)
    assert outcomes(held) == [
        ReceiptOutcome.STORED,
        ReceiptOutcome.DUPLICATE,
        ReceiptOutcome.DUPLICATE,
    ]
    (note,) = held.studies.quarantined()
    assert (note.digest, "its bytes are not" in note.reason) == (DIGEST, True)
    assert note.location == arrivals[-1].location
    assert "instance.no_duplicate" in told
    assert held.studies.conservation().missing == 0
