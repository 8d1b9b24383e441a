"""Connected components and in-plane morphology. Plain functions on arrays [slice, row, column]."""

from __future__ import annotations

from collections.abc import Callable

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
    if smallest <= 1:
        return np.zeros_like(mask)
    labels, count = label(mask)
    small = sizes(labels, count) < smallest
    small[0] = False
    return small[labels]


def erode(mask: BoolArray, rows: int, columns: int) -> BoolArray:
    """Shrink a mask within each slice by that many pixels.

    What touches the edge of the image is not shrunk there: the body goes on beyond it.
    """
    return _extreme(mask, rows, columns, ndimage.minimum_filter1d)


def dilate(mask: BoolArray, rows: int, columns: int) -> BoolArray:
    """Grow a mask within each slice by that many pixels."""
    return _extreme(mask, rows, columns, ndimage.maximum_filter1d)


def _extreme(
    mask: BoolArray,
    rows: int,
    columns: int,
    extreme: Callable[..., object],
) -> BoolArray:
    grown = mask.astype(np.uint8)
    extreme(grown, size=2 * rows + 1, axis=-2, output=grown, mode="nearest")
    extreme(grown, size=2 * columns + 1, axis=-1, output=grown, mode="nearest")
    return grown.view(np.bool_)


def border(labels: LabelArray) -> npt.NDArray[np.int32]:
    """Return the numbers of the components that touch the edge of one slice [row, column]."""
    edge = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    found = np.unique(edge)
    return found[found > 0]
