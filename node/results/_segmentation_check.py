"""Reads a segmentation back and compares it with the outcome, in the patient's coordinates."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from highdicom.seg import Segmentation, segread
from pydicom.dataset import Dataset

from engines.findings import Analysis, Segment
from engines.images import Grid, SourceFrame
from node.interfaces import ResultContext, ResultError
from node.results import _identity as identity
from node.results._iod import require_attributes
from node.results._segments import drawn_segments
from node.results._sources import Headers, headers_by_uid, source_of

POSITION_TOLERANCE_MM: Final = 1e-3
DIRECTION_TOLERANCE: Final = 1e-4
SPACING_TOLERANCE_MM: Final = 1e-4
CONDITIONAL_MODULES: Final = ("frame-of-reference", "common-instance-reference")


def compare_with_outcome(path: Path, context: ResultContext, analysis: Analysis) -> None:
    """Compare a saved segmentation with the masks, wherever its frames say they lie.

    Raises:
        ResultError: naming the first difference.
    """
    written = segread(path)
    require_attributes(written, also=CONDITIONAL_MODULES)
    _compare_identity(written, context)
    segments = drawn_segments(analysis)
    _compare_descriptions(written, context, analysis)
    _compare_plane(written, analysis.grid)
    headers = headers_by_uid(context)
    slices = [
        _slice_of_frame(groups, headers, analysis)
        for groups in written.PerFrameFunctionalGroupsSequence
    ]
    _compare_voxels(written, segments, slices)


def _compare_identity(written: Segmentation, context: ResultContext) -> None:
    study = context.sources[0].StudyInstanceUID
    _require(written.StudyInstanceUID == study, "it is in another study than its source")
    listed = {
        str(item.ReferencedSOPInstanceUID)
        for series in written.ReferencedSeriesSequence
        for item in series.ReferencedInstanceSequence
    }
    wanted = {str(source.SOPInstanceUID) for source in context.sources}
    _require(listed == wanted, "its references are not the source instances (OBJ-10)")


def _compare_descriptions(
    written: Segmentation, context: ResultContext, analysis: Analysis
) -> None:
    segments = drawn_segments(analysis)
    described = [str(item.TrackingUID) for item in written.SegmentSequence]
    wanted = [identity.tracking_uid(context, analysis, segment.key) for segment in segments]
    _require(described == wanted, "its segments are not the findings, in their order")


def _compare_plane(written: Segmentation, grid: Grid) -> None:
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


def _slice_of_frame(groups: Dataset, headers: Headers, analysis: Analysis) -> int:
    """Find the slice where a frame lies, by its position; its reference must say the same."""
    position = _floats(groups.PlanePositionSequence[0].ImagePositionPatient)
    distances = np.linalg.norm(np.array(analysis.grid.positions) - position, axis=1)
    index = int(np.argmin(distances))
    _require(distances[index] < POSITION_TOLERANCE_MM, "a frame lies on no slice of the grid")
    source = analysis.sources[index]
    reference = groups.DerivationImageSequence[0].SourceImageSequence[0]
    _require(
        reference.ReferencedSOPInstanceUID == source.sop_instance_uid
        and reference.get("ReferencedFrameNumber") == source.frame,
        "a frame names another source than the one it lies on",
    )
    anchor = _position_in_header(source_of(headers, source), source)
    if np.linalg.norm(anchor - position) >= POSITION_TOLERANCE_MM:
        raise ResultError("segmentation: a frame does not lie where its source image lies")
    return index


def _position_in_header(header: Dataset, source: SourceFrame) -> npt.NDArray[np.float64]:
    """Return Image Position (Patient) as the source itself states it (LPS, mm)."""
    if source.frame is None:
        return _floats(header.ImagePositionPatient)
    groups = header.PerFrameFunctionalGroupsSequence[source.frame - 1]
    if "PlanePositionSequence" not in groups:
        groups = header.SharedFunctionalGroupsSequence[0]
    return _floats(groups.PlanePositionSequence[0].ImagePositionPatient)


def _compare_voxels(
    written: Segmentation, segments: Sequence[Segment], slices: Sequence[int]
) -> None:
    seen = {segment.key: np.zeros(segment.mask.shape[0], dtype=np.bool_) for segment in segments}
    for frame, index in enumerate(slices):
        segment = segments[_segment_number(written, frame) - 1]
        pixels = written.get_stored_frame(frame + 1) != 0
        same = not seen[segment.key][index] and np.array_equal(pixels, segment.mask[index])
        _require(same, f"segment {segment.key} differs on slice {index}")
        seen[segment.key][index] = True
    for segment in segments:
        filled = segment.mask.any(axis=(1, 2))
        _require(np.array_equal(filled, seen[segment.key]), f"frames of {segment.key} are missing")


def _segment_number(written: Segmentation, frame: int) -> int:
    groups = written.PerFrameFunctionalGroupsSequence[frame]
    if "SegmentIdentificationSequence" not in groups:
        groups = written.SharedFunctionalGroupsSequence[0]
    return int(groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber)


def _floats(values: Sequence[float]) -> npt.NDArray[np.float64]:
    return np.array([float(value) for value in values], dtype=np.float64)


def _require(holds: bool, fault: str) -> None:
    if not holds:
        raise ResultError(f"segmentation: {fault}")
