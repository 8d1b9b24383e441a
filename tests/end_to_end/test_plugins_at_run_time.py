"""A second engine and a second result writer are two new files each; no other file is touched."""

from __future__ import annotations

import shutil
from pathlib import Path

from pydicom import dcmread

from node.pacs import HeldInstance, StandInPacs
from storage.states import JobState
from tests.end_to_end.packages import copy_package
from tests.end_to_end.processes import RULES, NodeProcess, storescu
from tests.factories import make_ct_series

ROOT = Path(__file__).parents[2]
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


def cards_at(pacs: StandInPacs) -> list[HeldInstance]:
    """Return the summary cards that a PACS holds, of all its secondary captures."""
    held = (
        item for study in pacs.listing() for series in study.series for item in series.instances
    )
    captures = (item for item in held if item.sop_class_uid == SECONDARY_CAPTURE)
    return [item for item in captures if dcmread(item.path, specific_tags=["Rows"]).Rows == 8]


def test_second_engine_and_second_result_writer_need_only_their_own_files(tmp_path: Path) -> None:
    code = tmp_path / "code"
    for package in ("node", "engines", "storage"):
        shutil.copytree(ROOT / package, code / package)
    (code / "node/results/summary_card.py").write_text(SUMMARY_CARD)
    copy_package(tmp_path / "engines/second", name="second-engine")
    pacs = StandInPacs(tmp_path / "pacs", ae_title="PACS", host="127.0.0.1", port=0)
    pacs.start()
    node = NodeProcess(
        folder=tmp_path / "node",
        pacs_port=pacs.port,
        rules=RULES.replace('["ct-body-composition"]', '["ct-body-composition", "second-engine"]'),
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
        cards = cards_at(pacs)
    finally:
        pacs.stop()
    assert jobs == {
        "ct-body-composition": JobState.SUCCEEDED,
        "second-engine": JobState.SUCCEEDED,
    }
    assert len(cards) == 2
