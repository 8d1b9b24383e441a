"""Which images of a cine series were taken at the same phase of the beat."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from engines.headers import FrameHeader
from engines.refusals import Reason, SeriesRefusedError
from engines.series import Series

POSITIONS: Final = ("TemporalPositionIdentifier", "TemporalPositionIndex")
"""Attributes that number the phases (PS3.3 C.7.6.16.2.2, C.8.3.1)."""
TIMES: Final = ("TriggerTime", "NominalCardiacTriggerDelayTime")
"""Attributes that give the time after the R wave in ms."""


def phases_of(series: Series, least: int) -> list[Series]:
    """Part a series by phase, in the order of the beat.

    Phases are numbered by the images themselves; where they are not, the images at each place are
    ranked by their trigger time, of which slices need not have the same.

    Raises:
        SeriesRefusedError: fewer phases than `least`, or images whose phase is not known.
    """
    frames = series.frames
    number = next((name for name in POSITIONS if _all_have(frames, name)), None)
    if number is not None:
        keys = [float(frame.distinct[number]) for frame in frames]
    else:
        keys = _ranks(frames)
    found: dict[float, list[FrameHeader]] = {}
    for key, frame in zip(keys, frames, strict=True):
        found.setdefault(key, []).append(frame)
    if len(found) < least:
        raise SeriesRefusedError(
            Reason.TOO_FEW_PHASES, f"the series has {len(found)} phases; {least} are needed"
        )
    return [Series(frames=tuple(found[key]), notes=series.notes) for key in sorted(found)]


def _all_have(frames: Sequence[FrameHeader], name: str) -> bool:
    return all(_is_number(frame.distinct.get(name, "")) for frame in frames)


def _ranks(frames: Sequence[FrameHeader]) -> list[float]:
    """Rank the images at each place by their time after the R wave."""
    name = next((n for n in TIMES if all(_is_number(f.explaining[n]) for f in frames)), None)
    if name is None:
        raise SeriesRefusedError(
            Reason.TOO_FEW_PHASES, "the images give neither a temporal position nor a trigger time"
        )
    places: dict[tuple[float, ...], list[int]] = {}
    for index, frame in enumerate(frames):
        place = tuple(round(value, 2) for value in frame.position or ())
        places.setdefault(place, []).append(index)
    counts = {len(indices) for indices in places.values()}
    if len(counts) > 1:
        raise SeriesRefusedError(
            Reason.TOO_FEW_PHASES,
            f"slices have {min(counts)} to {max(counts)} images each, and no temporal position"
            " says which phases are missing",
        )
    ranks = [0.0] * len(frames)
    for indices in places.values():
        indices.sort(key=lambda index: float(frames[index].explaining[name]))
        for rank, index in enumerate(indices):
            ranks[index] = float(rank)
    return ranks


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
