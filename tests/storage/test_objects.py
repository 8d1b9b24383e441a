from __future__ import annotations

import errno
import io
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage import disk
from storage.digests import new_digest
from storage.objects import ObjectStore
from storage.records import ObjectTooLargeError, OutOfResourcesError
from tests.storage.holding import at_once

DATA = b"data set bytes" * 1000
PREFIX = b"\0" * 128 + b"DICM"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "var"


@pytest.fixture
def store(root: Path) -> ObjectStore:
    return ObjectStore(root)


def parts(root: Path) -> list[Path]:
    return list((root / "incoming").iterdir())


def spied(monkeypatch: pytest.MonkeyPatch, root: Path) -> list[str]:
    """Return the steps as they happen, while they still do what they do."""
    steps: list[str] = []
    write_part, sync, rename = ObjectStore._write_part, ObjectStore._sync, ObjectStore._rename
    sync_folder = disk.sync_folder

    def spy_write(
        self: ObjectStore, file: BinaryIO, data: BinaryIO, prefix: bytes, limit: int | None
    ) -> tuple[str, int]:
        steps.append("write")
        return write_part(self, file, data, prefix, limit)

    def spy_sync(self: ObjectStore, file: BinaryIO) -> None:
        steps.append("sync file")
        sync(self, file)

    def spy_rename(self: ObjectStore, part: Path, target: Path) -> None:
        steps.append("rename")
        rename(self, part, target)

    def spy_folder(folder: Path) -> None:
        steps.append(f"sync {'objects' if folder == root / 'objects' else 'folder'}")
        sync_folder(folder)

    monkeypatch.setattr(ObjectStore, "_write_part", spy_write)
    monkeypatch.setattr(ObjectStore, "_sync", spy_sync)
    monkeypatch.setattr(ObjectStore, "_rename", spy_rename)
    monkeypatch.setattr("storage.objects.sync_folder", spy_folder)
    return steps


def test_an_object_is_named_by_the_digest_of_its_data_alone(store: ObjectStore) -> None:
    stored = store.write(io.BytesIO(DATA), prefix=PREFIX)
    assert (stored.digest, stored.size) == (new_digest(DATA).hexdigest(), len(DATA))
    assert stored.created
    assert store.path(stored.digest).read_bytes() == PREFIX + DATA
    with store.open(stored.digest) as file:
        assert file.read(4) == PREFIX[:4]
    assert store.exists(stored.digest)
    assert list(store.digests()) == [stored.digest]


def test_a_write_returns_only_when_all_of_it_is_durable(
    store: ObjectStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = spied(monkeypatch, root)
    store.write(io.BytesIO(DATA))
    assert steps == ["write", "sync file", "rename", "sync folder", "sync objects"]


def test_bytes_that_are_there_already_are_made_durable_too(
    store: ObjectStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = store.write(io.BytesIO(DATA), prefix=PREFIX)
    steps = spied(monkeypatch, root)
    second = store.write(io.BytesIO(DATA), prefix=PREFIX)
    assert (second.digest, second.created) == (first.digest, False)
    assert steps == ["write", "sync folder", "sync objects"]
    assert parts(root) == []


def test_the_same_bytes_written_at_once_are_one_object(store: ObjectStore, root: Path) -> None:
    written = at_once(*[lambda: store.write(io.BytesIO(DATA), prefix=PREFIX)] * 8)
    assert {stored.digest for stored in written} == {new_digest(DATA).hexdigest()}
    assert store.path(written[0].digest).read_bytes() == PREFIX + DATA
    assert parts(root) == []


def test_an_object_behind_a_prefix_of_another_length_is_kept(store: ObjectStore) -> None:
    first = store.write(io.BytesIO(DATA), prefix=PREFIX + b"older")
    again = store.write(io.BytesIO(DATA), prefix=PREFIX)
    assert not again.created
    assert store.path(first.digest).read_bytes() == PREFIX + b"older" + DATA


@pytest.mark.parametrize("left", [0, 10, len(DATA) - 1, len(DATA) + len(PREFIX) - 1])
def test_a_truncated_object_is_not_taken_for_the_whole(store: ObjectStore, left: int) -> None:
    digest = store.write(io.BytesIO(DATA), prefix=PREFIX).digest
    path = store.path(digest)
    os.truncate(path, left)
    assert store.write(io.BytesIO(DATA), prefix=PREFIX).created
    assert path.read_bytes() == PREFIX + DATA


@pytest.mark.parametrize("seam", ["_write_part", "_sync", "_rename"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
def test_a_disk_that_takes_no_more_leaves_no_part_behind(
    store: ObjectStore, root: Path, monkeypatch: pytest.MonkeyPatch, seam: str, code: int
) -> None:
    def full(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(ObjectStore, seam, full)
    with pytest.raises(OutOfResourcesError, match=errno.errorcode[code]) as raised:
        store.write(io.BytesIO(DATA))
    assert isinstance(raised.value.__cause__, OSError)
    assert parts(root) == []
    assert list(store.digests()) == []


def test_a_folder_that_cannot_be_synced_is_no_success(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(folder: Path) -> None:
        raise OSError(errno.EIO, str(folder))

    monkeypatch.setattr("storage.objects.sync_folder", failing)
    with pytest.raises(OutOfResourcesError):
        store.write(io.BytesIO(DATA))


def test_another_error_of_the_system_is_not_taken_for_a_full_disk(
    store: ObjectStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*_: object) -> None:
        raise PermissionError(errno.EACCES, "denied")

    monkeypatch.setattr(ObjectStore, "_rename", denied)
    with pytest.raises(PermissionError):
        store.write(io.BytesIO(DATA))
    assert parts(root) == []


def test_an_object_over_the_limit_is_refused_and_not_kept(store: ObjectStore, root: Path) -> None:
    with pytest.raises(ObjectTooLargeError, match="larger than 100 bytes"):
        store.write(io.BytesIO(b"x" * 101), prefix=PREFIX, limit=100)
    assert (parts(root), list(store.digests())) == ([], [])
    assert store.write(io.BytesIO(b"x" * 100), prefix=PREFIX, limit=100).size == 100


def test_old_part_files_are_swept_and_young_ones_stay(store: ObjectStore, root: Path) -> None:
    now = datetime.now(UTC)
    for name, age in (("old.part", 3600), ("young.part", 0)):
        path = root / "incoming" / name
        path.write_bytes(b"half")
        moment = (now - timedelta(seconds=age)).timestamp()
        os.utime(path, (moment, moment))
    assert store.sweep_parts(now - timedelta(seconds=60)) == 1
    assert [path.name for path in parts(root)] == ["young.part"]


@pytest.mark.parametrize(
    "name", ["", "a" * 63, "a" * 65, "A" * 64, "g" * 64, "../" + "a" * 61, "a" * 63 + "/"]
)
def test_a_name_that_is_no_digest_is_refused(store: ObjectStore, name: str) -> None:
    for call in (store.path, store.open, store.exists, store.delete):
        with pytest.raises(ValueError, match="64 lower-case hexadecimal digits"):
            call(name)


def test_files_that_are_no_objects_are_not_listed(store: ObjectStore, root: Path) -> None:
    digest = store.write(io.BytesIO(DATA)).digest
    (root / "objects" / "README").write_text("not ours")
    (root / "objects" / "lost+found").mkdir()
    (root / "objects" / digest[:2] / "copy.bak").write_text("not ours")
    assert list(store.digests()) == [digest]


def test_a_deleted_object_is_gone_and_deleting_it_again_is_no_error(store: ObjectStore) -> None:
    digest = store.write(io.BytesIO(DATA)).digest
    store.delete(digest)
    store.delete(digest)
    store.delete("0" * 64)
    assert not store.exists(digest)
    assert store.write(io.BytesIO(DATA)).created


def test_free_space_is_that_of_the_disk_under_the_objects(store: ObjectStore, root: Path) -> None:
    free = os.statvfs(root)
    assert store.free_bytes() == pytest.approx(free.f_bavail * free.f_frsize, rel=0.05)


@settings(max_examples=40, deadline=None)
@given(prefix=st.binary(max_size=40), older=st.binary(max_size=40), data=st.binary(max_size=200))
def test_any_bytes_come_back_as_they_were_whatever_stood_before_them(
    tmp_path_factory: pytest.TempPathFactory, prefix: bytes, older: bytes, data: bytes
) -> None:
    store = ObjectStore(tmp_path_factory.mktemp("objects"))
    digest = store.write(io.BytesIO(data), prefix=older).digest
    store.write(io.BytesIO(data), prefix=prefix)
    kept = store.path(digest).read_bytes()
    assert kept in {older + data, prefix + data}
