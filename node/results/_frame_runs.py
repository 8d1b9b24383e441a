"""Frames of a segmentation gathered so that many are packed, or compared, at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from engines.findings import Segment
from engines.images import BoolArray

FRAMES_AT_ONCE: Final = 8


@dataclass(frozen=True, slots=True)
class Run:
    """Frames of one segment that lie behind each other in the object and on the grid.

    `first` is the index of the first frame, `segment` its number from 1; `slices` of the grid are
    ascending or descending.
    """

    first: int
    segment: int
    slices: range

    @property
    def end(self) -> int:
        """The index of the frame behind the last."""
        return self.first + len(self.slices)

    def pixels(self, segments: Sequence[Segment]) -> BoolArray:
        """Return what the frames have to hold: bool [frame, row, column]."""
        segment = segments[self.segment - 1]
        planes = segment.labels[min(self.slices) : max(self.slices) + 1][:: self.slices.step]
        return np.asarray(planes == segment.value)


def runs_of(frames: Sequence[tuple[int, int]]) -> list[Run]:
    """Gather frames, each given as the number of its segment and the index of its slice."""
    runs: list[Run] = []
    first = 0
    for index in range(1, len(frames) + 1):
        if index < len(frames) and _goes_on(frames[first : index + 1]):
            continue
        (number, start), (_, last) = frames[first], frames[index - 1]
        step = 1 if last >= start else -1
        runs.append(Run(first, number, range(start, last + step, step)))
        first = index
    return runs


def _goes_on(frames: Sequence[tuple[int, int]]) -> bool:
    """Say whether the last of two frames or more goes on where those before it lead to."""
    (number, start), (_, second), *_ = frames
    step, steps = second - start, len(frames) - 1
    return (
        frames[-1] == (number, start + steps * step)
        and step in (1, -1)
        and (steps < FRAMES_AT_ONCE)
    )
