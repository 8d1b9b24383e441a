"""Outlines of masks: corners of pixels, in order. Plain functions on arrays."""

from __future__ import annotations

import numpy as np

from engines.images import BoolArray, FloatArray

RIGHT, DOWN, LEFT, UP = range(4)
STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))


def outline_of(mask: BoolArray) -> FloatArray:
    """Return the outer outline of one component, float64 [corner, (column, row)], clockwise.

    Place 0, 0 is the top left corner of the top left pixel. The outline follows the edges of
    pixels, keeps the mask on its right, and is not closed: the first corner comes once. Holes have
    no outline.

    Raises:
        ValueError: the mask is empty.
    """
    grown = np.pad(mask, 1)
    rows, columns = np.nonzero(mask)
    if not rows.size:
        raise ValueError("the mask is empty")
    start = (int(columns[0]), int(rows[0]))
    corners: list[tuple[int, int]] = []
    place, way = start, RIGHT
    while True:
        turn = _turn(grown, place, way)
        if turn != way:
            corners.append(place)
        way = turn
        place = (place[0] + STEPS[way][0], place[1] + STEPS[way][1])
        if place == start and _turn(grown, place, way) == RIGHT:
            break
    if corners and corners[0] != start:
        corners.insert(0, start)
    return np.array(corners, np.float64)


def area_of(outline: FloatArray) -> float:
    """Return the area within an outline, in pixels."""
    x, y = outline[:, 0], outline[:, 1]
    return abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))) / 2


def _turn(grown: BoolArray, place: tuple[int, int], way: int) -> int:
    """Return the next direction at a corner: keep to the right pixel, cross no gap at a corner."""
    column, row = place[0] + 1, place[1] + 1
    ahead = {
        RIGHT: ((row - 1, column), (row, column)),
        DOWN: ((row, column), (row, column - 1)),
        LEFT: ((row, column - 1), (row - 1, column - 1)),
        UP: ((row - 1, column - 1), (row - 1, column)),
    }[way]
    left, right = (bool(grown[index]) for index in ahead)
    if not right:
        return (way + 1) % 4
    return (way - 1) % 4 if left else way
