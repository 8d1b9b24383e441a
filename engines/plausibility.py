"""Whether what an engine found can be true. What cannot is held back, and a person decides."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from engines.components import Box, box_of, label
from engines.findings import LabelArray, ReadOutcome, Refusal
from engines.images import BoolArray
from engines.refusals import Reason, reason_code
from engines.segments import SegmentSettings

MOST_TOLD: Final = 3
HELD: Final = "The engine's own checks found this result implausible; a person released it: {}."
"""What stands with a result that was held back, wherever it is shown."""


def believed(found: ReadOutcome, doubts: Sequence[str]) -> ReadOutcome | Refusal:
    """Return what an engine found, or, where it cannot be true, a refusal that holds it back."""
    if not doubts:
        return found
    told = "; ".join(doubts[:MOST_TOLD])
    if len(doubts) > MOST_TOLD:
        told += f"; and {len(doubts) - MOST_TOLD} more"
    return Refusal(
        reason=reason_code(Reason.IMPLAUSIBLE),
        detail=told,
        sources=found.sources,
        held=replace(found, limits=(*found.limits, HELD.format(told))),
    )


def volume_doubts(segment: SegmentSettings, volume: float) -> Iterator[str]:
    """Say why a volume in mL cannot be true: it lies outside `plausible_ml`."""
    low, high = segment.plausible_ml or (0.0, float("inf"))
    if not low <= volume <= high:
        yield f"{segment.label} would have {volume:.4g} ml; {low:g} to {high:g} are plausible"


def segment_doubts(
    labels: LabelArray,
    voxel_ml: float,
    segments: Sequence[SegmentSettings],
    body: BoolArray | None = None,
) -> Iterator[str]:
    """Say what cannot be true of segments: their volumes, and what `place_doubts` asks.

    Args:
        labels: uint8 [slice, row, column], the values of `segments`.
        voxel_ml: volume of a voxel in mL.
        segments: what is plausible of each.
        body: bool like `labels`, which voxels lie in the body; None: `inside_body` is not asked.
    """
    for segment in segments:
        if segment.plausible_ml is not None:
            yield from volume_doubts(segment, np.count_nonzero(labels == segment.value) * voxel_ml)
        yield from place_doubts(segment, labels, segment.value, body)


def place_doubts(
    segment: SegmentSettings,
    labels: LabelArray,
    value: int,
    body: BoolArray | None = None,
) -> Iterator[str]:
    """Say what cannot be true of a segment but its volume: its parts, and where they lie.

    Args:
        segment: what is plausible.
        labels: uint8 [slice, row, column].
        value: of the voxels that belong to it.
        body: bool like `labels`, which voxels lie in the body; None: `inside_body` is not asked.
    """
    box = box_of(labels, value) if segment.asks_where else None
    if box is None:
        return
    mask = labels[box] == value
    if segment.plausible_components is not None:
        low, high = segment.plausible_components
        _, count = label(mask)
        if not low <= count <= high:
            yield f"{segment.label} would be in {count} parts; {low} to {high} are plausible"
    if not segment.at_edge and _reaches_edge(box, labels.shape):
        yield f"{segment.label} would reach the edge of the images"
    if segment.inside_body is not None and body is not None:
        share = np.count_nonzero(mask & body[box]) / np.count_nonzero(mask)
        if share < segment.inside_body:
            yield (
                f"{100 * share:.0f} % of {segment.label} would lie inside the body;"
                f" at least {100 * segment.inside_body:g} % are plausible"
            )


def _reaches_edge(box: Box, shape: tuple[int, ...]) -> bool:
    """Say whether a box of [slice, row, column] holds an outermost row or column."""
    pairs = zip(box[1:], shape[1:], strict=True)
    return any(part.start == 0 or part.stop == size for part, size in pairs)
