"""Non-maximum suppression of boxes in two and three dimensions. Plain functions on arrays."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from engines.images import FloatArray


def overlaps(box: FloatArray, boxes: FloatArray) -> FloatArray:
    """Return intersection over union, float64 [n], of one box with others.

    Boxes are float64 [2, axis]: low and high corner, in any unit; `boxes` is [n, 2, axis].
    """
    low = np.maximum(box[0], boxes[:, 0])
    high = np.minimum(box[1], boxes[:, 1])
    common = np.prod(np.clip(high - low, 0, None), axis=1)
    sizes = np.prod(boxes[:, 1] - boxes[:, 0], axis=1)
    union = np.prod(box[1] - box[0]) + sizes - common
    found: FloatArray = common / np.where(union > 0, union, 1)
    return found


def keep_best(boxes: FloatArray, scores: FloatArray, most_overlap: float) -> npt.NDArray[np.int64]:
    """Return the indices of boxes to keep, best score first.

    A box goes that overlaps a better one by more than `most_overlap` (intersection over union).
    Equal scores keep the order in which they came.
    """
    waiting = np.argsort(-scores, kind="stable")
    kept = []
    while len(waiting):
        best = waiting[0]
        kept.append(int(best))
        rest = waiting[1:]
        waiting = rest[overlaps(boxes[best], boxes[rest]) <= most_overlap]
    return np.array(kept, np.int64)
