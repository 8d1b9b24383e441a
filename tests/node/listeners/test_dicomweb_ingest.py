"""STOW-RS into the real ingest: what the index refuses, repeats, and a disk without room."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import dcmread

from node.listeners.dicomweb import DicomwebListener, DicomwebListenerSettings
from node.quotas import Watermarks
from tests.factories import make_ct_series
from tests.node.listeners.posting import END, body_of, part, post, reasons, stored
from tests.node.listeners.receiving import sop_instance_uids
from tests.node.taking_in import TakingIn


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return make_ct_series(tmp_path / "ct", slices=3, rows=32, columns=32)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[TakingIn]:
    taking = TakingIn(tmp_path).start()
    yield taking
    taking.close()


@pytest.fixture
def listener(node: TakingIn) -> Iterator[DicomwebListener]:
    door = DicomwebListener(DicomwebListenerSettings(port=0), node.ingest)
    door.start()
    yield door
    door.stop()


def test_what_is_answered_for_is_in_the_index_with_its_bytes(
    node: TakingIn, listener: DicomwebListener, files: list[Path]
) -> None:
    answer = post(listener, body_of(files))
    assert (answer.status_code, stored(answer)) == (200, sop_instance_uids(files))
    study = node.studies.get(str(dcmread(files[0]).StudyInstanceUID))
    assert study.listener == "dicomweb"
    held = {item.sop_instance_uid: item for item in node.studies.instances(study.id)}
    for file in files:
        data = file.read_bytes()
        kept = node.packs.read(held[str(dcmread(file).SOPInstanceUID)].location)
        assert kept.endswith(data[144 + int.from_bytes(data[140:144], "little") :])


def test_the_same_instance_again_is_a_success_and_other_bytes_are_kept_apart(
    node: TakingIn, listener: DicomwebListener, files: list[Path]
) -> None:
    """T14, over the web."""
    for _ in range(2):
        assert post(listener, body_of(files[:1])).status_code == 200
    changed = dcmread(files[0])
    changed.PatientComments = "other"
    changed.save_as(files[0])
    assert post(listener, body_of(files[:1])).status_code == 200
    study = node.studies.get(str(changed.StudyInstanceUID))
    assert len(node.studies.instances(study.id)) == 1
    assert len(node.studies.instances(study.id, include_conflicts=True)) == 2


def test_file_meta_that_names_another_instance_is_refused_and_put_into_quarantine(
    node: TakingIn, listener: DicomwebListener, files: list[Path]
) -> None:
    """T16, over the web: 0xA900."""
    first, second = (file.read_bytes() for file in files[:2])
    start = 144 + int.from_bytes(second[140:144], "little")
    meta = 144 + int.from_bytes(first[140:144], "little")
    answer = post(listener, part(first[:meta] + second[start:]) + body_of(files[2:]))
    assert (answer.status_code, reasons(answer)) == (202, [0xA900])
    assert stored(answer) == sop_instance_uids(files[2:])
    [note] = node.studies.quarantined()
    assert "SOP Instance UID differs" in note.reason


def test_a_data_set_that_cannot_be_read_is_refused_and_put_into_quarantine(
    node: TakingIn, listener: DicomwebListener, files: list[Path]
) -> None:
    content = files[0].read_bytes()
    meta = 144 + int.from_bytes(content[140:144], "little")
    answer = post(listener, part(content[:meta] + b"\xff" * 5000) + END)
    assert (answer.status_code, reasons(answer)) == (409, [0xC000])
    assert len(node.studies.quarantined()) == 1


def test_a_disk_without_room_is_503_before_anything_is_read(
    tmp_path: Path, files: list[Path]
) -> None:
    """T13, over the web."""
    full = Watermarks(reserve_bytes=1 << 60, resume_bytes=1 << 60, urgent_bytes=1 << 60)
    node = TakingIn(tmp_path, watermarks=full).start()
    door = DicomwebListener(DicomwebListenerSettings(port=0), node.ingest)
    door.start()
    try:
        answer = post(door, body_of(files))
        assert answer.status_code == 503
        assert answer.headers["retry-after"]
    finally:
        door.stop()
        node.close()
