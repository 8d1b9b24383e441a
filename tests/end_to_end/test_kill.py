"""kill -9 at named points, on a real process: nothing acknowledged is lost, nothing sent twice."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE

from node.pacs import StandInPacs
from storage.states import DeliveryState, JobState
from tests.end_to_end.kill_at import POINTS
from tests.end_to_end.processes import NodeProcess, wait_until
from tests.factories import make_ct_series

CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
RECEIVING_POINTS = {"half-written", "written", "synced", "acknowledged"}


@pytest.fixture
def pacs(tmp_path: Path) -> Iterator[StandInPacs]:
    standin = StandInPacs(tmp_path / "pacs", ae_title="PACS", host="127.0.0.1", port=0)
    standin.start()
    yield standin
    standin.stop()


def send(port: int, files: list[Path]) -> list[Path]:
    """Send files over one association; return those that were acknowledged with 0x0000."""
    ae = AE(ae_title="SCANNER")
    ae.dimse_timeout = 5  # a dead node does not always reset the connection at once
    ae.add_requested_context(CT_IMAGE_STORAGE, [ExplicitVRLittleEndian])
    association = ae.associate("127.0.0.1", port, ae_title="WETREAD")
    acknowledged = []
    for file in files:
        try:
            status = association.send_c_store(dcmread(file))
        except RuntimeError:
            break  # the association is gone
        if status and status.Status == 0x0000:
            acknowledged.append(file)
    if association.is_established:
        association.release()
    return acknowledged


def data_set_bytes(path: Path) -> bytes:
    """Return what follows the file meta group: the bytes that travel in a C-STORE."""
    content = path.read_bytes()
    return content[144 + int.from_bytes(content[140:144], "little") :]


@pytest.mark.parametrize("point", POINTS)
def test_kill_at_a_point_loses_nothing_and_sends_nothing_twice(
    point: str, tmp_path: Path, pacs: StandInPacs
) -> None:
    """T12, NET-06: nothing is acknowledged before it is durable."""
    files = make_ct_series(tmp_path / "ct", slices=6, rows=64, columns=64)
    study_instance_uid = str(dcmread(files[0], stop_before_pixels=True).StudyInstanceUID)
    node = NodeProcess(folder=tmp_path / "node", pacs_port=pacs.port)
    node.write()

    node.start(kill_at=point)
    acknowledged = send(node.port, files)
    wait_until(node.died, f"the node dies at {point}")
    if point in RECEIVING_POINTS:
        assert len(acknowledged) < len(files)

    node.start()
    try:
        rest = [file for file in files if file not in acknowledged]
        if rest:
            assert send(node.port, rest) == rest
        revision = node.wait_settled(study_instance_uid).revision
        _assert_acknowledged_bytes_are_there(node, files, study_instance_uid)
        _assert_results_are_at_the_pacs_once(node, pacs, study_instance_uid, revision)
    finally:
        assert node.stop() == 0


def _assert_acknowledged_bytes_are_there(
    node: NodeProcess, files: list[Path], study_instance_uid: str
) -> None:
    stores = node.stores()
    try:
        record = stores.studies.get(study_instance_uid)
        held = {
            item.sop_instance_uid: stores.packs.read(item.location)[-item.size :]
            for item in stores.studies.instances(record.id)
        }
        for file in files:
            uid = str(dcmread(file, stop_before_pixels=True).SOPInstanceUID)
            expected = data_set_bytes(file)
            assert hashlib.sha256(held[uid]).digest() == hashlib.sha256(expected).digest()
        conservation = stores.studies.conservation()
        assert conservation.missing == 0
        assert conservation.routed == len(files)
        assert not list((node.folder / "data/objects/incoming").iterdir())
    finally:
        stores.database.close()


def _assert_results_are_at_the_pacs_once(
    node: NodeProcess, pacs: StandInPacs, study_instance_uid: str, revision: int
) -> None:
    stores = node.stores()
    try:
        record = stores.studies.get(study_instance_uid)
        jobs = [job for job in stores.jobs.list(study_id=record.id) if job.revision == revision]
        assert [job.state for job in jobs] == [JobState.SUCCEEDED]
        results = stores.jobs.results(job_id=jobs[0].id)
        deliveries = stores.deliveries.list(study_id=record.id)
        assert {item.state for item in deliveries} <= {DeliveryState.SENT, DeliveryState.SUPERSEDED}
    finally:
        stores.database.close()
    at_pacs = Counter(
        instance.sop_instance_uid
        for study in pacs.listing()
        for series in study.series
        for instance in series.instances
    )
    assert len(results) == 3
    assert {item.sop_instance_uid: 1 for item in results}.items() <= at_pacs.items()
    assert set(at_pacs.values()) == {1}
    if revision == 1:
        assert len(at_pacs) == len(results)
