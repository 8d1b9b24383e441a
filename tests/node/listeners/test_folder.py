"""A watched folder: every file ends in `done` or `failed`, and none is lost or overwritten."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from node.interfaces import CannotUnderstand, OutOfResources
from node.listeners.folder import FolderListener, FolderListenerSettings
from tests.factories import make_ct_series
from tests.node.listeners.receiving import KeepingIngest, data_set_bytes, sop_instance_uids


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


@pytest.fixture
def ingest() -> KeepingIngest:
    return KeepingIngest()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return make_ct_series(tmp_path / "ct", slices=1, rows=16, columns=16)[0]


def listener_for(folder: Path, ingest: KeepingIngest, *, keep: bool = True) -> FolderListener:
    settings = FolderListenerSettings(
        folder=folder, settle_seconds=2.0, poll_seconds=0.05, keep=keep
    )
    return FolderListener(settings, ingest)


def put(file: Path, folder: Path, name: str = "a.dcm", *, age: float = 10.0) -> Path:
    """Copy a file into the folder as if it had been there for a while."""
    target = folder / name
    shutil.copyfile(file, target)
    then = time.time() - age
    os.utime(target, (then, then))
    return target


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_file())


def look_once(folder: Path, ingest: KeepingIngest, *, keep: bool = True) -> int:
    listener = listener_for(folder, ingest, keep=keep)
    for name in ("done", "failed"):
        (folder / name).mkdir(exist_ok=True)
    return listener.look()


def test_settled_file_is_taken_and_moved(folder: Path, ingest: KeepingIngest, file: Path) -> None:
    put(file, folder)
    assert look_once(folder, ingest) == 1
    assert names(folder) == []
    assert names(folder / "done") == ["a.dcm"]
    assert ingest.kept[sop_instance_uids([file])[0]] == data_set_bytes(file)


def test_file_that_is_still_written_to_is_left(
    folder: Path, ingest: KeepingIngest, file: Path
) -> None:
    put(file, folder, age=0.0)
    assert look_once(folder, ingest) == 0
    assert names(folder) == ["a.dcm"]


def test_broken_file_is_set_aside_with_the_reason(folder: Path, ingest: KeepingIngest) -> None:
    broken = folder / "notes.txt"
    broken.write_text("no DICOM")
    os.utime(broken, (1, 1))
    look_once(folder, ingest)
    assert names(folder / "failed") == ["notes.txt", "notes.txt.reason.txt"]
    assert "no DICOM file" in (folder / "failed" / "notes.txt.reason.txt").read_text()


def test_refused_file_is_set_aside_and_a_full_disk_lets_it_wait(
    folder: Path, ingest: KeepingIngest, file: Path
) -> None:
    put(file, folder)
    ingest.errors = [OutOfResources("full")]
    assert look_once(folder, ingest) == 0
    assert names(folder) == ["a.dcm"]
    ingest.errors = [CannotUnderstand("a UID is missing")]
    look_once(folder, ingest)
    assert names(folder / "failed") == ["a.dcm", "a.dcm.reason.txt"]


def test_files_of_the_same_name_never_overwrite_each_other(
    folder: Path, ingest: KeepingIngest, file: Path
) -> None:
    for _ in range(3):
        put(file, folder)
        look_once(folder, ingest)
    assert names(folder / "done") == ["a-1.dcm", "a-2.dcm", "a.dcm"]


def test_taken_file_is_removed_when_it_is_not_to_be_kept(
    folder: Path, ingest: KeepingIngest, file: Path
) -> None:
    put(file, folder)
    look_once(folder, ingest, keep=False)
    assert names(folder) == names(folder / "done") == []


def test_watching_goes_on_after_a_restart(folder: Path, ingest: KeepingIngest, file: Path) -> None:
    for name in ("a.dcm", "b.dcm"):
        listener = listener_for(folder, ingest)
        listener.start()
        put(file, folder, name)
        until = time.monotonic() + 5
        while names(folder) and time.monotonic() < until:
            time.sleep(0.02)
        listener.stop()
    assert names(folder / "done") == ["a.dcm", "b.dcm"]
