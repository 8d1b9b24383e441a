"""Kept objects arrive at real PACS software as they were kept; nothing is timed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest
from pydicom import dcmread
from pydicom.uid import ImplicitVRLittleEndian

from node.delivery._part10 import KeptFile
from node.interfaces import Outgoing, SendVerdict
from node.pacs import StandInPacs
from tests.end_to_end.processes import Orthanc, free_port, listens, wait_until
from tests.factories import make_ct_series
from tests.node.delivery.objects import data_set, outgoing, send, target_at, verdicts

STORESCP: Final = "/usr/bin/storescp"  # pynetdicom brings a command of the same name
COUNT: Final = 20
ACCEPTED: Final = [SendVerdict.ACCEPTED] * COUNT


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> list[Outgoing]:
    folder = tmp_path_factory.mktemp("ct")
    return outgoing(make_ct_series(folder, slices=COUNT, rows=128, columns=128))


@contextmanager
def storescp(folder: Path, *options: str, **environment: str) -> Iterator[int]:
    """Run dcmtk's storescp into a folder; yield its port."""
    folder.mkdir()
    port = free_port()
    without = {key: value for key, value in os.environ.items() if key != "TCP_NODELAY"}
    with subprocess.Popen(
        [STORESCP, *options, "-aet", "PACS", "-od", str(folder), str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**without, **environment},
    ) as process:
        try:
            wait_until(lambda: listens(port), "storescp listens", seconds=10)
            yield port
        finally:
            process.terminate()


def arrived(files: Sequence[Path]) -> dict[str, bytes]:
    """Return the bytes of the data sets by SOP Instance UID."""
    return {str(dcmread(file).SOPInstanceUID): data_set(file) for file in files}


@pytest.mark.parametrize("environment", [{}, {"TCP_NODELAY": "1"}], ids=["stock", "without Nagle"])
@pytest.mark.parametrize("options", [("+B",), ("+B", "-pdu", "131072"), ("+B", "-pdu", "4096")])
def test_storescp_gets_every_byte(
    options: tuple[str, ...], environment: dict[str, str], objects: list[Outgoing], tmp_path: Path
) -> None:
    with storescp(tmp_path / "kept", *options, **environment) as port:
        reports = send(target_at(port), objects)
    assert verdicts(reports) == ACCEPTED
    assert {sent.message for _, sent in reports} == {""}
    assert arrived(list((tmp_path / "kept").iterdir())) == arrived([o.path for o in objects])


def test_storescp_that_takes_implicit_vr_only_gets_the_same_data_sets(
    objects: list[Outgoing], tmp_path: Path
) -> None:
    """NET-05: transcoded for a PACS that takes nothing else."""
    with storescp(tmp_path / "kept", "+xi") as port:
        reports = send(target_at(port), objects)
    assert verdicts(reports) == ACCEPTED
    assert all("sent as Implicit VR Little Endian" in sent.message for _, sent in reports)
    there = {dcmread(path).SOPInstanceUID: dcmread(path) for path in (tmp_path / "kept").iterdir()}
    for item in objects:
        got, kept = there.pop(item.sop_instance_uid), dcmread(item.path)
        assert got.file_meta.TransferSyntaxUID == ImplicitVRLittleEndian
        assert got == kept
    assert not there


def test_storescp_that_rejects_is_told_from_one_that_is_gone(
    objects: list[Outgoing], tmp_path: Path
) -> None:
    with storescp(tmp_path / "kept", "--refuse") as port:
        rejected = send(target_at(port), objects)
        probe = target_at(port).probe()
    gone = send(target_at(port), objects)
    assert verdicts(rejected) == verdicts(gone) == [SendVerdict.UNREACHABLE] * COUNT
    assert "the association was rejected" in rejected[0][1].message
    assert probe.message == rejected[0][1].message
    assert "TCP: Connection refused" in gone[0][1].message


def test_storescp_that_aborts_midway_leaves_the_others_to_be_sent_again(
    objects: list[Outgoing], tmp_path: Path
) -> None:
    with storescp(tmp_path / "kept", "--abort-during") as port:
        reports = send(target_at(port), objects)
    assert verdicts(reports) == [SendVerdict.UNREACHABLE, *[SendVerdict.RETRY] * (COUNT - 1)]
    assert "no answer: " in reports[0][1].message


def test_storescp_answers_the_probe(tmp_path: Path) -> None:
    with storescp(tmp_path / "kept") as port:
        assert target_at(port).probe().verdict is SendVerdict.ACCEPTED


def test_orthanc_gets_the_same_data_sets(objects: list[Outgoing], tmp_path: Path) -> None:
    """AIR-01: Creator Images and Evidence Documents Stored [RAD-18, RAD-43]."""
    with Orthanc(folder=tmp_path / "orthanc") as orthanc:
        assert verdicts(send(target_at(orthanc.dicom_port), objects)) == ACCEPTED
        assert target_at(orthanc.dicom_port).probe().verdict is SendVerdict.ACCEPTED
        there = {}
        for instance in orthanc.get("/instances"):
            path = tmp_path / f"{instance}.dcm"
            path.write_bytes(orthanc.file(instance))
            there[str(dcmread(path).SOPInstanceUID)] = dcmread(path)
    assert there == {item.sop_instance_uid: dcmread(item.path) for item in objects}


def test_stand_in_pacs_gets_every_byte(objects: list[Outgoing], tmp_path: Path) -> None:
    pacs = StandInPacs(tmp_path / "pacs", ae_title="PACS", host="127.0.0.1", port=0)
    pacs.start()
    try:
        assert verdicts(send(target_at(pacs.port), objects)) == ACCEPTED
    finally:
        pacs.stop()
    kept = {}
    for path in (tmp_path / "pacs").glob("*/*/*.dcm"):
        with KeptFile(path) as file:
            content = bytearray(file.length)
            file.read_into(memoryview(content), 0)
            kept[file.sop_instance_uid] = bytes(content)
    assert kept == arrived([item.path for item in objects])
