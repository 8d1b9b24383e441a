"""Nets that work in stages, on real T1 MR: a box and then a mask, a template and then hippocampi.

Each is compared with a plain pipeline after its README, and with the figures that it gives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage

from engines.findings import Analysis
from tests.engines.published import (
    Floats,
    Stack,
    dice,
    files_in,
    imported,
    mask,
    session,
    stacked,
    volume,
)
from tests.factories import instance_files

Find = Callable[[str], Path]
Bools = npt.NDArray[np.bool_]
RAS = ((-1.0, 0, 0), (0, -1.0, 0), (0, 0, 1.0))
LAS = ((1.0, 0, 0), (0, -1.0, 0), (0, 0, 1.0))
"""Where array axes 0, 1, 2 point in LPS."""


def turned(
    stack: Stack, axes: Sequence[Sequence[float]]
) -> tuple[Floats, list[int], tuple[int, ...]]:
    """Reorder and flip axes; return the values, the order, and the axes that were flipped."""
    unit = stack.affine[:3, :3] / np.linalg.norm(stack.affine[:3, :3], axis=0)
    order = [int(np.abs(unit.T @ np.array(axis)).argmax()) for axis in axes]
    flips = tuple(i for i, axis in enumerate(axes) if unit[:, order[i]] @ np.array(axis) < 0)
    return np.flip(stack.values.transpose(order), flips), order, flips


def turned_back(values: npt.NDArray[np.bool_], order: list[int], flips: tuple[int, ...]) -> Bools:
    found: Bools = np.flip(values, flips).transpose(np.argsort(order))
    return found


def nearest(values: Floats, shape: Sequence[int]) -> Floats:
    """Resize as torch does with "nearest-exact"."""
    for axis, size in enumerate(shape):
        places = np.floor((np.arange(size) + 0.5) * values.shape[axis] / size).astype(int)
        values = values.take(places, axis)
    return values


def largest(found: Bools) -> Bools:
    labels, _ = ndimage.label(found)
    counts = np.bincount(labels.ravel())
    kept: Bools = labels == 1 + int(np.argmax(counts[1:]))
    return kept


def shown(values: Floats, low: float, high: float) -> npt.NDArray[np.float32]:
    image = np.clip((values - low) / (high - low), 0, 1)
    scaled = 0.226 * (image - image.mean()) / image.std() + 0.449
    tensor: npt.NDArray[np.float32] = scaled[None, None].astype(np.float32)
    return tensor


def in_two_stages(values: Floats, folder: Path) -> Bools:
    """deepbet: where the brain is at 128 voxels a side, then what it is at 256 within that box."""
    small = nearest(values, (128, 128, 128))
    low, high = np.quantile(small, [0.005, 0.995])
    first = session(folder / "bbox_model.onnx").run(None, {"t1": shown(small, low, high)})[0]
    found = largest(first[0, 1] > 0.5)
    box = []
    for axis, size in enumerate(values.shape):
        others = tuple(other for other in range(3) if other != axis)
        planes = np.flatnonzero(found.mean(axis=others) > 0.02)
        scale = size / 128
        centre = round(scale * (planes[-1] + 1 + planes[0]) / 2)
        reach = round(scale * (planes[-1] + 1 - planes[0]) * 1.2)
        box.append(slice(max(0, int(centre - reach / 2)), min(size, int(centre + reach / 2))))
    part = values[tuple(box)]
    image = shown(nearest(part, (256, 256, 256)), low, high)
    second = session(folder / "model.onnx").run(None, {"t1": image})[0]
    whole = np.zeros(values.shape, np.bool_)
    inside = largest(nearest(second[0, 1], part.shape) > 0.5)
    whole[tuple(box)] = ndimage.binary_fill_holes(inside)
    return whole


def test_the_brain_in_two_stages_is_that_of_the_readme(shared: Find, tmp_path: Path) -> None:
    folder, model = shared("data/mr_t1_defaced"), shared("models/brain_deepbet")
    outcome = imported(model, "brain_deepbet", tmp_path, files_in(folder))
    values, order, flips = turned(stacked(folder), RAS)
    expected = turned_back(in_two_stages(values, model), order, flips)
    assert dice(mask(outcome, "brain"), expected) >= 0.99
    assert volume(outcome, "brain") == pytest.approx(1792, rel=0.002)


def enhanced(shared: Find, answers: str, number: int, tmp_path: Path) -> Analysis:
    """Two objects hold that head, as acquired twice."""
    files = instance_files([shared(f"data/mr_enhanced_t1_dti/anat-T1w_acq-tfl_{number}.dcm")])
    return imported(shared(f"models/{answers}"), answers, tmp_path, files)


def test_the_brain_in_an_enhanced_image_is_that_of_the_readme(shared: Find, tmp_path: Path) -> None:
    outcome = enhanced(shared, "brain_deepbet", 5, tmp_path)
    assert volume(outcome, "brain") == pytest.approx(1575, rel=0.002)


def sampled(values: Floats, places: Floats) -> Floats:
    found: Floats = ndimage.map_coordinates(
        values, places.reshape(3, -1), order=1, mode="constant"
    ).reshape(places.shape[1:])
    return found


def by_template(values: Floats, folder: Path) -> tuple[Bools, dict[str, float]]:
    """hippodeep: intracranial mask, and hippocampi in shares of voxels of the subject's grid."""
    sizes = np.array(values.shape)
    d = (values - values.mean()) / values.std()
    grid = np.stack(np.meshgrid(*[np.linspace(0, n - 1, 64) for n in sizes], indexing="ij"))
    image = sampled(d, grid)[None, None].astype(np.float32)
    priors = session(folder / "head.onnx").run(None, {"t1_las64": image})[0][0]
    small = np.indices(values.shape) * (63 / (sizes - 1))[:, None, None, None]
    icv = sampled(priors[0], small) > 0.5
    pair = (priors[[1, 3]] * priors[0])[None]
    affine = session(folder / "affine.onnx").run(None, {"priors_1_3": pair})[0][0].T
    to_unit = np.diag([2 / 63, 2 / 63, 2 / 63, 1.0])
    to_unit[:3, 3] = -1
    from_unit = np.diag([*(sizes - 1) / 2, 1.0])
    from_unit[:3, 3] = (sizes - 1) / 2
    box = np.diag([-2.857, 3.429, 2.857, 1.0])
    box[:3, 3] = 90, -126, -72
    region = np.diag([-1.0, 1, 1, 1])
    region[:3, 3] = 54, -59, -45
    index = from_unit @ affine @ to_unit @ np.linalg.inv(box) @ region
    places = index[:3, :3] @ np.indices((107, 72, 68)).reshape(3, -1) + index[:3, 3:]
    part = sampled(d, places.reshape(3, 107, 72, 68))
    part = (part - part.mean()) / part.std()
    crops = {
        "right": (slice(6, 54), slice(None), slice(2, -2)),
        "left": (slice(-7, -55, -1), slice(None), slice(2, -2)),
    }
    net, voxels = session(folder / "hippo.onnx"), {}
    for side, where in crops.items():
        crop = np.ascontiguousarray(part[where][None, None], np.float32)
        p = net.run(None, {"crop": crop})[0][0, 0]
        whole = np.zeros(part.shape)
        whole[where][2:-2, 2:-2, 2:-2] = np.where(p > 0.5, np.clip(2 * (p - 0.5) + 0.5, 0, 1), 0)
        voxels[side] = counted(whole, index, sizes)
    return icv, voxels


def counted(shares: Floats, index: Floats, shape: Floats) -> float:
    """Carry shares to the voxels of the subject, as the published program does before it counts.

    Its README has the sum in the template instead, which is more than its own figures.
    """
    ends = np.stack(np.meshgrid(*[(0, n - 1) for n in shares.shape])).reshape(3, -1)
    reach = index[:3, :3] @ ends + index[:3, 3:]
    first = np.clip(np.floor(reach.min(axis=1)), 0, shape).astype(int)
    last = np.clip(np.ceil(reach.max(axis=1)), 0, shape).astype(int)
    back, size = np.linalg.inv(index), last - first
    voxels = np.indices(size).reshape(3, -1) + first[:, None]
    places = back[:3, :3] @ voxels + back[:3, 3:]
    found = 255 * sampled(shares, places.reshape(3, *size))
    return float(found[found >= 32].sum() / 255)


def test_hippocampi_by_way_of_a_template_are_those_of_the_readme(
    shared: Find, tmp_path: Path
) -> None:
    folder, model = shared("data/mr_t1_defaced"), shared("models/brain_hippodeep")
    outcome = imported(model, "brain_hippodeep", tmp_path, files_in(folder))
    stack = stacked(folder)
    values, order, flips = turned(stack, LAS)
    icv, voxels = by_template(values, model)
    millilitre = float(abs(np.linalg.det(stack.affine[:3, :3]))) / 1000
    assert dice(mask(outcome, "intracranial-space"), turned_back(icv, order, flips)) >= 0.99
    for side, count in voxels.items():
        drawn = mask(outcome, f"hippocampus-{side}")
        found = volume(outcome, f"hippocampus-{side}")
        assert found == pytest.approx(count * millilitre, rel=1e-3)
        assert found == pytest.approx(drawn.sum() * millilitre, rel=0.1)
    assert volume(outcome, "intracranial-space") == pytest.approx(1791, abs=0.5)
    assert volume(outcome, "hippocampus-left") == pytest.approx(3.01, abs=0.005)
    assert volume(outcome, "hippocampus-right") == pytest.approx(3.84, abs=0.005)


def test_hippocampi_in_an_enhanced_image_are_those_of_the_readme(
    shared: Find, tmp_path: Path
) -> None:
    outcome = enhanced(shared, "brain_hippodeep", 6, tmp_path)
    assert volume(outcome, "hippocampus-left") == pytest.approx(3.80, abs=0.005)
    assert volume(outcome, "hippocampus-right") == pytest.approx(3.99, abs=0.005)
    assert volume(outcome, "intracranial-space") == pytest.approx(1472, abs=0.5)
