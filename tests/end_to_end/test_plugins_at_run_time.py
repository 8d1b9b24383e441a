"""An engine, a result writer, a kind of task and a runtime are new files; no other is touched."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pydicom import dcmread

from engines.base import Task, discover
from node.pacs import HeldInstance, StandInPacs
from storage.states import JobState
from tests.end_to_end.dropped_in.tests.engines.tasks.examples.brightness import write_parts
from tests.end_to_end.packages import copy_package
from tests.end_to_end.processes import RULES, NodeProcess, storescu
from tests.factories import make_ct_series

ROOT = Path(__file__).parents[2]
DROPPED_IN = Path(__file__).parent / "dropped_in"
CONFORMANCE = [
    "tests/engines/tasks/test_conformance.py",
    "tests/engines/runtimes/test_conformance.py",
]
ALL_RUN = "test_every_runtime_here_gives_what_the_reference_gives"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
SUMMARY_CARD = '''"""A one-colour secondary capture that names the engine."""

import uuid
from pathlib import Path
from typing import ClassVar

from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset

from engines.findings import Analysis, Outcome
from node.interfaces import ResultContext, ResultError, ResultWriter


class SummaryCard(ResultWriter):
    """Writes one secondary capture."""

    name: ClassVar[str] = "summary_card"

    def handles(self, outcome: Outcome) -> bool:
        return isinstance(outcome, Analysis)

    def write(self, context: ResultContext) -> tuple[Dataset, ...]:
        source = context.sources[0]
        card = Dataset()
        card.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
        key = f"{context.job_key}|{context.generation}|card"
        card.SOPInstanceUID = f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, key).int}"
        card.SeriesInstanceUID = f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, key + 'series').int}"
        card.StudyInstanceUID = source.StudyInstanceUID
        card.PatientID, card.PatientName = source.PatientID, source.PatientName
        card.Modality = "OT"
        card.SeriesDescription = f"AI {context.engine.name} (unverified)"
        card.Rows = card.Columns = 8
        card.SamplesPerPixel, card.PhotometricInterpretation = 1, "MONOCHROME2"
        card.BitsAllocated = card.BitsStored = 8
        card.HighBit, card.PixelRepresentation = 7, 0
        card.PixelData = bytes(64)
        card.file_meta = FileMetaDataset()
        card.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
        return (card,)

    def check(self, path: Path, context: ResultContext) -> None:
        if dcmread(path).Rows != 8:
            raise ResultError("the card has the wrong size")
'''


def reports_at(pacs: StandInPacs) -> list[str]:
    """Return what the structured reports that a PACS holds say."""
    held = [
        dcmread(item.path)
        for study in pacs.listing()
        for series in study.series
        for item in series.instances
    ]
    return [str(report) for report in held if report.Modality == "SR"]


def cards_at(pacs: StandInPacs) -> list[HeldInstance]:
    """Return the summary cards that a PACS holds, of all its secondary captures."""
    held = (
        item for study in pacs.listing() for series in study.series for item in series.instances
    )
    captures = (item for item in held if item.sop_class_uid == SECONDARY_CAPTURE)
    return [item for item in captures if dcmread(item.path, specific_tags=["Rows"]).Rows == 8]


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the code with a new result writer, kind of task and runtime."""
    code = tmp_path_factory.mktemp("code")
    for folder in ("node", "engines", "storage", "tests", "config"):
        shutil.copytree(ROOT / folder, code / folder)
    shutil.copy(ROOT / "pyproject.toml", code)
    (code / "node/results/summary_card.py").write_text(SUMMARY_CARD)
    shutil.copytree(DROPPED_IN, code, dirs_exist_ok=True)
    return code


def engines_command(code: Path, *arguments: str) -> str:
    """Run `wetread engines` of that code; it must succeed."""
    done = subprocess.run(
        [sys.executable, "-m", "node", "engines", *arguments],
        cwd=code, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_new_kinds_of_everything_need_only_their_own_files(code: Path, tmp_path: Path) -> None:
    copy_package(tmp_path / "engines/second", name="second-engine")
    net, answers = write_parts(tmp_path, "plain_onnx")
    third = str(tmp_path / "engines/third")
    engines_command(code, "import", str(net), "--answers", str(answers), "--to", third)
    assert "golden case passed" in engines_command(code, "check", "--run", third)
    pacs = StandInPacs(tmp_path / "pacs", ae_title="PACS", host="127.0.0.1", port=0)
    pacs.start()
    names = ["ct-body-composition", "second-engine", "bright"]
    node = NodeProcess(
        folder=tmp_path / "node",
        pacs_port=pacs.port,
        rules=RULES.replace('["ct-body-composition"]', json.dumps(names)),
        extra=f'[engines]\nfolders = ["{tmp_path / "engines"}"]',
        code=code,
    )
    files = make_ct_series(tmp_path / "ct", slices=5, rows=64, columns=64)
    uid = str(dcmread(files[0], stop_before_pixels=True).StudyInstanceUID)
    try:
        with node:
            storescu(node.port, files)
            record = node.wait_settled(uid)
            stores = node.stores()
            try:
                jobs = {job.engine: job.state for job in stores.jobs.list(study_id=record.id)}
            finally:
                stores.database.close()
        cards, reports = cards_at(pacs), reports_at(pacs)
    finally:
        pacs.stop()
    assert jobs == dict.fromkeys(names, JobState.SUCCEEDED)
    assert len(cards) == 2
    assert sum("Bright image" in report for report in reports) >= 1


def test_new_tasks_and_runtimes_are_held_against_what_all_must_keep(code: Path) -> None:
    """Each new one on all there were, too: the new runtime runs every task."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *CONFORMANCE,
         "-k", "brightness or plain_onnx", "-rA"],
        cwd=code, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-5000:]
    passed = {line.rpartition("::")[2] for line in done.stdout.splitlines() if "PASSED" in line}
    ran = {re.sub(r"\[.*", "", line) for line in passed}
    assert {f"{ALL_RUN}[{task}-plain_onnx]" for task in discover("tasks", Task)} <= passed  # type: ignore[type-abstract]
    assert f"{ALL_RUN}[brightness-onnxruntime]" in passed
    assert {
        "test_findings_are_coded_sought_and_of_the_images_given",
        "test_a_model_that_gives_what_it_should_not_is_a_typed_error",
        "test_inputs_of_another_type_or_shape_are_an_inference_error",
    } <= ran
