"""Connected components and in-plane morphology. Plain functions on arrays [slice, row, column]."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from engines.images import BoolArray

LabelArray = npt.NDArray[np.int32]


def label(mask: BoolArray) -> tuple[LabelArray, int]:
    """Label the components of a mask, face to face, from 1; 0 is background. Any axes."""
    labels = np.empty(mask.shape, np.int32)
    return labels, ndimage.label(mask, output=labels)


def sizes(labels: LabelArray, count: int) -> npt.NDArray[np.int64]:
    """Count the voxels of each component; index 0, the background, counts none."""
    return np.bincount(labels[labels > 0], minlength=count + 1)


def small_components(mask: BoolArray, smallest: int) -> BoolArray:
    """Return the part of a mask that lies in components of fewer than `smallest` voxels."""
    found = np.zeros_like(mask)
    if smallest <= 1 or not mask.any():
        return found
    box = bounding_box(mask)
    labels, count = label(mask[box])
    small = sizes(labels, count) < smallest
    small[0] = False
    if small.any():
        found[box] = small[labels]
    return found


def bounding_box(mask: BoolArray) -> tuple[slice, ...]:
    """Return the smallest box that holds all of a mask, which is not empty."""
    box = []
    for axis in range(mask.ndim):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        filled = np.flatnonzero(mask.any(axis=others))
        box.append(slice(int(filled[0]), int(filled[-1]) + 1))
    return tuple(box)


def erode(mask: BoolArray, rows: int, columns: int) -> BoolArray:
    """Shrink a mask [..., row, column] within each slice by that many pixels.

    What touches the edge of the image is not shrunk there: the body goes on beyond it.
    """
    return ~_grown(~mask, rows, columns)


def dilate(mask: BoolArray, rows: int, columns: int) -> BoolArray:
    """Grow a mask [..., row, column] within each slice by that many pixels."""
    return _grown(mask, rows, columns)


def _grown(mask: BoolArray, rows: int, columns: int) -> BoolArray:
    """Grow slice by slice, each of which stays in the processor's cache."""
    grown = mask.copy()
    for plane in grown.reshape(-1, *mask.shape[-2:]):
        _grow(plane, rows)
        _grow(plane.T, columns)
    return grown


def _grow(plane: BoolArray, reach: int) -> None:
    """Grow [row, column] in place along its first axis, in steps that double what is covered."""
    covered = 0
    while covered < min(reach, len(plane) - 1):
        step = min(covered + 1, reach - covered)
        before = plane.copy(order="K")
        plane[step:] |= before[:-step]
        plane[:-step] |= before[step:]
        covered += step


def border(labels: LabelArray) -> npt.NDArray[np.int32]:
    """Return the numbers of the components that touch the edge of one slice [row, column]."""
    edge = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    found = np.unique(edge)
    return found[found > 0]


def largest_components(mask: BoolArray, count: int) -> BoolArray:
    """Return the part of a mask that lies in its `count` largest components."""
    kept = np.zeros_like(mask)
    if not mask.any():
        return kept
    box = bounding_box(mask)
    labels, found = label(mask[box])
    order = np.argsort(-sizes(labels, found), kind="stable")
    best = np.zeros(found + 1, np.bool_)
    best[order[:count]] = True
    best[0] = False
    kept[box] = best[labels]
    return kept


def filled(mask: BoolArray) -> BoolArray:
    """Return a mask with its holes filled: what no path from face to face leads out of."""
    out = mask.copy()
    if mask.any():
        box = bounding_box(mask)
        out[box] = ndimage.binary_fill_holes(mask[box])
    return out
