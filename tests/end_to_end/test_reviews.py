"""What an engine does not believe goes to nobody before a person has seen it, who is told why."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import SegmentationStorage

from node.pacs import StandInPacs
from storage.states import JobState
from tests.end_to_end.packages import copy_package
from tests.end_to_end.processes import RULES, NodeProcess, storescu, wait_until
from tests.end_to_end.test_imported_engines import sentences
from tests.end_to_end.test_invariants import jobs_of, results_at, study_of
from tests.factories import make_ct_series

WHY = "Bone (above 150 HU) would have"


@pytest.fixture
def pacs(tmp_path: Path) -> Iterator[StandInPacs]:
    standin = StandInPacs(tmp_path / "pacs", ae_title="PACS", host="127.0.0.1", port=0)
    standin.start()
    yield standin
    standin.stop()


@pytest.fixture
def node(tmp_path: Path, pacs: StandInPacs) -> Iterator[NodeProcess]:
    package = copy_package(tmp_path / "engines" / "doubting", name="doubting")
    manifest = package / "engine.toml"
    text = manifest.read_text()
    doubt = 'otherwise = "soft-tissue"\nplausible_ml = [0.0, 1.0]\n'
    changed = text.replace('otherwise = "soft-tissue"\n\n[files]', f"{doubt}\n[files]")
    assert changed != text
    manifest.write_text(changed)
    with NodeProcess(
        folder=tmp_path / "node",
        pacs_port=pacs.port,
        rules=RULES.replace("ct-body-composition", "doubting"),
        extra=f'[engines]\nfolders = ["{package.parent}"]',
    ) as process:
        yield process


def wetread(node: NodeProcess, *words: str) -> str:
    """Run a command as a person would; return what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "node", "results", *words, "--config", str(node.config)],
        cwd=node.code,
        env={**os.environ, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def segmentations(pacs: StandInPacs) -> int:
    return sum(item.SOPClassUID == SegmentationStorage for item in results_at(pacs))


def shown(node: NodeProcess, review: int, folder: Path) -> list[Dataset]:
    """Look at what is held, and at its pictures; return the objects."""
    assert WHY in wetread(node, "show", str(review), str(folder))
    pictures = sorted(folder.glob("*secondary_capture.png"))
    assert pictures
    picture = np.asarray(Image.open(pictures[-1]))
    assert picture.ndim == 3
    assert picture.std() > 1
    held: list[Dataset] = [dcmread(path) for path in folder.glob("*.dcm")]
    assert SegmentationStorage in {item.SOPClassUID for item in held}
    return held


def test_an_implausible_result_waits_for_a_person_who_sees_it_and_releases_it(
    tmp_path: Path, node: NodeProcess, pacs: StandInPacs
) -> None:
    files = make_ct_series(tmp_path / "ct", slices=6, rows=96, columns=96)
    storescu(node.port, files)
    uid = study_of(files)
    node.wait_settled(uid)
    (job,) = jobs_of(node, uid)
    assert job.state is JobState.REFUSED
    told = results_at(pacs)
    assert told
    assert not segmentations(pacs)
    assert any(WHY in sentences(item) for item in told)

    (review,) = json.loads(wetread(node, "held", "--json"))
    assert (review["study_instance_uid"], review["state"]) == (uid, "waiting")
    assert review["reason"].startswith(WHY)
    assert WHY in wetread(node, "held")

    held = shown(node, review["id"], tmp_path / "held")
    sent = {item.SOPInstanceUID for item in told}
    assert not sent & {item.SOPInstanceUID for item in held}

    printed = wetread(node, "release", str(review["id"]), "--by", "dr", "--comment", "metal")
    assert "released: " in printed
    wait_until(lambda: segmentations(pacs) == 1, "the released segmentation arrives")
    node.wait_settled(uid)
    released = [item for item in results_at(pacs) if item.SOPInstanceUID not in sent]
    assert {item.SOPInstanceUID for item in released} <= {item.SOPInstanceUID for item in held}
    said = [sentences(item) for item in released]
    assert any("a person released it" in text and WHY in text for text in said)
    assert "released dr" in wetread(node, "held", "--all")
    assert json.loads(wetread(node, "held", "--json")) == []
