"""Published and own models, imported, against plain pipelines that follow each model's README.

Where ../shared is absent these are named as not run; see `shared_data`.
"""

from __future__ import annotations

import csv
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest
from pydicom import dcmread
from scipy import ndimage

from engines.base import open_engine
from engines.findings import Analysis, ImageAnalysis, Refusal
from engines.images import InstanceFile
from engines.importing import import_model
from tests.factories import instance_files

Find = Callable[[str], Path]
Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.uint8]
ANSWERS = Path(__file__).parents[2] / "config" / "engines"
LIA = np.array([[1.0, 0, 0], [0, 0, -1.0], [0, -1.0, 0]])
"""Columns: where array axes 0, 1, 2 point in LPS: left, down, to the front."""


@dataclass(frozen=True)
class Stack:
    """A series as pydicom reads it: values [slice, row, column], index to LPS float64 [4, 4]."""

    values: Floats
    affine: Floats


def stacked(folder: Path) -> Stack:
    slices = [dcmread(path) for path in sorted(folder.rglob("*.dcm"))]
    across, down = np.reshape(slices[0].ImageOrientationPatient, (2, 3)).astype(float)
    normal = np.cross(across, down)
    slices.sort(key=lambda item: float(np.dot(normal, item.ImagePositionPatient)))
    first, last = (np.array(slices[i].ImagePositionPatient, float) for i in (0, -1))
    rows, columns = map(float, slices[0].PixelSpacing)
    affine = np.eye(4)
    affine[:3, :3] = np.stack(
        [(last - first) / (len(slices) - 1), down * rows, across * columns], axis=1
    )
    affine[:3, 3] = first
    values = np.stack(
        [
            item.pixel_array * float(item.get("RescaleSlope", 1))
            + float(item.get("RescaleIntercept", 0))
            for item in slices
        ]
    )
    return Stack(values, affine)


def session(model: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def dice(a: npt.NDArray[np.bool_], b: npt.NDArray[np.bool_]) -> float:
    return 2 * float((a & b).sum()) / float(a.sum() + b.sum())


def imported(model: Path, answers: str, tmp_path: Path, files: list[InstanceFile]) -> Analysis:
    """Run the imported engine on real DICOM."""
    package = import_model(model, ANSWERS / answers / "engine.toml", tmp_path / answers)
    with open_engine(package, threads=2) as engine:
        outcome = engine.run(files)
    assert isinstance(outcome, Analysis), outcome
    return outcome


def volume(outcome: Analysis, key: str) -> float:
    (segment,) = [item for item in outcome.findings if item.key == key]
    return next(m.value for m in segment.measurements if m.name.meaning == "Volume")


def mask(outcome: Analysis, key: str) -> npt.NDArray[np.bool_]:
    return next(item.mask for item in outcome.findings if item.key == key)


def files_in(folder: Path) -> list[InstanceFile]:
    return instance_files(sorted(folder.rglob("*.dcm")))


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


def conformed(stack: Stack) -> tuple[Floats, Floats]:
    """Return the head at 1 mm, 256 voxels a side, axes L, I, A, 0 to 255; and its affine."""
    shape = np.array(stack.values.shape)
    centre = stack.affine[:3, :3] @ ((shape - 1) / 2) + stack.affine[:3, 3]
    affine = np.eye(4)
    affine[:3, :3] = LIA
    affine[:3, 3] = centre - LIA @ np.full(3, 127.5)
    index = np.linalg.inv(stack.affine) @ affine
    places = np.indices((256, 256, 256)).reshape(3, -1)
    found = ndimage.map_coordinates(
        stack.values, index[:3, :3] @ places + index[:3, 3:], order=1, mode="constant"
    ).reshape(256, 256, 256)
    return np.clip(found * 255 / np.quantile(found[found != 0], 0.999), 0, 255), affine


def head_in(image: Floats) -> tuple[tuple[slice, ...], Floats]:
    """Return where the head lies, to which the READMEs allow to cut, and its first corner."""
    axes = ((1, 2), (0, 2), (0, 1))
    ends = [np.flatnonzero((image > 20).any(axis=others))[[0, -1]] for others in axes]
    first, last = np.transpose(ends)
    first, last = np.maximum(first - 4, 0), np.minimum(last + 5, image.shape)
    return tuple(map(slice, first, last)), first


def carried_back(
    labels: npt.NDArray[np.uint8], affine: Floats, stack: Stack
) -> npt.NDArray[np.uint8]:
    index = np.linalg.inv(affine) @ stack.affine
    places = np.indices(stack.values.shape).reshape(3, -1)
    found: Labels = ndimage.map_coordinates(
        labels, index[:3, :3] @ places + index[:3, 3:], order=0, mode="constant"
    ).reshape(stack.values.shape)
    return found


@dataclass(frozen=True)
class Brain:
    """A net of the brain: its model, what its README does to 0..255, and volumes it gives."""

    model: str
    scale: Callable[[Floats], Floats]
    volumes: dict[str, float]
    tolerance: float


def between(low: float, high: float) -> Callable[[Floats], Floats]:
    def scaled(image: Floats) -> Floats:
        a, b = np.quantile(image, [low, high])
        found: Floats = (image - a) / (b - a)
        return found

    return scaled


BRAINS = {
    "brain_meshnet_gwm_light": Brain(
        "brain_meshnet_gwm/gwm_light_5ch.onnx",
        between(0, 1),
        {"white-matter": 606, "grey-matter": 576},
        0.03,
    ),
    "brain_meshnet_18": Brain(
        "brain_meshnet_18/subcortical_18cls.onnx",
        lambda image: image / 255,
        {
            "cerebral-white-matter": 571.2,
            "cerebral-cortex": 634.8,
            "lateral-ventricle": 26.7,
            "thalamus": 17.5,
            "caudate": 9.7,
            "putamen": 13.3,
            "pallidum": 3.8,
            "brain-stem": 23.4,
            "hippocampus": 8.7,
            "amygdala": 4.5,
        },
        0.05,
    ),
    "brain_meshnet_gwm": Brain(
        "brain_meshnet_gwm/gwm_20ch.onnx",
        between(0.05, 0.95),
        {"white-matter": 467, "grey-matter": 501},
        0.1,  # the README does not say whether its quantiles are of the head or of the whole
    ),
    "brain_mindgrab": Brain(
        "brain_mindgrab/mindgrab.onnx", between(0.02, 0.98), {"brain": 1902}, 0.03
    ),
}


@pytest.mark.parametrize("answers", sorted(BRAINS))
def test_brains_are_those_of_the_readme(answers: str, shared: Find, tmp_path: Path) -> None:
    """Conformed around the centre, the whole head at once, argmax, nearest neighbour back."""
    brain = BRAINS[answers]
    folder, model = shared("data/mr_t1_defaced"), shared(f"models/{brain.model}")
    outcome = imported(model, answers, tmp_path, files_in(folder))
    stack = stacked(folder)
    image, affine = conformed(stack)
    part, corner = head_in(image)
    affine[:3, 3] += affine[:3, :3] @ corner
    tensor = brain.scale(image)[part][None, None].astype(np.float32)
    logits = session(model).run(None, {"t1": tensor})[0]
    labels = carried_back(logits[0].argmax(axis=0).astype(np.uint8), affine, stack)
    keys = [item.key for item in outcome.findings]
    assert set(brain.volumes) <= set(keys)
    for value, key in enumerate(keys, 1):
        expected = labels == value
        assert dice(mask(outcome, key), expected) >= 0.99, key
    for key, millilitres in brain.volumes.items():
        assert volume(outcome, key) == pytest.approx(millilitres, rel=brain.tolerance), key


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
