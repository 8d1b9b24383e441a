"""Reads a segmentation back and compares it with the outcome, in the patient's coordinates."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.pixels.utils import iter_pixels

from engines.findings import Analysis, Segment
from engines.images import BoolArray, Grid, SourceFrame
from engines.sharing import share
from node.interfaces import ResultContext, ResultError
from node.results import _encoded_items as encoded
from node.results import _identity as identity
from node.results._frame_groups import FramePlace, frame_groups
from node.results._frame_runs import Run, runs_of
from node.results._iod import require_attributes
from node.results._segments import drawn_segments
from node.results._sources import Headers, headers_by_uid, source_of

POSITION_TOLERANCE_MM: Final = 1e-3
DIRECTION_TOLERANCE: Final = 1e-4
SPACING_TOLERANCE_MM: Final = 1e-4
REFERENCES: Final = ("ReferencedSeriesSequence", "SourceImageSequence")
CONDITIONAL_MODULES: Final = ("frame-of-reference", "common-instance-reference")


def compare_with_outcome(path: Path, context: ResultContext, analysis: Analysis) -> None:
    """Compare a saved segmentation with the masks, wherever its frames say they lie.

    Raises:
        ResultError: naming the first difference.
    """
    written = _read(path, context, analysis)
    _compare_voxels(written, drawn_segments(analysis), _placed(written, context, analysis))


def compare_label_map(path: Path, context: ResultContext, analysis: Analysis) -> None:
    """Compare a saved label map in the same way.

    Raises:
        ResultError: naming the first difference.
    """
    written = _read(path, context, analysis)
    slices = [index for _, index in _placed(written, context, analysis)]
    segments = drawn_segments(analysis)
    held = np.flatnonzero(sum(segment.by_slice for segment in segments))
    _require(np.array_equal(sorted(slices), held), "its frames are not those that hold a voxel")
    numbers = np.zeros(256, np.uint8)
    numbers[[segment.value for segment in segments]] = range(1, len(segments) + 1)
    for frame, index in zip(iter_pixels(written), slices, strict=True):
        wanted = numbers[segments[0].labels[index]]
        _require(np.array_equal(frame, wanted), f"its labels differ on slice {index}")


def _read(path: Path, context: ResultContext, analysis: Analysis) -> Dataset:
    """Read a segmentation and compare all but its frames."""
    written = dcmread(path)
    require_attributes(written, also=CONDITIONAL_MODULES, walked=REFERENCES)
    _compare_identity(written, context)
    _compare_descriptions(written, context, analysis)
    _compare_plane(written, analysis.grid)
    return written


def _compare_identity(written: Dataset, context: ResultContext) -> None:
    study = context.sources[0].StudyInstanceUID
    _require(written.StudyInstanceUID == study, "it is in another study than its source")
    in_series = (encoded.SERIES_INSTANCE_UID, encoded.REFERENCED_INSTANCES)
    listed = encoded.referenced_instances(written, "ReferencedSeriesSequence", in_series)
    named = encoded.referenced_instances(written, "SourceImageSequence")
    wanted = [str(source.SOPInstanceUID) for source in context.sources]
    _require(listed == named == wanted, "its references are not the source instances (OBJ-10)")


def _compare_descriptions(written: Dataset, context: ResultContext, analysis: Analysis) -> None:
    segments = drawn_segments(analysis)
    described = [str(item.TrackingUID) for item in written.SegmentSequence]
    wanted = [identity.tracking_uid(context, analysis, segment.key) for segment in segments]
    _require(described == wanted, "its segments are not the findings, in their order")


def _compare_plane(written: Dataset, grid: Grid) -> None:
    shared = written.SharedFunctionalGroupsSequence[0]
    orientation = shared.PlaneOrientationSequence[0].ImageOrientationPatient
    directions = grid.row_direction + grid.column_direction
    same = np.allclose(_floats(orientation), directions, rtol=0, atol=DIRECTION_TOLERANCE)
    _require(bool(same), "its orientation is not the grid's")
    spacing = _floats(shared.PixelMeasuresSequence[0].PixelSpacing)
    same = np.allclose(spacing, grid.spacing[1:], rtol=0, atol=SPACING_TOLERANCE_MM)
    _require(bool(same), "its pixel spacing is not the grid's")
    _require(
        written.FrameOfReferenceUID == grid.frame_of_reference_uid,
        "its frame of reference is not the grid's",
    )


def _placed(written: Dataset, context: ResultContext, analysis: Analysis) -> list[tuple[int, int]]:
    """Return for each frame the number of its segment, and the slice of the grid it lies on."""
    headers = headers_by_uid(context)
    positions = np.array(analysis.grid.positions)
    places: dict[FramePlace, int] = {}
    placed = []
    for groups in frame_groups(written):
        if groups.place not in places:
            places[groups.place] = _slice_of_frame(groups.place, positions, headers, analysis)
        placed.append((groups.segment, places[groups.place]))
    _require(len(placed) == int(written.NumberOfFrames), "it has not as many groups as frames")
    return placed


def _slice_of_frame(
    place: FramePlace,
    positions: npt.NDArray[np.float64],
    headers: Headers,
    analysis: Analysis,
) -> int:
    """Find the slice where a frame lies, by its position; its reference must say the same."""
    position = _floats(place.position)
    distances = np.linalg.norm(positions - position, axis=1)
    near = np.flatnonzero(distances < POSITION_TOLERANCE_MM)
    _require(bool(near.size), "a frame lies on no slice of the grid")
    named = [index for index in near if _is_of(place, analysis.sources[index])]
    _require(len(named) == 1, "a frame names another source than the one it lies on")
    index = int(named[0])
    source = analysis.sources[index]
    anchor = _position_in_header(source_of(headers, source), source)
    if np.linalg.norm(anchor - position) >= POSITION_TOLERANCE_MM:
        raise ResultError("segmentation: a frame does not lie where its source image lies")
    return index


def _is_of(place: FramePlace, source: SourceFrame) -> bool:
    return place.source_uid == source.sop_instance_uid and place.source_frame == source.frame


def _position_in_header(header: Dataset, source: SourceFrame) -> npt.NDArray[np.float64]:
    """Return Image Position (Patient) as the source itself states it (LPS, mm)."""
    if source.frame is None:
        return _floats(header.ImagePositionPatient)
    groups = header.PerFrameFunctionalGroupsSequence[source.frame - 1]
    if "PlanePositionSequence" not in groups:
        groups = header.SharedFunctionalGroupsSequence[0]
    return _floats(groups.PlanePositionSequence[0].ImagePositionPatient)


def _compare_voxels(
    written: Dataset, segments: Sequence[Segment], placed: Sequence[tuple[int, int]]
) -> None:
    _require(len(set(placed)) == len(placed), "two frames are of one segment on one slice")
    for number, _ in placed:
        _require(0 < number <= len(segments), f"a frame is of segment {number}, which is none")
    shape = int(written.Rows), int(written.Columns)
    packed = np.frombuffer(written.PixelData, np.uint8)
    runs = runs_of(placed)

    def compare(part: slice) -> None:
        for run in runs[part]:
            found, wanted = _pixels(packed, run, shape), run.pixels(segments)
            if not np.array_equal(found, wanted):
                same = [np.array_equal(*pair) for pair in zip(found, wanted, strict=True)]
                key, index = segments[run.segment - 1].key, run.slices[same.index(False)]
                _require(False, f"segment {key} differs on slice {index}")

    share(len(runs), compare)
    for number, segment in enumerate(segments, 1):
        there = sorted(index for found, index in placed if found == number)
        same = np.array_equal(there, np.flatnonzero(segment.by_slice))
        _require(same, f"frames of {segment.key} are missing")


def _pixels(packed: npt.NDArray[np.uint8], run: Run, shape: tuple[int, int]) -> BoolArray:
    """Unpack frames: bool [frame, row, column]; a bit a pixel, without gaps (PS3.5 8.1.1, A.4)."""
    first, end = (frame * shape[0] * shape[1] for frame in (run.first, run.end))
    octets = packed[first // 8 : -(-end // 8)]
    bits = np.unpackbits(octets, bitorder="little")[first % 8 :][: end - first]
    _require(bits.size == end - first, "its pixel data end before its frames do")
    return bits.view(np.bool_).reshape(len(run.slices), *shape)


def _floats(values: Sequence[float]) -> npt.NDArray[np.float64]:
    return np.array([float(value) for value in values], dtype=np.float64)


def _require(holds: bool, fault: str) -> None:
    if not holds:
        raise ResultError(f"segmentation: {fault}")
