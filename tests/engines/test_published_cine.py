"""The left ventricle on real cine MR, against the steps and figures of the model's README."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from scipy import ndimage

from tests.engines.published import dice, files_in, imported, session

Find = Callable[[str], Path]
PATIENTS = {"SC-N-09": (67.6, 63.9), "SC-HF-I-11": (15.7, 13.3), "SC-HYP-10": (62.6, 60.3)}
"""Ejection fraction in percent: of the README, and of its experts."""


@pytest.mark.parametrize("patient", sorted(PATIENTS))
def test_hearts_eject_what_the_readme_says(patient: str, shared: Find, tmp_path: Path) -> None:
    """Each slice by itself, above 0.5, the largest component of each phase."""
    folder = shared(f"data/mr_cine_sunnybrook/{patient}")
    model = shared("models/lv_unet_sunnybrook/lv_unet.onnx")
    outcome = imported(model, "lv_unet_sunnybrook", tmp_path, files_in(folder))
    of_readme, of_experts = PATIENTS[patient]
    (fraction,) = [m.value for f in outcome.findings for m in f.measurements if m.unit.value == "%"]
    assert fraction == pytest.approx(of_readme, abs=0.06)
    assert fraction == pytest.approx(of_experts, abs=5)
    net, sizes = session(model), []
    for phase, finding in enumerate(outcome.findings, 1):
        slices = [dcmread(path) for path in folder.glob("*.dcm")]
        slices = [item for item in slices if item.TemporalPositionIdentifier == phase]
        slices.sort(key=lambda item: float(item.ImagePositionPatient[2]))
        images = [item.pixel_array.astype(np.float64) for item in slices]
        tensor = np.stack([(image - image.mean()) / image.std() for image in images])[:, None]
        found = net.run(None, {"image": tensor.astype(np.float32)})[0][:, 0] > 0.5
        labels, _ = ndimage.label(found)
        counts = np.bincount(labels.ravel())
        expected = labels == 1 + int(np.argmax(counts[1:]))
        sources = {source.sop_instance_uid: i for i, source in enumerate(outcome.sources)}
        drawn = finding.mask[[sources[item.SOPInstanceUID] for item in slices]]
        assert drawn.sum() == finding.mask.sum()
        assert dice(drawn, expected) >= 0.99
        sizes.append(expected.sum())
    assert fraction == pytest.approx(100 * (1 - sizes[1] / sizes[0]), abs=0.05)


def test_experts_are_the_ones_of_the_data(shared: Find) -> None:
    with shared("data/mr_cine_sunnybrook/reference.csv").open() as lines:
        found = {
            row["patient"]: float(row["ef_percent_from_expert_masks"])
            for row in csv.DictReader(lines)
        }
    assert found == {patient: experts for patient, (_, experts) in PATIENTS.items()}
