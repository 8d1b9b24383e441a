"""Bytes off the disk: the rest of a pack stays, is found, and outlives a crash in between."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage import erasing
from storage.disk import punch_holes
from storage.erasing import erase_records, remove_pack
from storage.packs import PackStore
from storage.records import Location, OutOfResourcesError
from tests.storage.test_packs import PREFIX, keep

MIB = 1 << 20


@pytest.fixture
def store(tmp_path: Path) -> PackStore:
    return PackStore(tmp_path / "packs", pack_bytes=4 * MIB)


class WithoutHoles:
    """Stands in for a C library on a file system that cannot punch holes."""

    def fallocate(self, *_: object) -> int:
        return -1


@pytest.fixture
def without_holes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("storage.disk._libc", WithoutHoles())
    monkeypatch.setattr("ctypes.get_errno", lambda: errno.EOPNOTSUPP)
    yield
    monkeypatch.undo()


def whole(store: PackStore, name: str) -> list[Location]:
    """Return where the records lie that a start would find."""
    return [record.location for record in store.records(name) if not record.erased]


def test_the_space_of_erased_records_goes_back_and_their_neighbours_stay(store: PackStore) -> None:
    pack = store.borrow()
    first, second, third = (keep(pack, os.urandom(MIB), b"a secret") for _ in range(3))
    pack.sync()
    kept = [store.read(first), store.read(third)]
    erased = erase_records(store, pack.name, [second])
    assert erased.whole
    assert erased.freed > MIB - 8192
    assert set(store.read(second)) == {0}
    assert [store.read(first), store.read(third)] == kept
    assert whole(store, pack.name) == [first, third]
    assert pack.path.read_bytes().count(b"a secret") == 2


def test_erasing_again_changes_nothing(store: PackStore) -> None:
    pack = store.borrow()
    locations = [keep(pack, os.urandom(MIB)) for _ in range(2)]
    erase_records(store, pack.name, locations[:1])
    content = pack.path.read_bytes()
    assert erase_records(store, pack.name, locations[:1]).freed == 0
    assert pack.path.read_bytes() == content


def test_a_pack_that_is_written_to_takes_more_records_behind_erased_ones(store: PackStore) -> None:
    pack = store.borrow()
    first = keep(pack, b"first" * 2000)
    erase_records(store, pack.name, [first])
    second = keep(pack, b"second")
    assert whole(store, pack.name) == [second]
    store.give_back(pack)
    store.close()
    assert whole(store, pack.name) == [second]


def test_a_crash_between_mark_and_hole_leaves_a_record_that_says_it_is_gone(
    store: PackStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack = store.borrow()
    first, second = keep(pack, os.urandom(MIB)), keep(pack, b"second")

    def crash(*_: object) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(erasing, "punch_holes", crash)
        with pytest.raises(KeyboardInterrupt):
            erase_records(store, pack.name, [first])
    assert [record.erased for record in store.records(pack.name)] == [True, False]
    assert erase_records(store, pack.name, [first]).freed > MIB - 8192
    assert whole(store, pack.name) == [second]


@pytest.mark.usefixtures("without_holes")
def test_where_no_hole_can_be_punched_it_is_said_and_neighbours_stay(store: PackStore) -> None:
    pack = store.borrow()
    first, second = keep(pack, b"one" * 100), keep(pack, b"two" * 100)
    assert not erase_records(store, pack.name, [first]).whole
    assert store.read(second) == PREFIX + b"two" * 100
    assert whole(store, pack.name) == [second]


def test_what_is_no_record_is_left_alone(store: PackStore) -> None:
    pack = store.borrow()
    there = keep(pack, b"bytes" * 1000)
    content = pack.path.read_bytes()
    wrong = Location(pack=pack.name, offset=there.offset + 8, length=100)
    assert erase_records(store, pack.name, [wrong]).freed == 0
    assert pack.path.read_bytes() == content


@given(st.lists(st.tuples(st.integers(0, 9000), st.booleans()), min_size=1, max_size=8))
@settings(max_examples=40, deadline=None)
def test_whichever_records_are_erased_all_others_are_found_whole(
    tmp_path_factory: pytest.TempPathFactory, plan: list[tuple[int, bool]]
) -> None:
    store = PackStore(tmp_path_factory.mktemp("packs"))
    pack = store.borrow()
    kept = {keep(pack, os.urandom(size)): goes for size, goes in plan}
    content = {location: store.read(location) for location in kept}
    erase_records(store, pack.name, [location for location, goes in kept.items() if goes])
    left = [location for location, goes in kept.items() if not goes]
    assert whole(store, pack.name) == left
    assert [store.read(location) for location in left] == [content[item] for item in left]
    assert [item.location for item in store.outlines(pack.name)] == list(kept)


def test_a_pack_that_is_written_to_is_not_removed_and_a_sealed_one_is(store: PackStore) -> None:
    pack = store.borrow()
    keep(pack, b"bytes")
    assert remove_pack(store, pack.name) is None
    store.give_back(pack)
    assert remove_pack(store, pack.name) is None  # it lies ready for the next association
    store.close()
    assert remove_pack(store, pack.name, lambda: False) is None
    assert remove_pack(store, pack.name) == 4096
    assert store.names() == {}
    assert remove_pack(store, pack.name) == 0  # as often as it is asked for


def test_a_spare_that_was_lent_is_not_removed(store: PackStore) -> None:
    store.prepare_spare()
    pack = store.borrow()
    assert remove_pack(store, pack.name) is None
    store.give_back(pack)


def test_a_disk_that_fails_is_told(store: PackStore, monkeypatch: pytest.MonkeyPatch) -> None:
    pack = store.borrow()
    location = keep(pack, bytes(1000))
    store.give_back(pack)
    store.close()

    def failing(*_: object) -> int:
        raise OSError(errno.EIO, "failing")

    monkeypatch.setattr(os, "fdatasync", failing)
    with pytest.raises(OutOfResourcesError, match="EIO"):
        erase_records(store, pack.name, [location])
    monkeypatch.setattr("storage.erasing.sync_folder", failing)
    with pytest.raises(OutOfResourcesError, match="EIO"):
        remove_pack(store, pack.name)


def test_a_hole_reads_as_zeros(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes([7]) * 20000)
    with path.open("r+b") as file:
        assert punch_holes(file.fileno(), [(100, 15000)])
    content = path.read_bytes()
    assert content == bytes([7]) * 100 + bytes(14900) + bytes([7]) * 5000
