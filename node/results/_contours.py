"""Contours of masks along the edges of pixels, and masks of contours. Plain functions on arrays.

Place 0, 0 is the top left corner of the top left pixel, as in pixel-relative graphics of
presentation states and in SCOORD (PS3.3 C.10.5.1, C.18.6.1.1). Contours of a mask give it back
exactly: holes have contours too, and what is inside an odd number of them is the mask.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import ndimage

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
    changes = np.zeros((rows + 1, columns + 1), np.int32)
    for contour in contours:
        corners = np.rint(contour).astype(np.int64)
        column, start, end = corners[:-1, 0], corners[:-1, 1], corners[1:, 1]
        down = (column == corners[1:, 0]) & (start != end)
        np.add.at(changes, (np.minimum(start, end)[down], column[down]), 1)
        np.add.at(changes, (np.maximum(start, end)[down], column[down]), -1)
    crossings = np.cumsum(changes, axis=0)
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


def filled_contours_of(mask: Mask) -> list[Points]:
    """Return a contour for each component, which goes around its holes too, by way of keyholes.

    As `contours_of`, for what knows no holes: a channel without width leads to each of them and
    back (PS3.3 C.8.8.6.3).
    """
    components, _ = ndimage.label(mask)
    outer: dict[int, Points] = {}
    holes: list[tuple[int, Points]] = []
    for contour in contours_of(mask):
        first = np.lexsort((contour[:, 0], contour[:, 1]))[0]
        column, row = contour[first].astype(np.int64)
        if mask[row, column]:  # inside, for it turns to the right and down there
            outer[int(components[row, column])] = _turning(contour, 1)
        else:
            holes.append((int(components[row - 1, column]), _turning(contour, -1)))
    for component, hole in holes:
        outer[component] = _keyholed(outer[component], hole)
    return list(outer.values())


def _turning(contour: Points, way: int) -> Points:
    """Return the contour gone around clockwise (1) or the other way (-1)."""
    area = np.dot(contour[1::2, 0] - contour[::2, 0], contour[::2, 1])
    return contour if area * way < 0 else contour[::-1]


def _keyholed(contour: Points, hole: Points) -> Points:
    """Lead a contour around a hole, from its corner that is next to the hole's first, and back.

    The hole is gone around the other way: what is within it does not count as filled.
    """
    near = int(np.argmin(((contour - hole[0]) ** 2).sum(axis=1)))
    return np.concatenate([contour[: near + 1], hole, hole[:1], contour[near:]])


def without_specks(mask: Mask, least: float) -> Mask:
    """Return a mask without components and holes of fewer pixels, but for the largest of each."""
    kept = _kept(mask, least)
    return ~_kept(~kept, least)


def _kept(mask: Mask, least: float) -> Mask:
    components, _ = ndimage.label(mask)
    sizes = np.bincount(components.ravel())
    sizes[0] = 0
    large: Mask = (sizes >= min(least, sizes.max()))[components] & mask
    return large
