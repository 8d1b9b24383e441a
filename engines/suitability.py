"""Is this series fit for this engine? If not, the coded reason.

Asked twice, so that no time is spent on what cannot be used: of the headers, before planes are put
in order, and of the grid, before pixels are decoded.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from engines.findings import Refusal
from engines.header_rules import header_rule_faults
from engines.headers import FrameHeader
from engines.images import Grid
from engines.manifest import SuitabilityTable
from engines.refusals import Reason, refuse
from engines.series import Series, StackedSeries, in_hounsfield_units

NORMALS: Final = {
    "axial": (0.0, 0.0, 1.0),
    "coronal": (0.0, 1.0, 0.0),
    "sagittal": (1.0, 0.0, 0.0),
}


def unfit_series(series: Series, wanted: SuitabilityTable) -> Refusal | None:
    """Judge a series by its headers: what it shows, how it was made, in which unit."""
    for reason, detail in _header_faults(series, wanted):
        return refuse(reason, detail, series.sources)
    return None


def unfit_grid(stacked: StackedSeries, wanted: SuitabilityTable) -> Refusal | None:
    """Judge a series by its grid: plane, number of slices, distances."""
    for reason, detail in _grid_faults(stacked.grid, wanted):
        return refuse(reason, detail, stacked.series.sources)
    return None


def unfit_images(series: Series, wanted: SuitabilityTable) -> Refusal | None:
    """Judge images that are looked at one by one, wherever they lie: their size."""
    smallest = min(min(frame.pixels.rows, frame.pixels.columns) for frame in series.frames)
    if smallest < wanted.min_matrix:
        detail = f"an image has {smallest} pixels along a side; {wanted.min_matrix} are needed"
        return refuse(Reason.MATRIX_TOO_SMALL, detail, series.sources)
    return None


def _header_faults(series: Series, wanted: SuitabilityTable) -> Iterator[tuple[Reason, str]]:
    frames = series.frames
    modalities = {frame.modality for frame in frames} - set(wanted.modalities)
    if modalities:
        found = ", ".join(sorted(_safe(value) for value in modalities))
        yield (
            Reason.WRONG_MODALITY,
            f"modality {found}; the engine reads {', '.join(wanted.modalities)}",
        )
    classes = {frame.source.sop_class_uid for frame in frames} - set(wanted.sop_classes)
    if classes:
        yield (
            Reason.WRONG_SOP_CLASS,
            f"images of SOP class {', '.join(sorted(classes))} are not read by the engine",
        )
    excluded = {word for frame in frames for word in frame.image_type} & set(
        wanted.image_types_excluded
    )
    if excluded:
        yield Reason.WRONG_IMAGE_TYPE, f"images of type {', '.join(sorted(excluded))}"
    yield from _value_faults(frames, wanted)
    yield from _body_part_faults(frames, wanted)
    yield from header_rule_faults(frames, wanted)
    if len(frames) < wanted.min_slices:
        yield (
            Reason.TOO_FEW_SLICES,
            f"{len(frames)} slices; the engine needs at least {wanted.min_slices}",
        )
    if len(frames) > wanted.max_slices:
        yield (
            Reason.TOO_MANY_SLICES,
            f"{len(frames)} slices; the engine reads at most {wanted.max_slices}",
        )


def _value_faults(
    frames: tuple[FrameHeader, ...], wanted: SuitabilityTable
) -> Iterator[tuple[Reason, str]]:
    if wanted.unit == "HU":
        count = sum(not in_hounsfield_units(frame) for frame in frames)
        if count:
            yield Reason.WRONG_UNIT, f"{count} of {len(frames)} images are not in Hounsfield units"
    if wanted.photometrics:
        others = {frame.pixels.photometric for frame in frames} - set(wanted.photometrics)
        if others:
            found = ", ".join(sorted(_safe(value) for value in others))
            yield Reason.PIXEL_FORMAT, f"photometric interpretation is {found}"
    if wanted.lossy == "refuse":
        count = sum(frame.lossy for frame in frames)
        if count:
            yield Reason.LOSSY, f"{count} of {len(frames)} images are lossy compressed"


def _body_part_faults(
    frames: tuple[FrameHeader, ...], wanted: SuitabilityTable
) -> Iterator[tuple[Reason, str]]:
    parts = {frame.body_part for frame in frames} - {""}
    others = parts - set(wanted.body_parts) if wanted.body_parts else set()
    refused = others | (parts & set(wanted.body_parts_excluded))
    if refused:
        found = ", ".join(sorted(_safe(value) for value in refused))
        yield Reason.WRONG_BODY_PART, f"body part examined is {found}"


def _grid_faults(grid: Grid, wanted: SuitabilityTable) -> Iterator[tuple[Reason, str]]:
    if wanted.plane != "any":
        cosine = abs(float(np.dot(grid.normal, NORMALS[wanted.plane])))
        degrees = float(np.degrees(np.arccos(np.clip(cosine, 0.0, 1.0))))
        if degrees > wanted.plane_tolerance_degrees:
            yield (
                Reason.WRONG_PLANE,
                f"slices lie {degrees:.0f} degrees off the {wanted.plane} plane;"
                f" {wanted.plane_tolerance_degrees:.0f} are accepted",
            )
    between, row, column = grid.spacing
    if between is not None and between > wanted.max_slice_distance:
        yield (
            Reason.SLICES_TOO_FAR_APART,
            f"slices are {between:.2f} mm apart; {wanted.max_slice_distance:g} mm are accepted",
        )
    if max(row, column) > wanted.max_pixel_size:
        yield (
            Reason.PIXELS_TOO_LARGE,
            f"pixels of {row:.2f} x {column:.2f} mm; {wanted.max_pixel_size:g} mm are accepted",
        )
    if min(grid.shape[1:]) < wanted.min_matrix:
        yield (
            Reason.MATRIX_TOO_SMALL,
            f"{grid.shape[1]} x {grid.shape[2]} pixels; at least {wanted.min_matrix} are needed",
        )


def _safe(text: str) -> str:
    """Keep a value of the data set to a code string (CS), whatever the sender put there."""
    allowed = "".join(
        char for char in text[:16] if char.isascii() and (char.isalnum() or char in "_ ")
    )
    return allowed or "?"
