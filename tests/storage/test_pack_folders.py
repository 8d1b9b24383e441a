"""Folders of packs and their locks: one writer each, readers find a pack in any of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from storage.digests import InstanceDigest
from storage.pack_folders import WriterLock, numbered_folders, owner_name, pack_folder
from storage.packs import PackStore
from storage.records import InUseError, Location, OutOfResourcesError

HOLDER = """
import sys
from pathlib import Path
from storage.pack_folders import WriterLock
lock = WriterLock(Path(sys.argv[1])).take(0)
print("held", flush=True)
sys.stdin.read()
"""


def keep(packs: PackStore, data: bytes) -> Location:
    pack = packs.borrow()
    pack.begin(b"prefix")
    location = pack.location([data])
    pack.finish(InstanceDigest(data).digest(), b"note", [data])
    packs.give_back(pack)
    return location


def test_only_one_process_writes_in_a_folder_until_it_dies(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(InUseError, match="another process of a node writes there"):
            WriterLock(tmp_path).take(0.2)
        holder.kill()
    with WriterLock(tmp_path).take(10):
        pass


def test_a_lock_that_is_released_can_be_taken_again(tmp_path: Path) -> None:
    lock = WriterLock(tmp_path / "packs").take(0)
    with pytest.raises(InUseError):
        WriterLock(tmp_path / "packs").take(0)
    lock.release()
    lock.release()
    WriterLock(tmp_path / "packs").take(0).release()


def test_a_folder_that_cannot_be_made_is_told_in_our_words(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutOfResourcesError):
        WriterLock(tmp_path / "file").take(0)


def test_a_pack_is_found_in_whichever_folder_it_was_written(tmp_path: Path) -> None:
    root = PackStore(tmp_path / "packs", pack_bytes=1 << 16)
    written = {
        data: keep(PackStore(pack_folder(root.folder, number), pack_bytes=1 << 16), data)
        for number, data in enumerate((b"the node's own", b"the first's", b"the second's"))
    }
    assert [number for number, _ in numbered_folders(root.folder)] == [1, 2]
    for data, location in written.items():
        assert root.read(location) == b"prefix" + data
    first = PackStore(pack_folder(root.folder, 1), root=root.folder, pack_bytes=1 << 16)
    for data, location in written.items():  # duplicates are compared in whoever received them
        assert first.read(location) == b"prefix" + data
    assert len(root.names()) == len(first.names()) == 1
    assert root.path(Location(pack="f" * 32, offset=64, length=1)).parent == root.folder


def test_owners_of_one_node_differ_and_fit_the_column_whatever_it_is_called() -> None:
    name = "N" * 16
    owners = {owner_name(name, process) for process in range(1000)}
    assert len(owners) == 1000
    assert owner_name(name, 0) == name
    assert max(map(len, owners)) <= 32
