"""From the files of a series to a stack of frames, and from a stack to a volume.

Reading has two halves, so that an engine can refuse a series before a pixel is decoded:
`read_series` and `stack_series` look at headers only, `load_volume` decodes. Geometry is never
guessed: what does not fit raises `SeriesRefusedError` with a coded reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from engines.headers import SECONDARY_CAPTURE, FrameHeader, read_headers
from engines.images import Grid, InstanceFile, SourceFrame, Vector, Volume
from engines.pixels import read_voxels
from engines.refusals import Reason, SeriesRefusedError
from engines.stacking import stack_planes


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """The frames of a series that may form a volume. `notes` say what was set aside."""

    frames: tuple[FrameHeader, ...]
    notes: tuple[str, ...] = ()

    @property
    def sources(self) -> tuple[SourceFrame, ...]:
        """The frames as findings refer to them."""
        return tuple(frame.source for frame in self.frames)


@dataclass(frozen=True, slots=True, kw_only=True)
class StackedSeries:
    """The frames of a series in grid order, and the grid they form."""

    series: Series
    grid: Grid


def read_series(instances: Sequence[InstanceFile], *, byte_limit: int) -> Series:
    """Read the headers of a series and set aside what is no slice (GEO-09).

    Raises:
        SeriesRefusedError: nothing left, unreadable, several series, or over `byte_limit` bytes of
            pixels in all.
    """
    unique = {instance.sop_instance_uid: instance for instance in reversed(instances)}
    frames: list[FrameHeader] = []
    pixels = 0
    for instance in reversed(unique.values()):
        headers = read_headers(instance, byte_limit=byte_limit)
        pixels += sum(2 * header.pixels.rows * header.pixels.columns for header in headers)
        if pixels > byte_limit:
            raise SeriesRefusedError(
                Reason.TOO_LARGE, f"the series has more than {byte_limit >> 20} MiB of pixels"
            )
        frames += headers
    if not frames:
        raise SeriesRefusedError(Reason.EMPTY, "the series has no image")
    _check_one_series(frames)
    return _set_aside(frames)


def stack_series(series: Series) -> StackedSeries:
    """Put the frames of a series in order along their normal (GEO-01 to GEO-08, GEO-13).

    Raises:
        SeriesRefusedError: for whatever keeps the frames from being one regular volume.
    """
    frames = series.frames
    _check_geometry_is_there(frames)
    _check_same(frames, _matrix, Reason.MIXED_MATRIX, "image sizes")
    _check_same(frames, _spacing, Reason.MIXED_SPACING, "pixel spacings")
    _check_same(
        frames,
        lambda frame: frame.frame_of_reference_uid,
        Reason.MIXED_FRAME_OF_REFERENCE,
        "frames of reference",
    )
    _check_one_volume(frames)
    positions = np.array([frame.position for frame in frames], dtype=np.float64)
    orientations = np.array([frame.orientation for frame in frames], dtype=np.float64)
    try:
        stack = stack_planes(positions, orientations)
    except SeriesRefusedError as refused:
        raise _explained(refused, frames) from refused
    ordered = tuple(frames[index] for index in stack.order)
    first = ordered[0]
    rows_apart, columns_apart = first.pixel_spacing or (0.0, 0.0)
    grid = Grid(
        shape=(len(ordered), first.pixels.rows, first.pixels.columns),
        positions=tuple(_known(frame.position) for frame in ordered),
        row_direction=stack.row_direction,
        column_direction=stack.column_direction,
        spacing=(stack.spacing, rows_apart, columns_apart),
        slice_thickness=first.slice_thickness,
        frame_of_reference_uid=first.frame_of_reference_uid,
        regular=True,
    )
    return StackedSeries(series=Series(frames=ordered, notes=series.notes), grid=grid)


def load_volume(stacked: StackedSeries, *, byte_limit: int) -> Volume:
    """Decode the pixels of a stack.

    Raises:
        SeriesRefusedError: pixel data that is short, damaged, not grey, or without a decoder; or
            values that a table would change.
    """
    frames = stacked.series.frames
    if any(frame.tabled for frame in frames):
        raise SeriesRefusedError(
            Reason.INVALID_RESCALE,
            "stored values become values by a table (Modality LUT Sequence), not by a slope",
        )
    voxels, valid = read_voxels(frames, byte_limit=byte_limit)
    return Volume(
        voxels=voxels,
        valid=valid,
        unit="HU" if all(in_hounsfield_units(frame) for frame in frames) else "",
        grid=stacked.grid,
        sources=stacked.series.sources,
        notes=stacked.series.notes,
    )


def in_uptake_values(volume: Volume, factor: float) -> Volume:
    """Return a volume of activity in g/ml, standardized by body weight."""
    values = volume.voxels.astype(np.float32) * np.float32(factor)
    return replace(volume, voxels=values, unit="g/ml{SUVbw}")


def read_volume(instances: Sequence[InstanceFile], *, byte_limit: int = 1 << 30) -> Volume:
    """Read a series into a volume, without an engine's own conditions.

    Raises:
        SeriesRefusedError: with the coded reason.
    """
    stacked = stack_series(read_series(instances, byte_limit=byte_limit))
    return load_volume(stacked, byte_limit=byte_limit)


def in_hounsfield_units(frame: FrameHeader) -> bool:
    """Say whether rescaled values are in HU.

    In a CT image Rescale Type may be absent, and then means HU (PS3.3 C.8.2.1.1.2); derived maps,
    such as perfusion, are not.
    """
    stated = frame.rescale_type.upper()
    map_of_something = "PERFUSION" in frame.image_type
    return (
        frame.modality == "CT"
        and frame.rescale is not None
        and stated in ("HU", "")
        and not map_of_something
    )


def _check_one_series(frames: Sequence[FrameHeader]) -> None:
    uids = {frame.source.series_instance_uid for frame in frames}
    if len(uids) > 1:
        raise SeriesRefusedError(
            Reason.SEVERAL_SERIES, f"the images belong to {len(uids)} series; one is read at a time"
        )


def _set_aside(frames: Sequence[FrameHeader]) -> Series:
    """Part localizers and secondary captures from the slices, and say so."""
    captures = [frame for frame in frames if _is_capture(frame)]
    images = [frame for frame in frames if not _is_capture(frame)]
    localizers = [frame for frame in images if "LOCALIZER" in frame.image_type]
    rest = tuple(frame for frame in images if "LOCALIZER" not in frame.image_type)
    if not rest and localizers:
        raise SeriesRefusedError(
            Reason.ONLY_LOCALIZERS, f"all {len(frames)} images are localizers or captures"
        )
    if not rest:
        raise SeriesRefusedError(
            Reason.ONLY_SECONDARY,
            f"all {len(frames)} images are captures, screen saves, or have burned-in text",
        )
    notes = []
    if localizers:
        notes.append(f"{len(localizers)} localizer images of the series were left out.")
    if captures:
        notes.append(
            f"{len(captures)} secondary captures or images with burned-in text were left out."
        )
    return Series(frames=rest, notes=tuple(notes))


def _is_capture(frame: FrameHeader) -> bool:
    uid = frame.source.sop_class_uid
    return (
        uid == SECONDARY_CAPTURE
        or uid.startswith(f"{SECONDARY_CAPTURE}.")
        or "SCREEN SAVE" in frame.image_type
        or frame.burned_in
    )


def _check_geometry_is_there(frames: Sequence[FrameHeader]) -> None:
    absent: Mapping[str, int] = {
        "Image Position (Patient)": sum(frame.position is None for frame in frames),
        "Image Orientation (Patient)": sum(frame.orientation is None for frame in frames),
        "Pixel Spacing": sum(frame.pixel_spacing is None for frame in frames),
        "Frame of Reference UID": sum(not frame.frame_of_reference_uid for frame in frames),
    }
    missing = [f"{name} ({count})" for name, count in absent.items() if count]
    if missing:
        raise SeriesRefusedError(
            Reason.MISSING_GEOMETRY, f"of {len(frames)} images some lack {', '.join(missing)}"
        )


def _check_same(
    frames: Iterable[FrameHeader],
    value: Callable[[FrameHeader], object],
    reason: Reason,
    what: str,
) -> None:
    kinds = {value(frame) for frame in frames}
    if len(kinds) > 1:
        raise SeriesRefusedError(reason, f"the images of the series have {len(kinds)} {what}")


def _matrix(frame: FrameHeader) -> object:
    return frame.pixels.rows, frame.pixels.columns


def _spacing(frame: FrameHeader) -> object:
    """Pixel spacing to 0.1 µm: some writers round it anew for every slice."""
    return frame.pixel_spacing and tuple(round(value, 4) for value in frame.pixel_spacing)


def _check_one_volume(frames: Sequence[FrameHeader]) -> None:
    differing = _differing([frame.distinct for frame in frames])
    if differing:
        raise SeriesRefusedError(
            Reason.SEVERAL_VOLUMES, f"{len(frames)} images of one series differ in {differing}"
        )


def _explained(refused: SeriesRefusedError, frames: Sequence[FrameHeader]) -> SeriesRefusedError:
    """Where images share positions, say which attribute tells their volumes apart."""
    if refused.reason is not Reason.DUPLICATE_POSITION:
        return refused
    differing = _differing([frame.explaining for frame in frames])
    if not differing:
        return refused
    return SeriesRefusedError(
        Reason.SEVERAL_VOLUMES, f"{refused.detail}; the images differ in {differing}"
    )


def _differing(keys: Sequence[Mapping[str, str]]) -> str:
    """Name the attributes that have several values, with how many."""
    counts = {name: len({key[name] for key in keys}) for name in keys[0]}
    return ", ".join(f"{name} ({count} values)" for name, count in counts.items() if count > 1)


def _known(position: Vector | None) -> Vector:
    if position is None:
        raise SeriesRefusedError(Reason.MISSING_GEOMETRY, "an image has no position")
    return position
