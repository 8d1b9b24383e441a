"""Real CT through the whole node: C-STORE in, plausible volumes out, or a refusal that says why."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from pydicom import dcmread

from node.delivery.dimse import DimseTarget, DimseTargetSettings
from node.demo_data import demo_studies
from node.interfaces import Outgoing, SendVerdict, Sent
from node.pacs import StandInPacs
from storage.records import JobRecord
from storage.states import JobState
from tests.end_to_end.processes import PATIENCE_SECONDS, NodeProcess

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    folder = tmp_path_factory.mktemp("real")
    pacs = StandInPacs(folder / "pacs", ae_title="PACS", host="127.0.0.1", port=0)
    pacs.start()
    with NodeProcess(folder=folder / "node", pacs_port=pacs.port) as process:
        yield process
    pacs.stop()


def data(*parts: str) -> Path:
    """Return a folder of real data, or skip by name where it is not beside the checkout."""
    folder = SHARED.joinpath(*parts)
    if not folder.is_dir():
        pytest.skip(f"real data {'/'.join(parts)} is not beside the checkout")
    return folder


def outgoing(files: Sequence[Path]) -> list[Outgoing]:
    found = []
    for file in files:
        header = dcmread(file, stop_before_pixels=True)
        found.append(
            Outgoing(
                sop_class_uid=header.SOPClassUID,
                sop_instance_uid=header.SOPInstanceUID,
                transfer_syntax_uid=header.file_meta.TransferSyntaxUID,
                path=file,
            )
        )
    return found


def job_of(
    node: NodeProcess, files: Sequence[Path], *, seconds: float = PATIENCE_SECONDS
) -> JobRecord:
    """Send files, wait for their study, return its one job."""
    (job,) = jobs_of(node, files, seconds=seconds)
    return job


def jobs_of(
    node: NodeProcess, files: Sequence[Path], *, seconds: float = PATIENCE_SECONDS
) -> Sequence[JobRecord]:
    """Send files, wait for their study, return its jobs."""
    verdicts: list[SendVerdict] = []

    def report(_: int, sent: Sent) -> None:
        verdicts.append(sent.verdict)

    DimseTarget(DimseTargetSettings(host="127.0.0.1", port=node.port, ae_title="WETREAD")).send(
        outgoing(files), report
    )
    assert verdicts == [SendVerdict.ACCEPTED] * len(files)
    study = str(dcmread(files[0], stop_before_pixels=True).StudyInstanceUID)
    record = node.wait_settled(study, seconds=seconds)
    stores = node.stores()
    try:
        return stores.jobs.list(study_id=record.id)
    finally:
        stores.database.close()


def volumes(job: JobRecord) -> Mapping[str, float]:
    """Return the volume of each finding in mL, by the first word of its label."""
    found: dict[str, float] = {}
    findings = job.summary["findings"]
    assert isinstance(findings, list)
    for finding in findings:
        assert isinstance(finding, dict)
        measurements = finding["measurements"]
        assert isinstance(measurements, list)
        for item in measurements:
            assert isinstance(item, dict)
            if item["name"] == "Volume":
                found[str(finding["label"]).split()[0].lower()] = float(str(item["value"]))
    return found


def test_chest_ct_has_lungs_near_six_litres_and_every_tissue(node: NodeProcess) -> None:
    job = job_of(node, sorted(data("petct_acrin_042", "ct").glob("*.dcm")))
    assert job.state is JobState.SUCCEEDED
    found = volumes(job)
    assert found["lung"] == pytest.approx(5800, rel=0.1)
    assert 5_000 < found["adipose"] < 15_000
    assert 10_000 < found["soft"] < 20_000
    assert 1_000 < found["bone"] < 4_000


def test_abdomen_ct_in_jpeg_2000_has_soft_tissue_fat_and_bone(
    node: NodeProcess, tmp_path: Path
) -> None:
    data("ct_abdomen_totalseg")
    (abdomen,) = [s for s in demo_studies(tmp_path) if s.name == "abdomen-ct"]
    job = job_of(node, abdomen.files)
    assert job.state is JobState.SUCCEEDED
    found = volumes(job)
    assert found["soft"] > found["adipose"] > found["bone"] > 50


def test_tilted_unevenly_spaced_head_ct_is_refused_and_says_so(node: NodeProcess) -> None:
    job = job_of(node, sorted(data("ct_head_gantry_tilt", "ge").glob("*.dcm")))
    assert job.state is JobState.REFUSED
    assert any(word in str(job.summary).lower() for word in ("tilt", "shear", "spac", "uneven"))


@pytest.mark.parametrize(
    "syntax",
    [
        "LittleEndianImplicit",
        "LittleEndianExplicit",
        "BigEndianExplicit",
        "DeflatedExplicitVRLittleEndian",
        "RLELossless",
        "JPEGProcess14SV1",
        "JPEGProcess14Transfer",
        "JPEGLSLossless",
        "JPEG2000LosslessOnly",
    ],
)
def test_one_slice_gives_the_same_areas_in_every_lossless_transfer_syntax(
    syntax: str, node: NodeProcess, tmp_path: Path
) -> None:
    folder = data("transfer_syntaxes_ct")
    areas = []
    for number, name in enumerate(("LittleEndianExplicit", syntax)):
        (file,) = folder.glob(f"CTImage.dcm_{name}*.dcm")
        dataset = dcmread(file)
        dataset.StudyInstanceUID = (
            f"2.25.{number + 1}{uuid.uuid5(uuid.NAMESPACE_OID, syntax).int % 10**20}"
        )
        copy = tmp_path / f"{number}.dcm"
        dataset.save_as(copy, enforce_file_format=True)
        job = job_of(node, [copy])
        assert job.state is JobState.SUCCEEDED
        areas.append(job.summary["findings"])
    assert areas[0] == areas[1]
