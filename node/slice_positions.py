"""Gaps between the slices of a series, from positions: evidence that instances are missing.

A cheap look, not the geometry of a volume (that is `engines.stacking`): it says nothing where
positions are uneven for another reason. Plain functions on numbers. Frame: LPS, mm.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Final, TypeAlias

from pydantic import JsonValue

Point: TypeAlias = tuple[float, ...]

FEWEST_POSITIONS: Final = 4
SAME_POSITION_MM: Final = 0.05
TOLERANCE: Final = 0.1  # of the spacing
MOST_GAPS: Final = 0.2  # of the distances: with more, the spacing itself changes
MOST_SHOWN: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """What one image says of its place; None where it says nothing that can be used.

    `position` is Image Position (Patient), xyz in mm; `orientation` the six direction cosines of
    Image Orientation (Patient) (PS3.3 C.7.6.2.1.1).
    """

    position: Point | None = None
    orientation: Point | None = None
    instance_number: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """A hole in a series. A hole in the Instance Numbers alone is a weak sign: `possibly`."""

    series_instance_uid: str
    slices: int
    possibly: bool
    spacing_mm: float | None = None
    places: tuple[str, ...] = ()

    def shown(self) -> dict[str, JsonValue]:
        """Return the gap as data for a timeline."""
        found: dict[str, JsonValue] = {
            "by": "instance numbers" if self.possibly else "slice positions",
            "series": self.series_instance_uid,
            "instances": self.slices,
            "between": list(self.places),
        }
        if self.spacing_mm is not None:
            found["spacing_mm"] = self.spacing_mm
        return found


def gaps_of(series_instance_uid: str, slices: Sequence[Slice]) -> tuple[Gap, ...]:
    """Return the gaps of one series: by position, and else, weakly, by Instance Number.

    Slices are taken together by their orientation, and images at one position count once, so
    that localizers and dynamic series are looked at as the stacks that they are.
    """
    found = [
        gap
        for along in _stacks(slices)
        if (gap := _position_gap(series_instance_uid, along)) is not None
    ]
    if found:
        return tuple(found)
    numbers = sorted({item.instance_number for item in slices if item.instance_number is not None})
    weak = _number_gap(series_instance_uid, numbers)
    return () if weak is None else (weak,)


def _stacks(slices: Iterable[Slice]) -> Iterable[list[float]]:
    """Yield, for each orientation, the distinct distances along the normal, ascending, in mm."""
    stacks: dict[tuple[float, ...], list[float]] = {}
    for item in slices:
        position, normal = item.position, _normal(item.orientation)
        if position is None or normal is None or len(position) != len(normal):
            continue
        along = sum(a * b for a, b in zip(position, normal, strict=True))
        if math.isfinite(along):
            stacks.setdefault(tuple(round(part, 2) + 0.0 for part in normal), []).append(along)
    for distances in stacks.values():
        distances.sort()
        distinct = distances[:1]
        for distance in distances:
            if distance - distinct[-1] > SAME_POSITION_MM:
                distinct.append(distance)
        yield distinct


def _normal(orientation: Point | None) -> Point | None:
    if orientation is None or len(orientation) != 6:  # noqa: PLR2004 - two vectors
        return None
    (a, b, c), (x, y, z) = orientation[:3], orientation[3:]
    normal = (b * z - c * y, c * x - a * z, a * y - b * x)
    length = math.hypot(*normal)
    if not math.isfinite(length) or length < TOLERANCE:
        return None
    return tuple(part / length for part in normal)


def _position_gap(series_instance_uid: str, along: Sequence[float]) -> Gap | None:
    """Find distances that are a multiple of the spacing, where nearly all others are the spacing.

    A head CT with thin slices below and thick ones above has many doubled distances, and no gap.
    """
    if len(along) < FEWEST_POSITIONS:
        return None
    steps = [after - before for before, after in pairwise(along)]
    spacing = median(steps)
    tolerance = max(TOLERANCE * spacing, SAME_POSITION_MM)
    missing, places = 0, []
    for start, step in zip(along, steps, strict=False):
        multiple = round(step / spacing)
        if abs(step - multiple * spacing) > tolerance:
            return None  # uneven for another reason
        if multiple > 1:
            missing += multiple - 1
            places.append(f"{start:.1f} and {start + step:.1f} mm")
    if not places or len(places) > max(1, MOST_GAPS * len(steps)):
        return None
    return Gap(
        series_instance_uid=series_instance_uid,
        slices=missing,
        possibly=False,
        spacing_mm=round(spacing, 3),
        places=tuple(places[:MOST_SHOWN]),
    )


def _number_gap(series_instance_uid: str, numbers: Sequence[int]) -> Gap | None:
    """Find holes between Instance Numbers that otherwise count up by one."""
    holes = [(before, after) for before, after in pairwise(numbers) if after - before > 1]
    if not holes or len(holes) > MOST_GAPS * len(numbers):
        return None
    return Gap(
        series_instance_uid=series_instance_uid,
        slices=sum(after - before - 1 for before, after in holes),
        possibly=True,
        places=tuple(f"{before} and {after}" for before, after in holes[:MOST_SHOWN]),
    )
