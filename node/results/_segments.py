"""Which segments of an analysis can be drawn, whether they overlap, where they are largest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from engines.findings import Analysis, Segment
from engines.images import Grid
from node.interfaces import ResultError


def drawn_segments(analysis: Analysis) -> tuple[Segment, ...]:
    """Return the segments that can be drawn, in the order in which they are numbered from 1.

    Raises:
        ResultError: two segments share a key, or a mask is not of the grid's shape (SEG-02).
    """
    keys = [segment.key for segment in analysis.findings]
    if len(set(keys)) != len(keys):
        raise ResultError("two segments share a key: they could not be told apart (OBJ-17)")
    for segment in analysis.findings:
        if segment.labels.shape != analysis.grid.shape or segment.labels.dtype != np.uint8:
            raise ResultError(f"segment {segment.key} has no labels on the source grid")
    if slice_depth(analysis.grid) is None:
        return ()
    return tuple(segment for segment in analysis.findings if segment.by_slice.any())


def undrawn_segments(analysis: Analysis) -> tuple[Segment, ...]:
    """Return the findings that no Segmentation object shows: their values stand in text only."""
    drawn = {segment.key for segment in drawn_segments(analysis)}
    return tuple(segment for segment in analysis.findings if segment.key not in drawn)


def slice_depth(grid: Grid) -> float | None:
    """Return how thick masks on the grid are, in mm; None for a single slice that does not say.

    A source may keep its thickness to itself: then masks are as thick as slices are apart. Without
    either nothing can be drawn, for a Segmentation object has to state one (PS3.3 C.7.6.16.2.1).
    """
    return grid.slice_thickness or grid.spacing[0]


def largest_slice(segment: Segment) -> int:
    """Return the index of the slice with most voxels of the segment."""
    return int(np.argmax(segment.by_slice))


def overlap(segments: Sequence[Segment]) -> bool:
    """Say whether any voxel belongs to two segments (PS3.3 C.8.20.2); in one array none can."""
    by_array: dict[int, list[Segment]] = {}
    for segment in segments:
        by_array.setdefault(id(segment.labels), []).append(segment)
    groups = list(by_array.values())
    if any(len({item.value for item in group}) < len(group) for group in groups):
        return True
    filled = sum((_slices_of(group).astype(int) for group in groups), start=np.zeros(1, int))
    return any(_share_a_voxel(groups, int(index)) for index in np.flatnonzero(filled > 1))


def _slices_of(group: Sequence[Segment]) -> npt.NDArray[np.bool_]:
    """Return on which slices segments have voxels: bool [slice]."""
    return np.asarray(np.any([item.by_slice > 0 for item in group], axis=0))


def _share_a_voxel(groups: Sequence[Sequence[Segment]], index: int) -> bool:
    """Say whether segments of different arrays have a voxel of a slice in common."""
    seen = np.zeros(groups[0][0].labels.shape[1:], np.bool_)
    for group in groups:
        wanted = np.zeros(256, np.bool_)
        wanted[[item.value for item in group]] = True
        here = wanted[group[0].labels[index]]
        if (seen & here).any():
            return True
        seen |= here
    return False
