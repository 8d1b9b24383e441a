"""Voxels that are much longer along one axis: carried along that axis by themselves."""

from __future__ import annotations

from typing import Final

import numpy as np

from engines.resampling import Interpolation, Lattice, Spacing, Values, cut, reordered, resample

COARSE: Final = 3.0
"""Voxels more than so many times as long along one axis are much coarser there."""


def resample_apart(
    values: Values, source: Lattice, target: Lattice, interpolation: Interpolation, fill: float
) -> Values:
    """Do as `resample`, but take the nearest plane along an axis that is much coarser than others.

    The axes of the target must run along those of the source.
    """
    matrix = np.linalg.inv(source.affine) @ target.affine
    order = [int(axis) for axis in np.abs(matrix[:3, :3]).argmax(axis=0)]
    near = reordered(source, order)
    values = np.ascontiguousarray(values.transpose(order))
    axis = _coarse_axis(near.spacing) if _is_coarse(near.spacing) else _coarse_axis(target.spacing)
    if axis is None:
        return resample(values, near, target, interpolation, fill)
    shape, affine = list(target.shape), target.affine.copy()
    shape[axis] = near.shape[axis]
    affine[:3, axis] = near.affine[:3, axis]
    place = np.linalg.inv(affine[:3, :3]) @ (near.affine[:3, 3] - target.affine[:3, 3])
    affine[:3, 3] += affine[:3, axis] * place[axis]
    between = Lattice(shape=(shape[0], shape[1], shape[2]), affine=affine)
    planes: list[Values] = []
    for index in range(shape[axis]):
        first = [index if other == axis else 0 for other in range(3)]
        old, new = ([1 if i == axis else n for i, n in enumerate(lattice.shape)]
                    for lattice in (near, between))  # fmt: skip
        plane = np.ascontiguousarray(values.take([index], axis))
        there = cut(between, first, new)
        planes.append(resample(plane, cut(near, first, old), there, interpolation, fill))
    return resample(np.concatenate(planes, axis), between, target, "nearest", fill)


def _is_coarse(spacing: Spacing) -> bool:
    return max(spacing) / min(spacing) > COARSE


def _coarse_axis(spacing: Spacing) -> int | None:
    """Return the one axis that is much coarser than another; None if there is none, or two are."""
    coarsest = np.flatnonzero(np.array(spacing) == max(spacing))
    return int(coarsest[0]) if _is_coarse(spacing) and len(coarsest) == 1 else None
