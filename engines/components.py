"""Connected components. Plain functions on arrays [slice, row, column]."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

import cc3d
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from engines.images import BoolArray

LabelArray = npt.NDArray[np.unsignedinteger]
Box = tuple[slice, ...]

FACES: Final[Mapping[int, Literal[4, 6]]] = {2: 4, 3: 6}
"""Neighbours of a voxel that share a face with it, by the number of axes."""


def label(mask: BoolArray) -> tuple[LabelArray, int]:
    """Label the components of a mask of two or three axes, face to face; 0 is background.

    They are numbered from 1, as their first voxels lie in the array.
    """
    if not mask.size:
        return np.zeros(mask.shape, np.uint16), 0
    return cc3d.connected_components(
        np.ascontiguousarray(mask), connectivity=FACES[mask.ndim], return_N=True
    )


def sizes(labels: LabelArray, count: int) -> npt.NDArray[np.int64]:
    """Count the voxels of each component; index 0, the background, counts none."""
    return np.bincount(labels[labels > 0], minlength=count + 1)


def small_components(mask: BoolArray, smallest: int) -> BoolArray:
    """Return the part of a mask that lies in components of fewer than `smallest` voxels."""
    labels, count = label(mask)
    small = sizes(labels, count) < smallest
    small[0] = False
    return small[labels] if small.any() else np.zeros_like(mask)


def bounding_box(mask: BoolArray) -> Box:
    """Return the smallest box that holds all of a mask of two axes or more, which is not empty."""
    filled = np.fromiter((part.any() for part in mask), np.bool_, len(mask))
    across = np.logical_or.reduce(mask[_span(filled)], axis=0)
    return (_span(filled), *(bounding_box(across) if across.ndim > 1 else (_span(across),)))


def box_of(labels: npt.NDArray[np.uint8], value: int) -> Box | None:
    """Return the smallest box that holds a label of [slice, row, column]; None where there is none.

    It takes no more memory than a slice of them.
    """
    across = np.zeros(labels.shape[1:], np.bool_)
    bears = np.empty_like(across)
    filled = np.zeros(len(labels), np.bool_)
    for index, plane in enumerate(labels):
        np.equal(plane, value, out=bears)
        across |= bears
        filled[index] = bears.any()
    return (_span(filled), *bounding_box(across)) if filled.any() else None


def _span(filled: BoolArray) -> slice:
    """Return the range from the first to the last that is filled."""
    at = np.flatnonzero(filled)
    return slice(int(at[0]), int(at[-1]) + 1)


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
