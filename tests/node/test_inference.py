"""A job as the sandbox runs it, with the engine that ships."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest

from engines.package import load_package, shipped_folder
from node.inference import run_job_operation
from node.messages import InstanceMessage, JobAnswer, JobRequest
from node.results.key_object import KeyObjectWriter
from node.results.presentation_state import PresentationStateWriter
from node.results.secondary_capture import SecondaryCaptureWriter
from tests.factories import instance_files, make_ct_series

ENGINE = shipped_folder() / "ct_body_composition"
CREATED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def run(folder: Path) -> Counter[str]:
    """Run the job of a small series; return how many objects each writer made."""
    files = instance_files(make_ct_series(folder / "source", slices=8, rows=64, columns=64))
    (folder / "staging").mkdir()
    request = JobRequest(
        engine_folder=ENGINE,
        engine_digest=load_package(ENGINE).digest,
        instances=tuple(
            InstanceMessage(
                path=file.path,
                sop_instance_uid=file.sop_instance_uid,
                sop_class_uid=file.sop_class_uid,
            )
            for file in files
        ),
        series_instance_uids=("1.2.3",),
        staging=folder / "staging",
        threads=1,
        job_key="job",
        generation=1,
        created=CREATED,
        series_created=CREATED,
        rule="bodies",
        rule_revision=1,
        device={
            "manufacturer": "wetread",
            "model": "wetread",
            "serial_number": "1",
            "station_name": "NODE",
            "software_version": "0",
        },
        superseded=(),
    )
    answer = run_job_operation(request.model_dump(mode="json"), lambda _: None)
    made = JobAnswer.model_validate(answer).results
    return Counter(result.writer for result in made)


def test_writers_run_that_are_made_by_default(tmp_path: Path) -> None:
    assert run(tmp_path) == {"segmentation": 1, "measurement_report": 1, "text_report": 1}


def test_writers_that_draw_on_images_are_shown_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for writer in (PresentationStateWriter, SecondaryCaptureWriter, KeyObjectWriter):
        monkeypatch.setattr(writer, "by_default", True)
    made = run(tmp_path)
    assert made["presentation_state"] == 1
    assert made["secondary_capture"] == 1 + 8
    assert made["key_object"] == 1
