"""Planes into a stack: order, spacing, tilt and gaps, from positions and nothing else.

Plain functions on arrays. Frame: LPS, mm. Instance numbers, slice locations and file names are
never looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from engines.images import FloatArray, Vector
from engines.refusals import Reason, SeriesRefusedError

ORTHONORMAL_TOLERANCE: Final = 1e-3
ORIENTATION_TOLERANCE: Final = 1e-3
SAME_POSITION_MM: Final = 0.05
SPACING_TOLERANCE: Final = 0.01  # of the spacing
SPACING_TOLERANCE_MM: Final = 0.05
GAP_FACTOR: Final = 1.5
MIN_COSINE: Final = 0.999  # between the normal and the way from slice to slice


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """How planes lie on each other.

    `order` lists the planes in ascending order along the normal; `spacing` is the distance between
    neighbours in mm, None for a single plane.
    """

    order: tuple[int, ...]
    row_direction: Vector
    column_direction: Vector
    spacing: float | None


def stack_planes(positions: FloatArray, orientations: FloatArray) -> Stack:
    """Put planes in order.

    Args:
        positions: float64 [plane, xyz], Image Position (Patient) of each plane, in mm.
        orientations: float64 [plane, 6], Image Orientation (Patient) of each plane.

    Raises:
        SeriesRefusedError: mixed or invalid orientation, two planes at one position, tilt, missing
            planes, uneven spacing.
    """
    row, column = common_directions(orientations)
    normal = np.cross(row, column)
    along = positions @ normal
    order = np.argsort(along, kind="stable")
    spacing = None
    if len(order) > 1:
        spacing = _even_spacing(positions[order], along[order], normal)
    return Stack(
        order=tuple(int(index) for index in order),
        row_direction=_vector(row),
        column_direction=_vector(column),
        spacing=spacing,
    )


def common_directions(orientations: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the unit vectors (row, column) that all planes share.

    Raises:
        SeriesRefusedError: not unit vectors at right angles within 1e-3 (PS3.3 C.7.6.2.1.1), or
            not the same for all planes.
    """
    rows, columns = orientations[:, :3], orientations[:, 3:]
    _check_orthonormal(rows, columns)
    spread = float(np.abs(orientations - orientations[0]).max())
    if spread > ORIENTATION_TOLERANCE:
        kinds = len(np.unique(orientations.round(3), axis=0))
        raise SeriesRefusedError(
            Reason.MIXED_ORIENTATION,
            f"{len(orientations)} images have {kinds} orientations; direction cosines differ by up"
            f" to {spread:.3f}",
        )
    row = rows[0] / np.linalg.norm(rows[0])
    column = columns[0] - row * (columns[0] @ row)
    return row, column / np.linalg.norm(column)


def _check_orthonormal(rows: FloatArray, columns: FloatArray) -> None:
    lengths = np.concatenate([np.linalg.norm(rows, axis=1), np.linalg.norm(columns, axis=1)])
    worst_length = float(lengths[np.abs(lengths - 1).argmax()])
    worst_angle = float(np.abs(np.sum(rows * columns, axis=1)).max())
    if abs(worst_length - 1) > ORTHONORMAL_TOLERANCE or worst_angle > ORTHONORMAL_TOLERANCE:
        raise SeriesRefusedError(
            Reason.INVALID_GEOMETRY,
            "image orientation is not made of unit vectors at right angles: length"
            f" {worst_length:.4f}, cosine between them {worst_angle:.4f}",
        )


def _even_spacing(positions: FloatArray, along: FloatArray, normal: FloatArray) -> float:
    """Return the distance between neighbours of a stack that is already in order."""
    steps = np.diff(along)
    _check_distinct(steps, along)
    _check_straight(positions, normal)
    _check_complete(steps, along)
    mean = float((along[-1] - along[0]) / len(steps))
    tolerance = max(SPACING_TOLERANCE * mean, SPACING_TOLERANCE_MM)
    if float(np.abs(steps - mean).max()) > tolerance:
        raise SeriesRefusedError(
            Reason.UNEVEN_SPACING,
            f"distances between {len(along)} slices range from {steps.min():.2f} to"
            f" {steps.max():.2f} mm",
        )
    return mean


def _check_distinct(steps: FloatArray, along: FloatArray) -> None:
    same = np.flatnonzero(steps < SAME_POSITION_MM)
    if len(same):
        raise SeriesRefusedError(
            Reason.DUPLICATE_POSITION,
            f"{len(same)} of {len(along)} images lie where another image lies, first at"
            f" {along[same[0]]:.1f} mm along the normal",
        )


def _check_straight(positions: FloatArray, normal: FloatArray) -> None:
    ways = np.diff(positions, axis=0)
    cosines = (ways @ normal) / np.linalg.norm(ways, axis=1)
    worst = float(cosines.min())
    if worst < MIN_COSINE:
        degrees = float(np.degrees(np.arccos(np.clip(worst, -1, 1))))
        raise SeriesRefusedError(
            Reason.TILTED,
            f"the way from slice to slice leaves the normal of the images by {degrees:.1f} degrees",
        )


def _check_complete(steps: FloatArray, along: FloatArray) -> None:
    usual = float(np.sort(steps)[(len(steps) - 1) // 2])
    gaps = np.flatnonzero(steps > GAP_FACTOR * usual)
    if not len(gaps):
        return
    missing = int(sum(round(float(steps[gap]) / usual) - 1 for gap in gaps))
    first = int(gaps[0])
    raise SeriesRefusedError(
        Reason.MISSING_SLICES,
        f"{max(missing, 1)} slices missing in {len(gaps)} gaps, the first between"
        f" {along[first]:.1f} and {along[first + 1]:.1f} mm along the normal, where slices are"
        f" {usual:.2f} mm apart",
    )


def _vector(values: Sequence[float] | FloatArray) -> Vector:
    x, y, z = (float(value) for value in values)
    return (x, y, z)
