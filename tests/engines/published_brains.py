"""Nets of the whole head on real T1 MR: the engine's brain against that of a plain pipeline.

The pipeline runs the net with OpenVINO, the engine with ONNX Runtime, so none vouches for itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import openvino
import pytest
from scipy import ndimage

from tests.engines.published import (
    Find,
    Floats,
    Stack,
    dice,
    files_in,
    imported,
    mask,
    stacked,
    volume,
)

Labels = npt.NDArray[np.uint8]
HEAD = "data/mr_t1_defaced"
LIA = np.array([[1.0, 0, 0], [0, 0, -1.0], [0, -1.0, 0]])
"""Columns: where array axes 0, 1, 2 point in LPS: left, down, to the front."""


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


def check_brain(answers: str, shared: Find, tmp_path: Path) -> None:
    """Conformed around the centre, the whole head at once, argmax, nearest neighbour back."""
    brain, folder = BRAINS[answers], shared(HEAD)
    outcome = imported(shared(f"models/{brain.model}"), answers, tmp_path, files_in(folder))
    labels = plain_labels(brain, shared(f"models/{brain.model}"), stacked(folder))
    keys = [item.key for item in outcome.findings]
    assert set(brain.volumes) <= set(keys)
    for value, key in enumerate(keys, 1):
        expected = labels == value
        assert dice(mask(outcome, key), expected) >= 0.99, key
    for key, millilitres in brain.volumes.items():
        assert volume(outcome, key) == pytest.approx(millilitres, rel=brain.tolerance), key


def plain_labels(brain: Brain, model: Path, stack: Stack) -> Labels:
    """Return the classes of a series' voxels, by the steps of the model's README."""
    image, affine = conformed(stack)
    part, corner = head_in(image)
    affine[:3, 3] += affine[:3, :3] @ corner
    tensor = brain.scale(image)[part][None, None].astype(np.float32)
    return carried_back(most_likely(model, tensor), affine, stack)


def most_likely(model: Path, tensor: npt.NDArray[np.float32]) -> Labels:
    """Return the class of each voxel [0, 1, 2]; OpenVINO takes half of ONNX Runtime's CPU time."""
    core = openvino.Core()
    how = {"INFERENCE_NUM_THREADS": 2, "INFERENCE_PRECISION_HINT": "f32"}
    net = core.compile_model(core.read_model(model), "CPU", how)
    found: Labels = net({"t1": tensor})[0][0].argmax(axis=0).astype(np.uint8)
    return found
