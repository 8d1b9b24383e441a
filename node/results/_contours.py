"""Contours of masks along the edges of pixels, and masks of contours. Plain functions on arrays.

Place 0, 0 is the top left corner of the top left pixel, as in pixel-relative graphics of
presentation states and in SCOORD (PS3.3 C.10.5.1, C.18.6.1.1). Contours of a mask give it back
exactly: holes have contours too, and what is inside an odd number of them is the mask.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Mask: TypeAlias = npt.NDArray[np.bool_]
Points: TypeAlias = npt.NDArray[np.float64]
_Indices: TypeAlias = npt.NDArray[np.int64]


def contours_of(mask: Mask) -> list[Points]:
    """Return the contours of bool [row, column]: float64 [corner, (column, row)], not closed.

    Every corner is a turn. Components that touch at a corner only have contours of their own.
    """
    row, column, across, down = _corners(mask)
    if not row.size:
        return []
    beside = _partners(np.lexsort((across, column, row)))
    above = _partners(np.lexsort((down, row, column)))
    places = np.stack([column, row], axis=1).astype(np.float64)
    return [places[ring] for ring in _rings(beside.tolist(), above.tolist())]


def mask_of(contours: Iterable[Points], shape: tuple[int, int]) -> Mask:
    """Return bool [row, column] of what is inside an odd number of contours along pixel edges.

    Contours may be closed or not, and open pieces of one contour do as well as the whole.
    """
    rows, columns = shape
    crossings = np.zeros((rows + 1, columns + 1), np.int32)
    for contour in contours:
        corners = np.rint(contour).astype(np.int64)
        for (x, start), (other, end) in pairwise(corners):
            if x == other and start != end:
                low, high = min(start, end), max(start, end)
                crossings[low:high, x] += 1
    inside: Mask = (np.cumsum(crossings, axis=1) % 2 == 1)[:rows, :columns]
    return inside


def _corners(mask: Mask) -> tuple[_Indices, _Indices, _Indices, _Indices]:
    """Return the row and column of each corner, and its order among two at one place.

    Where two pixels touch at a corner only there are two corners. The first is that of the edges to
    the left; it is the first from above too, where the upper of the pixels lies to the left.
    """
    grown = np.pad(mask, 1)
    upper_left, upper_right = grown[:-1, :-1], grown[:-1, 1:]
    lower_left, lower_right = grown[1:, :-1], grown[1:, 1:]
    count = (
        upper_left.astype(np.int8) + upper_right + lower_left + lower_right  # of four pixels
    )
    crossed = (count == 2) & (upper_left == lower_right)  # noqa: PLR2004 - two of four
    row, column = np.nonzero(count % 2 == 1)
    twice_row, twice_column = np.nonzero(crossed)
    falling = upper_left[crossed].astype(np.int64)
    none = np.zeros(len(row), np.int64)
    ones = np.ones(len(twice_row), np.int64)
    return (
        np.concatenate([row, twice_row, twice_row]),
        np.concatenate([column, twice_column, twice_column]),
        np.concatenate([none, 0 * ones, ones]),
        np.concatenate([none, 1 - falling, falling]),
    )


def _partners(order: _Indices) -> _Indices:
    """Pair the first with the second in this order, the third with the fourth, and so on."""
    partners = np.empty(len(order), np.int64)
    partners[order[0::2]] = order[1::2]
    partners[order[1::2]] = order[0::2]
    return partners


def _rings(beside: Sequence[int], above: Sequence[int]) -> list[list[int]]:
    """Follow edges, across and down in turn, until every corner was passed."""
    passed = [False] * len(beside)
    rings = []
    for start in range(len(beside)):
        if passed[start]:
            continue
        ring, corner = [], start
        while not passed[corner]:
            other = beside[corner]
            passed[corner] = passed[other] = True
            ring += [corner, other]
            corner = above[other]
        rings.append(ring)
    return rings
