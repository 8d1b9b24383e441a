"""A node beside an Orthanc that holds more than was sent: it waits, and says how that ended."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset
from pynetdicom import AE

from node.listeners._procedure_steps import PROCEDURE_STEP
from storage.records import StudyRecord
from tests.end_to_end.processes import NodeProcess, Orthanc, storescu, wait_until
from tests.factories import make_ct_series


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with Orthanc(folder=tmp_path_factory.mktemp("orthanc")) as running:
        yield running


def query(orthanc: Orthanc) -> str:
    return f"""
[completion.query]
host = "127.0.0.1"
port = {orthanc.dicom_port}
ae_title = "PACS"
every_seconds = 0.3
"""


def ct(folder: Path, seed: int) -> tuple[list[Path], str]:
    files = make_ct_series(folder, slices=8, rows=32, columns=32, seed=seed)
    return files, str(dcmread(files[0], stop_before_pixels=True).StudyInstanceUID)


def told(node: NodeProcess, uid: str, action: str) -> list[Any]:
    """Return the details of what stands on a study's timeline under an action."""
    stores = node.stores()
    try:
        timeline = stores.events.timeline(stores.studies.get(uid).id)
    finally:
        stores.database.close()
    return [event.details for event in timeline if event.action == action]


def settled(node: NodeProcess, uid: str) -> tuple[StudyRecord, dict[str, Any]]:
    """Wait for a study's end; return it, and how it was completed."""
    study = node.wait_settled(uid)
    (completed,) = told(node, uid, "study.completed")
    assert completed == study.evidence
    return study, completed


def test_a_study_waits_for_the_instance_that_only_the_archive_has(
    orthanc: Orthanc, tmp_path: Path
) -> None:
    files, uid = ct(tmp_path / "ct", seed=1)
    storescu(orthanc.dicom_port, files, called="PACS")
    with NodeProcess(
        folder=tmp_path / "node",
        pacs_port=orthanc.dicom_port,
        wait_seconds=60,
        extra=query(orthanc),
    ) as node:
        storescu(node.port, files[:-1])
        wait_until(lambda: bool(told(node, uid, "study.waits")), "the study waits")
        storescu(node.port, files[-1:])
        study, completed = settled(node, uid)
    assert (completed["verdict"], study.revision, study.instances) == ("complete", 1, 8)
    (source,) = completed["sources"]
    assert (source["source"], source["expected"], source["received"]) == ("c-find", 8, 8)
    assert len(told_lines(node, "study.waits")) == 1


def test_an_instance_that_never_comes_is_known_missing_on_the_timeline(
    orthanc: Orthanc, tmp_path: Path
) -> None:
    files, uid = ct(tmp_path / "ct", seed=2)
    storescu(orthanc.dicom_port, files, called="PACS")
    with NodeProcess(
        folder=tmp_path / "node",
        pacs_port=orthanc.dicom_port,
        wait_seconds=1,
        extra=query(orthanc),
    ) as node:
        storescu(node.port, files[:-1])
        _, completed = settled(node, uid)
        assert completed["verdict"] == "known missing"
        assert [(item["expected"], item["received"]) for item in completed["missing"]] == [(8, 7)]
        assert own_series(node, uid)  # they lie in the archive now, and are not waited for
        storescu(node.port, files[-1:])
        study = node.wait_settled(uid, revision=2)
    assert (study.evidence["verdict"], study.revision) == ("complete", 2)


def test_an_archive_that_is_down_delays_nothing(orthanc: Orthanc, tmp_path: Path) -> None:
    files, uid = ct(tmp_path / "ct", seed=3)
    down = query(orthanc).replace(str(orthanc.dicom_port), "1")
    with NodeProcess(
        folder=tmp_path / "node", pacs_port=orthanc.dicom_port, wait_seconds=60, extra=down
    ) as node:
        storescu(node.port, files)
        _, completed = settled(node, uid)
    assert completed["verdict"] == "probably complete"
    assert completed["sources"][0]["why"] == "it does not answer"
    assert len(told_lines(node, "archive.count_not_known")) == 1


def own_series(node: NodeProcess, uid: str) -> frozenset[str]:
    """Return the series that the node made for a study."""
    stores = node.stores()
    try:
        return stores.expectations.own_series(stores.studies.get(uid).id)
    finally:
        stores.database.close()


def told_lines(node: NodeProcess, event: str) -> list[str]:
    """Return the log's lines of an event."""
    return [line for line in node.log().splitlines() if f'"{event}"' in line]


def test_the_list_of_a_procedure_step_completes_its_study_at_once(
    orthanc: Orthanc, tmp_path: Path
) -> None:
    files, uid = ct(tmp_path / "ct", seed=4)
    headers = [dcmread(file, stop_before_pixels=True) for file in files]
    with NodeProcess(
        folder=tmp_path / "node", pacs_port=orthanc.dicom_port, quiet_seconds=600
    ) as node:
        modality = AE(ae_title="CT1")
        modality.add_requested_context(PROCEDURE_STEP)
        association = modality.associate("127.0.0.1", node.port, ae_title="WETREAD")
        begun, _ = association.send_n_create(_step(uid), PROCEDURE_STEP, "2.25.1")
        storescu(node.port, files)
        ended, _ = association.send_n_set(_performed(headers), PROCEDURE_STEP, "2.25.1")
        again, _ = association.send_n_set(_performed(headers), PROCEDURE_STEP, "2.25.1")
        association.release()
        assert (begun.Status, ended.Status, again.Status) == (0x0000, 0x0000, 0x0110)
        _, completed = settled(node, uid)
    assert (completed["verdict"], completed["kind"]) == ("complete", "expected count")
    assert completed["sources"][0]["source"] == "mpps"


def _step(study_instance_uid: str) -> Dataset:
    scheduled, step = Dataset(), Dataset()
    scheduled.StudyInstanceUID = study_instance_uid
    step.ScheduledStepAttributesSequence = [scheduled]
    step.PerformedProcedureStepStatus = "IN PROGRESS"
    step.PerformedSeriesSequence = []
    return step


def _performed(headers: list[FileDataset]) -> Dataset:
    series, step = Dataset(), Dataset()
    series.SeriesInstanceUID = headers[0].SeriesInstanceUID
    series.ReferencedImageSequence = []
    for header in headers:
        image = Dataset()
        image.ReferencedSOPClassUID = header.SOPClassUID
        image.ReferencedSOPInstanceUID = header.SOPInstanceUID
        series.ReferencedImageSequence.append(image)
    step.PerformedSeriesSequence = [series]
    step.PerformedProcedureStepStatus = "COMPLETED"
    return step
