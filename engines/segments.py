"""The labels of an engine: how each is coded, and what is done with its voxels afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field, StringConstraints, model_validator

from engines.components import (
    box_of,
    filled,
    largest_components,
    small_components,
)
from engines.manifest import CodedConcept, Colour, Name, Table

LabelArray = npt.NDArray[np.uint8]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Parts = Annotated[int, Field(ge=1)]


class SegmentSettings(Table):
    """One label: how it is coded, and what is done with its voxels.

    Only the `largest` components stay, then holes are filled, then components smaller than
    `smallest_ml` become the segment `otherwise`. A volume outside `plausible_ml` (none counts as
    0), a number of parts outside `plausible_components`, a smaller share than `inside_body` inside
    the body, or a voxel in the outermost rows or columns unless it may be `at_edge`, cannot be
    true: the result is held back, and a person decides.
    """

    key: Name
    value: Annotated[int, Field(ge=1, le=255)]
    label: Annotated[str, StringConstraints(min_length=2, max_length=64)]
    category: CodedConcept
    type: CodedConcept
    colour: tuple[Colour, Colour, Colour]
    smallest_ml: Amount = 0.0
    otherwise: Name | None = None
    largest: Annotated[int, Field(ge=1)] | None = None
    fill_holes: bool = False
    region: CodedConcept | None = None
    laterality: CodedConcept | None = None
    plausible_ml: tuple[Amount, Amount] | None = None
    plausible_components: tuple[Parts, Parts] | None = None
    inside_body: Annotated[float, Field(gt=0, le=1)] | None = None
    at_edge: bool = True

    @model_validator(mode="after")
    def _plausible_are_ranges(self) -> SegmentSettings:
        for name in ("plausible_ml", "plausible_components"):
            limits = getattr(self, name)
            if limits is not None and limits[0] > limits[1]:
                raise ValueError(f"{name}: the first is above the second")
        return self

    @property
    def asks_where(self) -> bool:
        """Whether more than its volume is asked for."""
        return (
            self.plausible_components is not None
            or self.inside_body is not None
            or not self.at_edge
        )


def tidy(labels: LabelArray, voxel_ml: float, segments: Sequence[SegmentSettings]) -> None:
    """Apply `largest`, `fill_holes` and `smallest_ml` in place, to all segments in that order.

    Args:
        labels: uint8 [slice, row, column].
        voxel_ml: volume of a voxel; a single slice counts as 1 mm thick where it does not say.
        segments: whose values the labels are.
    """
    for segment in segments:
        _keep_largest(labels, segment)
    values = {segment.key: segment.value for segment in segments}
    for segment in segments:
        smallest = int(np.ceil(segment.smallest_ml / voxel_ml))
        box = box_of(labels, segment.value) if smallest > 1 else None
        if box is not None:
            small = small_components(labels[box] == segment.value, smallest)
            np.copyto(
                labels[box], values[segment.otherwise] if segment.otherwise else 0, where=small
            )


def _keep_largest(labels: LabelArray, segment: SegmentSettings) -> None:
    if segment.largest is None and not segment.fill_holes:
        return
    mask = labels == segment.value
    kept = mask if segment.largest is None else largest_components(mask, segment.largest)
    labels[mask & ~kept] = 0
    if segment.fill_holes:
        labels[filled(kept) & (labels == 0)] = segment.value
