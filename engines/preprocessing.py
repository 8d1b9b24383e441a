"""From the voxels of a series to the image a net wants, and the lattice it lies on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, assert_never

import numpy as np
import numpy.typing as npt

from engines.anisotropy import resample_apart
from engines.components import bounding_box
from engines.images import BoolArray, VoxelArray
from engines.recipe import Clip, Crop, Intensity, Linear, Normalise, Preprocessing, Quantiles
from engines.resampling import (
    Lattice,
    Spacing,
    Values,
    centred,
    cut,
    padded_to_multiple,
    reordered,
    resample,
    resized,
    respaced,
    respaced_from_first,
    turned,
    upright,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What the first of two nets found.

    `box` is a part of the source's lattice, whose axes may be in another order; `seen` is the
    image that the net was given, before its steps of intensity.
    """

    box: Lattice
    seen: Values


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """Values float32 [0, 1, 2] as the net wants them, and where they lie."""

    values: Values
    lattice: Lattice


def prepare(
    voxels: VoxelArray,
    valid: BoolArray,
    source: Lattice,
    wanted: Preprocessing,
    found: Found | None = None,
) -> Prepared:
    """Carry voxels [slice, row, column] to the model's lattice and change their values.

    With `found`, what a first net found, the field of view is its box.
    """
    if wanted.nonzero:
        voxels, valid, source = _not_zero(voxels, valid, source)
    values = np.where(valid, voxels, np.float32(wanted.fill)).astype(np.float32)
    fill = wanted.fill
    if wanted.on == "source":
        values, _ = changed(values, source, wanted.intensity, found)
        fill = float(values.min())
    target = model_lattice(source if found is None else found.box, wanted)
    carry = resample_apart if wanted.apart else resample
    values = carry(values, source, target, wanted.interpolation, fill)
    if wanted.on == "model":
        values, target = changed(values, target, wanted.intensity, found)
    lattice = padded_to_multiple(target, wanted.multiple_of)
    if lattice.shape != target.shape:
        values = resample(values, target, lattice, "nearest", float(values.min()))
    return Prepared(values=np.ascontiguousarray(values), lattice=lattice)


def model_lattice(source: Lattice, wanted: Preprocessing) -> Lattice:
    """Return the lattice that the image is resampled to, before it is cropped and padded."""
    if wanted.orientation is not None and wanted.align == "patient":
        return upright(source, wanted.orientation, wanted.spacing, wanted.size)
    lattice = source
    if wanted.orientation is not None:
        lattice = turned(source, wanted.orientation)
    elif wanted.axes != (0, 1, 2):
        lattice = reordered(source, wanted.axes)
    if wanted.matrix is not None:
        lattice = resized(lattice, (lattice.shape[0], *wanted.matrix))
    elif wanted.shape is not None:
        lattice = resized(lattice, wanted.shape)
    elif wanted.spacing is not None:
        lattice = _spaced(lattice, wanted.spacing, wanted.anchor)
    return lattice if wanted.size is None else centred(lattice, wanted.size)


def _spaced(
    lattice: Lattice, spacing: Spacing, anchor: Literal["centre", "field", "first"]
) -> Lattice:
    match anchor:
        case "centre":
            return respaced(lattice, spacing)
        case "field":
            return resized(lattice, respaced(lattice, spacing).shape)
        case "first":
            return respaced_from_first(lattice, spacing)
        case _:
            assert_never(anchor)


def _not_zero(
    voxels: VoxelArray, valid: BoolArray, source: Lattice
) -> tuple[VoxelArray, BoolArray, Lattice]:
    """Cut a series to the box of what is not 0; one that is all 0 stays whole."""
    mask = (voxels != 0) & valid
    if not mask.any():
        return voxels, valid, source
    box = bounding_box(mask)
    part = voxels[box]
    return part, valid[box], cut(source, [edge.start for edge in box], part.shape)


def changed(
    values: Values, lattice: Lattice, steps: Sequence[Intensity], found: Found | None = None
) -> tuple[Values, Lattice]:
    """Take the steps of `intensity` in their order on values float32 [0, 1, 2]."""
    for step in steps:
        if isinstance(step, Crop):
            values, lattice = _cropped(values, lattice, step)
        else:
            values = _changed(values, step, found)
    return values, lattice


def _changed(
    values: Values, step: Clip | Linear | Quantiles | Normalise, found: Found | None
) -> Values:
    match step:
        case Clip():
            return np.clip(values, np.float32(step.low), np.float32(step.high))
        case Linear():
            return (values - np.float32(step.subtract)) / np.float32(step.divide)
        case Quantiles():
            return _stretched(values, step, found)
        case Normalise():
            return _normalised(values, step)
        case _:
            assert_never(step)


def _stretched(values: Values, step: Quantiles, found: Found | None) -> Values:
    """Apply `quantiles`; a flat image becomes 0."""
    looked_at = _looked_at(values, nonzero=step.of == "nonzero")
    if step.of == "located" and found is not None:
        looked_at = found.seen
    low = 0.0 if step.low is None else float(np.quantile(looked_at, step.low))
    width = float(np.quantile(looked_at, step.high)) - low
    if width <= 0:
        return np.zeros_like(values)
    stretched: Values = (values - np.float32(low)) * np.float32(step.top / width)
    return np.clip(stretched, 0, np.float32(step.top)) if step.clip else stretched


def _normalised(values: Values, step: Normalise) -> Values:
    if step.of == "slice":
        found: Values = np.stack([_standard(plane, plane) for plane in values])
    else:
        found = _standard(values, _looked_at(values, nonzero=step.of == "nonzero"))
    if step.keep_zero:
        found[values == 0] = 0
    return found


def _standard(values: Values, looked_at: npt.NDArray[np.float32]) -> Values:
    mean = np.mean(looked_at, dtype=np.float64)
    deviation = float(np.std(looked_at, dtype=np.float64)) or 1.0
    found: Values = ((values - mean) / deviation).astype(np.float32)
    return found


def _looked_at(values: Values, *, nonzero: bool) -> npt.NDArray[np.float32]:
    chosen = values[values != 0] if nonzero else values
    return chosen if chosen.size else values


def _cropped(values: Values, lattice: Lattice, step: Crop) -> tuple[Values, Lattice]:
    mask = values > step.above
    if not mask.any():
        return values, lattice
    box = tuple(
        slice(max(0, part.start - step.margin), min(size, part.stop + step.margin))
        for part, size in zip(bounding_box(mask), values.shape, strict=True)
    )
    part = values[box]
    return part, cut(lattice, [edge.start for edge in box], part.shape)
