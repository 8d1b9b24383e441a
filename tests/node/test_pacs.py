"""The stand-in PACS as dcmtk sees it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import dcmread

from node.pacs import StandInPacs
from tests.factories import make_ct_series
from tests.node.listeners.receiving import dcmtk


@pytest.fixture
def pacs(tmp_path: Path) -> Iterator[StandInPacs]:
    standin = StandInPacs(tmp_path / "pacs", ae_title="PACS", host="127.0.0.1", port=0)
    standin.start()
    yield standin
    standin.stop()


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return make_ct_series(tmp_path / "ct", slices=3, rows=16, columns=16)


def storescu(pacs: StandInPacs, files: list[Path]) -> int:
    return dcmtk("storescu", "-aec", "PACS", "127.0.0.1", str(pacs.port), *files).returncode


def find(pacs: StandInPacs, level: str, *keys: str) -> str:
    options = [part for key in keys for part in ("-k", key)]
    answer = dcmtk(
        "findscu",
        "-v",
        "-S",
        "-aec",
        "PACS",
        "-k",
        f"QueryRetrieveLevel={level}",
        *options,
        "127.0.0.1",
        str(pacs.port),
    )
    return answer.stdout + answer.stderr


def test_objects_are_kept_listed_and_there_again_after_a_restart(
    pacs: StandInPacs, files: list[Path], tmp_path: Path
) -> None:
    assert storescu(pacs, files) == 0
    (study,) = pacs.listing()
    assert study.count == 3
    again = StandInPacs(tmp_path / "pacs", ae_title="PACS", host="127.0.0.1", port=0)
    again.start()
    try:
        assert [item.count for item in again.listing()] == [3]
    finally:
        again.stop()


def test_query_finds_by_uid_and_wildcard_and_counts(pacs: StandInPacs, files: list[Path]) -> None:
    storescu(pacs, files)
    header = dcmread(files[0], stop_before_pixels=True)
    keys = ("StudyInstanceUID", "NumberOfStudyRelatedInstances", "ModalitiesInStudy")
    found = find(pacs, "STUDY", f"PatientID={str(header.PatientID)[:2]}*", *keys)
    assert str(header.StudyInstanceUID) in found
    assert "[3]" in found.replace("[3 ]", "[3]")
    assert str(header.StudyInstanceUID) not in find(pacs, "STUDY", "PatientID=NOBODY", *keys)
    images = find(pacs, "IMAGE", f"StudyInstanceUID={header.StudyInstanceUID}", "SOPInstanceUID")
    assert all(str(dcmread(file).SOPInstanceUID) in images for file in files)


@pytest.mark.filterwarnings(  # pynetdicom, where the peer closes at once when it is rejected
    "ignore:Exception in thread .*run_reactor:pytest.PytestUnhandledThreadExceptionWarning"
)
def test_wrong_called_title_is_rejected_and_echo_is_answered(pacs: StandInPacs) -> None:
    assert dcmtk("echoscu", "-aec", "PACS", "127.0.0.1", str(pacs.port)).returncode == 0
    assert dcmtk("echoscu", "-aec", "X", "127.0.0.1", str(pacs.port)).returncode != 0
