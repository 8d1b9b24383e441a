"""Published models of the chest, imported, against plain pipelines that follow each model's README.

Where ../shared is absent these are named as not run; see `shared_data`.
"""

from __future__ import annotations

import csv
import tomllib
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from scipy import ndimage

from engines.base import open_engine
from engines.findings import ImageAnalysis, Refusal
from engines.importing import import_model
from tests.engines.published import (
    ANSWERS,
    Find,
    Floats,
    dice,
    files_in,
    imported,
    mask,
    session,
    stacked,
    volume,
)
from tests.factories import instance_files


def test_lungs_are_those_of_the_readme(shared: Find, tmp_path: Path) -> None:
    """5774 mL; halves of 2 x 2, slice by slice, above 0.5, the two largest components."""
    folder, model = shared("data/petct_acrin_042/ct"), shared("models/lung_unet_ct/lung_unet.onnx")
    outcome = imported(model, "lung_unet_ct", tmp_path, files_in(folder))
    stack = stacked(folder)
    image = (np.clip(stack.values, -1000, 400) + 1000) / 1400
    image = image.reshape(len(image), 256, 2, 256, 2).mean(axis=(2, 4))[:, None]
    net = session(model)
    found = np.concatenate(
        [net.run(None, {"image": part[None].astype(np.float32)})[0] for part in image]
    )
    labels, _ = ndimage.label(found[:, 0] > 0.5)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    kept = np.isin(labels, np.argsort(sizes)[-2:])
    expected = kept.repeat(2, axis=1).repeat(2, axis=2)
    assert dice(mask(outcome, "lungs"), expected) >= 0.99
    assert volume(outcome, "lungs") == pytest.approx(5774, rel=0.002)


def test_lungs_that_cannot_be_are_held_back(shared: Find, tmp_path: Path) -> None:
    """The abdomen has half a millilitre of what the net takes for lung."""
    model = shared("models/lung_unet_ct/lung_unet.onnx")
    package = import_model(model, ANSWERS / "lung_unet_ct" / "engine.toml", tmp_path / "lungs")
    with open_engine(package, threads=2) as engine:
        outcome = engine.run(files_in(shared("data/ct_abdomen_totalseg")))
    assert isinstance(outcome, Refusal)
    assert outcome.reason.value in {"IMPLAUSIBLE", "BODY_PART", "FEW_SLICES"}


CHESTS = {
    "cxr_nih_mobilenetv3": ("cxr_mobilenetv3_fp32.onnx", 12),
    "cxr_nih_mobilenetv3_int8": ("model_int8.onnx", 12),
}
"""Model, and in how many of 23 images the top class is right; the README has it of the first."""


@pytest.mark.parametrize("name", sorted(CHESTS))
def test_chest_findings_are_those_of_the_readme(name: str, shared: Find, tmp_path: Path) -> None:
    """Resized without keeping the aspect, softmax."""
    folder = shared("data/cxr_nih")
    file, most = CHESTS[name]
    model = shared(f"models/cxr_nih_mobilenetv3/{file}")
    answers = ANSWERS / name / "engine.toml"
    package = import_model(model, everything_counts(answers, tmp_path), tmp_path / "cxr")
    net, right = session(model), 0
    names = shared("models/cxr_nih_mobilenetv3/labels.txt").read_text().splitlines()
    with (folder / "labels.csv").open() as lines:
        labels = {row["file"]: row["finding_labels"].split("|") for row in csv.DictReader(lines)}
    with open_engine(package, threads=2) as engine:
        for path in sorted(folder.glob("*.dcm")):
            outcome = engine.run(instance_files([path]))
            assert isinstance(outcome, ImageAnalysis), outcome
            found = {item.key: item.measurements[0].value / 100 for item in outcome.findings}
            pixels = dcmread(path).pixel_array.astype(np.float64)
            small = bilinear(pixels, 224)
            logits = net.run(
                None, {"input": ((small / 255 - 0.485) / 0.229)[None, None].astype(np.float32)}
            )[0][0]
            shares = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
            expected = {
                item["key"]: float(shares[item["index"]])
                for item in tomllib.loads(answers.read_text())["classification"]["classes"]
            }
            assert found == pytest.approx(expected, abs=1e-3)
            right += names[int(shares.argmax())] in labels[path.name]
    assert right == most


def everything_counts(answers: Path, folder: Path) -> Path:
    """Return the answers with every threshold at 0."""
    changed = folder / "answers.toml"
    changed.write_text(answers.read_text().replace("threshold = 0.5", "threshold = 0.0"))
    return changed


def bilinear(image: Floats, size: int) -> Floats:
    """Resize to a square; pixels are areas, and what lies beyond the edge is as the edge."""
    rows, columns = ((np.arange(size) + 0.5) * n / size - 0.5 for n in image.shape)
    low_rows = np.clip(np.floor(rows).astype(int), 0, image.shape[0] - 2)
    low_columns = np.clip(np.floor(columns).astype(int), 0, image.shape[1] - 2)
    down = np.clip(rows - low_rows, 0, 1)[:, None]
    across = np.clip(columns - low_columns, 0, 1)[None]
    upper, lower = image[low_rows], image[low_rows + 1]
    top = upper[:, low_columns] * (1 - across) + upper[:, low_columns + 1] * across
    bottom = lower[:, low_columns] * (1 - across) + lower[:, low_columns + 1] * across
    found: Floats = top * (1 - down) + bottom * down
    return found
