"""Windows that slide over a volume, and what nets say of them blended into one.

Plain functions on arrays. Scores are float32 [class, 0, 1, 2]. Finished planes leave as soon as no
later window reaches them: at most one window's depth of scores is held, whatever the volume.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, combinations, product
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

Values: TypeAlias = npt.NDArray[np.float32]
Shape: TypeAlias = tuple[int, int, int]
Predict: TypeAlias = Callable[[Values], Values]
"""From float32 [0, 1, 2] to scores float32 [class, 0, 1, 2]."""
Slab: TypeAlias = tuple[int, Values]
"""The first index along axis 0, and scores [class, 0, 1, 2] from there on."""

SIGMA_SHARE: Final = 0.125
"""Width of the Gaussian as a share of the window, as nnU-Net and MONAI have it."""
LEAST_WEIGHT: Final = 1e-3


def starts(size: int, window: int, overlap: float, *, even: bool = True) -> list[int]:
    """Return where windows begin along one axis; the last one is flush with the end.

    Args:
        size: of the axis; at least `window`.
        window: of the window.
        overlap: share of a window that its neighbour covers too, 0 to below 1.
        even: spread them, so that neighbours may overlap more; else only the last one does.
    """
    if not even:
        apart = max(1, int(window * (1 - overlap)))
        return [*range(0, size - window, apart), size - window]
    step = max(1.0, window * (1 - overlap))
    count = math.ceil((size - window) / step) + 1
    if count <= 1:
        return [0]
    return [round(index * (size - window) / (count - 1)) for index in range(count)]


def gaussian_weights(window: Sequence[int], *, on_voxel: bool = False) -> Values:
    """Return float32 of the window's shape: 1 in the middle, less towards the edges, never 0.

    The middle is between the two middle voxels of an even size, as MONAI has it, and no weight is
    below a thousandth; or, `on_voxel`, the second one of the two and without a floor, as nnU-Net.
    """
    weights = np.ones((1,) * len(window), np.float64)
    for axis, size in enumerate(window):
        middle = size // 2 if on_voxel else (size - 1) / 2
        away = (np.arange(size) - middle) / (size * SIGMA_SHARE)
        shape = [-1 if other == axis else 1 for other in range(len(window))]
        weights = weights * np.exp(-(away**2) / 2).reshape(shape)
    found: Values = np.maximum(weights / weights.max(), 0 if on_voxel else LEAST_WEIGHT).astype(
        np.float32
    )
    return found


def blended(
    values: Values,
    window: Shape,
    overlap: float,
    weights: Values,
    predict: Predict,
    *,
    even: bool = True,
) -> Iterator[Slab]:
    """Slide a window over a volume and yield the weighted mean of scores, slab by slab.

    Args:
        values: float32 [0, 1, 2], no axis shorter than the window.
        window: its shape.
        overlap: see `starts`.
        weights: float32 of the window's shape, above 0.
        predict: run on every window.
        even: see `starts`.
    """
    firsts, rows, columns = (
        starts(n, w, overlap, even=even) for n, w in zip(values.shape, window, strict=True)
    )
    depth = window[0]
    scores: Values | None = None
    norm = np.zeros((depth, *values.shape[1:]), np.float32)
    for index, first in enumerate(firsts):
        for row, column in product(rows, columns):
            place = (slice(row, row + window[1]), slice(column, column + window[2]))
            found = predict(values[(slice(first, first + depth), *place)])
            if scores is None:
                scores = np.zeros((len(found), *norm.shape), np.float32)
            scores[(slice(None), slice(None), *place)] += found * weights
            norm[(slice(None), *place)] += weights
        done = (firsts[index + 1] if index + 1 < len(firsts) else first + depth) - first
        if scores is not None:
            yield first, np.divide(scores[:, :done], norm[:done], dtype=np.float32)
            _shift(scores, done, 1)
        _shift(norm, done, 0)


def mirrored(predict: Predict, axes: Sequence[int]) -> Predict:
    """Return a prediction averaged over all mirrorings along axes 0, 1, 2 of the volume."""
    flips = list(chain.from_iterable(combinations(axes, n) for n in range(1, len(axes) + 1)))

    def averaged(values: Values) -> Values:
        total = predict(values).astype(np.float32, copy=True)
        for flip in flips:
            turned = np.ascontiguousarray(np.flip(values, flip))
            total += np.flip(predict(turned), tuple(axis + 1 for axis in flip))
        total /= len(flips) + 1
        return total

    return averaged if flips else predict


def _shift(array: Values, by: int, axis: int) -> None:
    """Move an array towards index 0 along an axis, in place, and put zeros behind."""
    moved = np.moveaxis(array, axis, 0)
    kept = len(moved) - by
    for index in range(kept):
        moved[index] = moved[index + by]
    moved[kept:] = 0
