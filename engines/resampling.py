"""From one lattice of voxels to another through the patient, and masks back again.

Plain functions on arrays. Frame: LPS, mm (PS3.3 C.7.6.2.1.1). A lattice maps indices of an array
[0, 1, 2] to the centres of its voxels; the lattice of a volume has the axes [slice, row, column].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Final, Literal, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from engines.images import FloatArray, Grid

Interpolation: TypeAlias = Literal["nearest", "linear", "cubic", "area"]
Shape: TypeAlias = tuple[int, int, int]
Spacing: TypeAlias = tuple[float, float, float]
Values: TypeAlias = npt.NDArray[np.float32]
Labels: TypeAlias = npt.NDArray[np.uint8]
ScalarT = TypeVar("ScalarT", bound=np.generic)

DIRECTIONS: Final = {
    "L": (1.0, 0.0, 0.0),
    "R": (-1.0, 0.0, 0.0),
    "P": (0.0, 1.0, 0.0),
    "A": (0.0, -1.0, 0.0),
    "S": (0.0, 0.0, 1.0),
    "I": (0.0, 0.0, -1.0),
}
"""Where the letters of an orientation point: towards the patient's left, right, back, front ..."""
ORDERS: Final[Mapping[str, Literal[0, 1, 3]]] = {"nearest": 0, "linear": 1, "cubic": 3}
CUBIC: Final = 3
SINGLE_SLICE_MM: Final = 1.0
HAIR: Final = 1e-6
"""Indices this near to each other are one: what is left of rounding in the matrices."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lattice:
    """Voxels in the patient. `affine` is float64 [4, 4]: (i, j, k, 1) to LPS in mm."""

    shape: Shape
    affine: FloatArray

    @property
    def spacing(self) -> Spacing:
        """Distance between neighbours along each axis in mm."""
        a, b, c = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(a), float(b), float(c)


def lattice_of(grid: Grid) -> Lattice:
    """Return the lattice of a grid; a single slice counts as thick as it says, or 1 mm."""
    between, rows, columns = grid.spacing
    affine = np.eye(4)
    if len(grid.positions) > 1:
        way = np.subtract(grid.positions[-1], grid.positions[0]) / (len(grid.positions) - 1)
    else:
        depth = between or grid.slice_thickness or SINGLE_SLICE_MM
        way = np.multiply(grid.normal, depth)
    affine[:3, 0] = way
    affine[:3, 1] = np.multiply(grid.column_direction, rows)
    affine[:3, 2] = np.multiply(grid.row_direction, columns)
    affine[:3, 3] = grid.positions[0]
    return Lattice(shape=grid.shape, affine=affine)


def axial_lattice(shape: Sequence[int], spacing: Spacing) -> Lattice:
    """Return the lattice of axial slices from the feet up, rows from right to left."""
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = *spacing, 1.0
    return Lattice(shape=_shape(shape), affine=affine)


def turned(lattice: Lattice, orientation: str) -> Lattice:
    """Reorder and flip the axes so that they point as nearly as can be where `orientation` says.

    `orientation` has a letter for each axis of the array: "LIA" means that index 0 grows towards
    the patient's left, 1 towards the feet, 2 towards the front. No value is interpolated.
    """
    wanted = directions(orientation)
    unit = lattice.affine[:3, :3] / np.array(lattice.spacing)
    cosines = wanted.T @ unit
    order = max(permutations(range(3)), key=lambda axes: sum(abs(cosines[i, a]) for i, a in
                enumerate(axes)))  # fmt: skip
    affine = lattice.affine.copy()
    for index, axis in enumerate(order):
        step = lattice.affine[:3, axis]
        forward = cosines[index, axis] >= 0
        affine[:3, index] = step if forward else -step
        if not forward:
            affine[:3, 3] += step * (lattice.shape[axis] - 1)
    shape = (lattice.shape[order[0]], lattice.shape[order[1]], lattice.shape[order[2]])
    return Lattice(shape=shape, affine=affine)


def upright(
    lattice: Lattice, orientation: str, spacing: Spacing | None, shape: Shape | None = None
) -> Lattice:
    """Return a lattice along the patient's axes around the centre of another.

    Without a shape it holds all of the other.
    """
    axes = directions(orientation)
    near = turned(lattice, orientation)
    steps = np.array(spacing or near.spacing)
    if shape is None:
        reach = np.abs(axes.T @ near.affine[:3, :3]) @ np.array(near.shape)
        shape = _shape(np.maximum(np.ceil(reach / steps - HAIR), 1))
    affine = np.eye(4)
    affine[:3, :3] = axes * steps
    affine[:3, 3] = _centre(near) - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return Lattice(shape=shape, affine=affine)


def respaced(lattice: Lattice, spacing: Spacing) -> Lattice:
    """Return a lattice with the same axes and the same field of view, with other distances."""
    factor = np.array(spacing) / np.array(lattice.spacing)
    shape = np.maximum(np.rint(np.array(lattice.shape) / factor), 1)
    return _same_field(lattice, _shape(shape), factor)


def reordered(lattice: Lattice, axes: Sequence[int]) -> Lattice:
    """Return the same voxels with the axes in another order."""
    affine = lattice.affine.copy()
    affine[:3, :3] = lattice.affine[:3, list(axes)]
    return Lattice(shape=_shape([lattice.shape[axis] for axis in axes]), affine=affine)


def respaced_from_first(lattice: Lattice, spacing: Spacing) -> Lattice:
    """Return a lattice with the same axes and the same first voxel, with other distances.

    The last voxel lies as near as can be to the old one.
    """
    factor = np.array(spacing) / np.array(lattice.spacing)
    affine = lattice.affine.copy()
    affine[:3, :3] = lattice.affine[:3, :3] * factor
    shape = np.rint((np.array(lattice.shape) - 1) / factor) + 1
    return Lattice(shape=_shape(shape), affine=affine)


def resized(lattice: Lattice, shape: Shape) -> Lattice:
    """Return a lattice with another number of voxels over exactly the same field of view."""
    return _same_field(lattice, shape, np.array(lattice.shape) / np.array(shape))


def corner_aligned(lattice: Lattice, orientation: str, shape: Shape) -> Lattice:
    """Return another number of voxels, the corner ones where the old corner voxels are."""
    near = turned(lattice, orientation)
    factor = (np.array(near.shape) - 1) / np.maximum(np.array(shape) - 1, 1)
    affine = near.affine.copy()
    affine[:3, :3] = near.affine[:3, :3] * factor
    return Lattice(shape=shape, affine=affine)


def flipped(lattice: Lattice, axes: Sequence[int]) -> Lattice:
    """Return the same voxels, counted from the other end along some axes."""
    affine = lattice.affine.copy()
    for axis in axes:
        affine[:3, 3] += affine[:3, axis] * (lattice.shape[axis] - 1)
        affine[:3, axis] *= -1
    return Lattice(shape=lattice.shape, affine=affine)


def centred(lattice: Lattice, shape: Shape) -> Lattice:
    """Cut or pad around the middle to a shape; where it is uneven, more at the far end."""
    first = [(old - new) // 2 if old >= new else -((new - old) // 2)
             for old, new in zip(lattice.shape, shape, strict=True)]  # fmt: skip
    return cut(lattice, first, shape)


def padded_to_multiple(lattice: Lattice, multiple: Shape) -> Lattice:
    """Pad around the middle until every axis is a multiple."""
    shape = [-(-n // m) * m for n, m in zip(lattice.shape, multiple, strict=True)]
    return centred(lattice, _shape(shape))


def cut(lattice: Lattice, first: Sequence[int], shape: Sequence[int]) -> Lattice:
    """Return the part that starts at the index `first`, which may lie outside."""
    affine = lattice.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ np.array(first, np.float64)
    return Lattice(shape=_shape(shape), affine=affine)


def resample(
    values: Values, source: Lattice, target: Lattice, interpolation: Interpolation, fill: float
) -> Values:
    """Carry values from one lattice to another; what lies outside the source becomes `fill`.

    Args:
        values: float32 on `source`.
        source: where they lie.
        target: where they are wanted.
        interpolation: `area` averages what falls within a voxel of the target; its axes must run
            along those of the source.
        fill: in the unit of the values.
    """
    whole = whole_step(source, target)
    if whole is not None:
        return _moved(values, whole, target.shape, fill)
    matrix = np.linalg.inv(source.affine) @ target.affine
    if interpolation == "area":
        return _averaged(values, matrix, target.shape)
    return _interpolated(values, matrix, target.shape, ORDERS[interpolation], fill)


def labels_back(labels: Labels, model: Lattice, source: Lattice) -> Labels:
    """Carry labels uint8 from the model's lattice to the source, voxel by voxel.

    Each voxel of the source gets the label of the model's voxel that its centre lies in; 0 outside.
    """
    whole = whole_step(model, source)
    if whole is not None:
        return _moved(labels, whole, source.shape, 0)
    matrix = np.linalg.inv(model.affine) @ source.affine
    diagonal = _diagonal(matrix)
    linear = matrix[:3, :3] if diagonal is None else diagonal
    back: Labels = ndimage.affine_transform(
        labels, linear, offset=matrix[:3, 3], output_shape=source.shape, order=0,
        output=np.uint8, mode="grid-constant", cval=0,
    )  # fmt: skip
    return back


@dataclass(frozen=True, slots=True, kw_only=True)
class WholeStep:
    """How the target's axes lie in the source, where voxels fall on voxels.

    Index `i` along axis `n` of the target is index `first[n] + sign[n] * i` along `axes[n]`.
    """

    axes: tuple[int, ...]
    signs: tuple[int, ...]
    first: tuple[int, ...]


def whole_step(source: Lattice, target: Lattice) -> WholeStep | None:
    """Say how to get from one lattice to the other by moving voxels alone; None if that fails."""
    matrix = np.linalg.inv(source.affine) @ target.affine
    near = np.rint(matrix[:3])
    extent = max(*source.shape, *target.shape)
    if np.abs(matrix[:3, :3] - near[:, :3]).max() * extent > 1e3 * HAIR:
        return None
    if np.abs(matrix[:3, 3] - near[:, 3]).max() > 1e3 * HAIR:
        return None
    turns = near[:, :3]
    if not (np.abs(turns).sum(axis=0) == 1).all() or not (np.abs(turns).sum(axis=1) == 1).all():
        return None
    axes = np.abs(turns).argmax(axis=0)
    return WholeStep(
        axes=tuple(int(axis) for axis in axes),
        signs=tuple(int(turns[axis, index]) for index, axis in enumerate(axes)),
        first=tuple(int(near[axis, 3]) for axis in axes),
    )


def directions(orientation: str) -> FloatArray:
    """Return the unit vectors of an orientation as columns, float64 [xyz, axis].

    Raises:
        ValueError: not one letter of each of LR, AP, IS.
    """
    pairs = ("LR", "AP", "IS")
    if len(orientation) != 3 or any(sum(c in p for c in orientation) != 1 for p in pairs):  # noqa: PLR2004 - three axes
        raise ValueError(f"{orientation!r} has not one letter of each of L/R, A/P and I/S")
    return np.array([DIRECTIONS[letter] for letter in orientation]).T


def _moved(
    values: npt.NDArray[ScalarT], step: WholeStep, shape: Shape, fill: float
) -> npt.NDArray[ScalarT]:
    out = np.full(shape, fill, values.dtype)
    turned_values = values.transpose(step.axes)
    into, out_of = [], []
    for axis, size in enumerate(shape):
        there = turned_values.shape[axis]
        sign, first = step.signs[axis], step.first[axis]
        low = max(0, -first if sign > 0 else first - there + 1)
        high = min(size, there - first if sign > 0 else first + 1)
        if high <= low:
            return out
        into.append(slice(low, high))
        begin, end = first + sign * low, first + sign * high
        out_of.append(slice(begin, end if end >= 0 else None, sign))
    out[tuple(into)] = turned_values[tuple(out_of)]
    return out


def _interpolated(
    values: Values, matrix: FloatArray, shape: Shape, order: Literal[0, 1, 3], fill: float
) -> Values:
    """Interpolate; a voxel whose centre lies up to half a voxel outside takes the edge's value.

    A spline that overshoots is held within the range of the values.
    """
    diagonal = _diagonal(matrix)
    linear = matrix[:3, :3] if diagonal is None else diagonal
    found: Values = ndimage.affine_transform(
        values, linear, offset=matrix[:3, 3], output_shape=shape, order=order,
        output=np.float32, mode="nearest",
    )  # fmt: skip
    if order == CUBIC:
        np.clip(found, values.min(), values.max(), out=found)
    _blank_outside(found, matrix, values.shape, fill)
    return found


def _blank_outside(found: Values, matrix: FloatArray, shape: Sequence[int], fill: float) -> None:
    """Put `fill` where the centre lies outside every source voxel, one plane at a time."""
    second, third = np.ogrid[: found.shape[1], : found.shape[2]]
    for index, plane in enumerate(found):
        outside = np.zeros(plane.shape, np.bool_)
        for axis, size in enumerate(shape):
            a, b, c, d = matrix[axis]
            place = a * index + b * second + c * third + d
            outside |= (place < -0.5 - HAIR) | (place > size - 0.5 + HAIR)
        plane[outside] = fill


def _averaged(values: Values, matrix: FloatArray, shape: Shape) -> Values:
    diagonal = _diagonal(matrix)
    if diagonal is None or (diagonal <= 0).any():
        raise ValueError("area interpolation needs lattices along the same axes")
    found = values
    for axis in range(3):
        if diagonal[axis] == 1 and shape[axis] == values.shape[axis]:
            continue
        weights = _overlaps(values.shape[axis], shape[axis], diagonal[axis], matrix[axis, 3])
        found = np.moveaxis(np.tensordot(weights, found, axes=(1, axis)), 0, axis)
    return np.ascontiguousarray(found, np.float32)


def _overlaps(size: int, target: int, factor: float, offset: float) -> Values:
    """Return float32 [target, size]: the share of each source voxel in each target voxel."""
    low = offset + factor * (np.arange(target) - 0.5)
    cells = np.arange(size)
    share = np.minimum(low[:, None] + factor, cells + 0.5) - np.maximum(low[:, None], cells - 0.5)
    share = np.clip(share, 0, None)
    total = share.sum(axis=1, keepdims=True)
    weights: Values = (share / np.where(total > 0, total, 1)).astype(np.float32)
    return weights


def _diagonal(matrix: FloatArray) -> FloatArray | None:
    diagonal = np.diag(matrix[:3, :3])
    off = matrix[:3, :3] - np.diag(diagonal)
    return diagonal if np.abs(off).max() < HAIR else None


def _same_field(lattice: Lattice, shape: Shape, factor: FloatArray) -> Lattice:
    affine = lattice.affine.copy()
    affine[:3, :3] = lattice.affine[:3, :3] * factor
    affine[:3, 3] = _centre(lattice) - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return Lattice(shape=shape, affine=affine)


def _centre(lattice: Lattice) -> FloatArray:
    middle = lattice.affine[:3, :3] @ ((np.array(lattice.shape) - 1) / 2)
    centre: FloatArray = middle + lattice.affine[:3, 3]
    return centre


def _shape(sizes: Sequence[float] | npt.NDArray[np.generic]) -> Shape:
    a, b, c = (int(size) for size in sizes)
    return a, b, c
