"""Published nets of the whole head on real T1 MR: C-STORE in, Segmentations out.

They are held against a plain pipeline and the figures of the models' own descriptions. Where
../shared is absent this is named as not run.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest
from highdicom.seg import Segmentation, segread
from pydicom import dcmread

from engines.importing import import_model
from node.pacs import StandInPacs
from storage.states import JobState
from tests.end_to_end.processes import NodeProcess
from tests.end_to_end.test_real_data import jobs_of
from tests.engines.published import ANSWERS, dice, slices_in, stacked
from tests.engines.published_brains import BRAINS, HEAD, Labels, plain_labels
from tests.places import ROOT

SHARED = ROOT.parent / "shared"
NETS = ("brain_meshnet_18", "brain_meshnet_gwm", "brain_mindgrab")
RULES = """
[[rules]]
name = "brain"
owner = "tests"
priority = "routine"
trigger = "series"
engines = ["brain-meshnet-18", "brain-meshnet-gwm", "brain-mindgrab"]
destinations = ["pacs"]
conditions = {field = "Modality", op = "equals", value = "MR", level = "series"}
"""
PATIENCE_SECONDS = 1200  # minutes of forward passes, on a machine that runs other tests too


@pytest.mark.long
def test_a_head_comes_back_with_the_structures_and_the_brain_of_the_descriptions(
    tmp_path: Path,
) -> None:
    if not SHARED.is_dir():
        pytest.skip("NOT RUN: ../shared is not on this machine")
    for name in NETS:
        model = SHARED / "models" / BRAINS[name].model
        import_model(model, ANSWERS / name / "engine.toml", tmp_path / "engines" / name)
    files = sorted((SHARED / HEAD).glob("*.dcm"))
    pacs = StandInPacs(tmp_path / "pacs", ae_title="PACS", host="127.0.0.1", port=0)
    pacs.start()
    extra = f'[engines]\nfolders = ["{tmp_path / "engines"}"]\nladder = ["openvino"]\n'
    with NodeProcess(
        folder=tmp_path / "node", pacs_port=pacs.port, rules=RULES, extra=extra
    ) as node:
        jobs = jobs_of(node, files, seconds=PATIENCE_SECONDS)
    pacs.stop()
    assert [job.state for job in jobs] == [JobState.SUCCEEDED] * len(NETS)
    for name in NETS:
        check(name, segmentation(tmp_path / "pacs", name.replace("_", "-")))


def segmentation(received: Path, engine: str) -> Segmentation:
    """Return the Segmentation of an engine among what the PACS has."""
    (path,) = [
        path
        for path in received.rglob("*.dcm")
        if (head := dcmread(path, stop_before_pixels=True)).Modality == "SEG"
        and f"AI {engine} " in head.SeriesDescription
    ]
    return segread(path)


def read_back(found: Segmentation) -> Labels:
    """Return the segment of each voxel of the series, slices in the order of `stacked`."""
    slices = slices_in(SHARED / HEAD, pixels=False)
    labels: Labels = found.get_pixels_by_source_instance(
        [item.SOPInstanceUID for item in slices],
        combine_segments=True,
        assert_missing_frames_are_empty=True,
    ).astype(np.uint8)
    return labels


def check(name: str, found: Segmentation) -> None:
    """Voxels against the plain pipeline, volumes against the description."""
    brain, stack = BRAINS[name], stacked(SHARED / HEAD)
    answers = tomllib.loads((ANSWERS / name / "engine.toml").read_text())
    keys = [segment["key"] for segment in answers["segmentation"]["segments"]]
    assert set(brain.volumes) <= set(keys)
    expected = plain_labels(brain, SHARED / "models" / brain.model, stack)
    labels = read_back(found)
    millilitres = abs(float(np.linalg.det(stack.affine[:3, :3]))) / 1000
    for value, key in enumerate(keys, 1):
        assert dice(labels == value, expected == value) >= 0.99, key
        if key in brain.volumes:
            volume = millilitres * float((labels == value).sum())
            assert volume == pytest.approx(brain.volumes[key], rel=brain.tolerance), key
