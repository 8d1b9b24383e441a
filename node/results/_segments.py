"""Which segments of an analysis can be drawn, and where they are largest."""

from __future__ import annotations

import numpy as np

from engines.findings import Analysis, Segment
from node.interfaces import ResultError


def drawn_segments(analysis: Analysis) -> tuple[Segment, ...]:
    """Return the segments that have voxels, in the order in which they are numbered from 1.

    Raises:
        ResultError: two segments share a key, or a mask is not of the grid's shape (SEG-02).
    """
    keys = [segment.key for segment in analysis.findings]
    if len(set(keys)) != len(keys):
        raise ResultError("two segments share a key: they could not be told apart (OBJ-17)")
    for segment in analysis.findings:
        if segment.mask.shape != analysis.grid.shape or segment.mask.dtype != np.bool_:
            raise ResultError(f"the mask of segment {segment.key} is not bool on the source grid")
    return tuple(segment for segment in analysis.findings if segment.mask.any())


def empty_segments(analysis: Analysis) -> tuple[Segment, ...]:
    """Return the segments without a voxel: named in text, in no other object."""
    return tuple(segment for segment in analysis.findings if not segment.mask.any())


def largest_slice(segment: Segment) -> int:
    """Return the index of the slice with most voxels of the segment."""
    return int(np.argmax(np.count_nonzero(segment.mask, axis=(1, 2))))
