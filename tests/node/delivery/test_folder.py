"""Results into a folder: whole, synced, under names that are UIDs."""

from __future__ import annotations

from pathlib import Path

import pytest

from node.delivery import folder as folder_target
from node.delivery.folder import FolderTarget, FolderTargetSettings
from node.dispatch import arrival_of
from node.interfaces import Outgoing, SendVerdict, Sent
from storage.states import Reached


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source.dcm"
    path.write_bytes(b"content" * 1000)
    return path


def write(folder: Path, source: Path, uid: str) -> Sent:
    reports: list[Sent] = []
    item = Outgoing(
        sop_class_uid="1.2", sop_instance_uid=uid, transfer_syntax_uid="1.2", path=source
    )
    FolderTarget(FolderTargetSettings(folder=folder)).send(
        [item], lambda _, sent: reports.append(sent)
    )
    (only,) = reports
    return only


def test_object_is_written_whole_under_its_uid(tmp_path: Path, source: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    assert write(folder, source, "1.2.3").verdict is SendVerdict.ACCEPTED
    assert write(folder, source, "1.2.3").verdict is SendVerdict.ACCEPTED
    assert [path.name for path in folder.iterdir()] == ["1.2.3.dcm"]
    assert (folder / "1.2.3.dcm").read_bytes() == source.read_bytes()


@pytest.mark.parametrize("uid", ["../../x", "/etc/x", "1.2/3", "", "1" * 65])
def test_name_that_is_no_uid_is_refused(uid: str, tmp_path: Path, source: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    assert write(folder, source, uid).verdict is SendVerdict.REFUSED
    assert list(folder.iterdir()) == []


def test_a_file_whose_folder_could_not_be_synced_may_be_there(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Path) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(folder_target, "_sync", fail)
    sent = write(tmp_path, source, "1.2.3")
    assert (sent.verdict, arrival_of(sent)) == (SendVerdict.UNREACHABLE, Reached.PERHAPS)
    assert (tmp_path / "1.2.3.dcm").exists()


def test_missing_folder_is_unreachable_and_probed_as_such(tmp_path: Path, source: Path) -> None:
    gone = tmp_path / "gone"
    sent = write(gone, source, "1.2.3")
    assert (sent.verdict, arrival_of(sent)) == (SendVerdict.UNREACHABLE, Reached.NO)
    probe = FolderTarget(FolderTargetSettings(folder=gone)).probe()
    assert probe.verdict is SendVerdict.UNREACHABLE
    gone.mkdir()
    probe = FolderTarget(FolderTargetSettings(folder=gone)).probe()
    assert probe.verdict is SendVerdict.ACCEPTED
