"""Segments as a DICOM Segmentation object (PS3.3 A.51): BINARY, one instance for all segments."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Final

from pydicom.dataset import Dataset

from engines.findings import Analysis, Outcome
from node.interfaces import ResultContext, ResultWriter
from node.results import _encoding as encoding
from node.results._frame_bits import packed_bits
from node.results._segmentation_check import compare_with_outcome
from node.results._segmentation_frames import frames_of
from node.results._segmentation_object import analysis_of, object_with_frames, place_on_grid
from node.results._segments import drawn_segments, overlap

SERIES_NUMBER: Final = 9001


class SegmentationWriter(ResultWriter):
    """Writes every segment that can be drawn, on the source grid (SEG-01 to SEG-08, SEG-12)."""

    name: ClassVar[str] = "segmentation"
    sop_class_uids: ClassVar[tuple[str, ...]] = ("1.2.840.10008.5.1.4.1.1.66.4",)

    def handles(self, outcome: Outcome) -> bool:
        """Take an analysis with at least one segment that can be drawn (SEG-04)."""
        return isinstance(outcome, Analysis) and bool(drawn_segments(outcome))

    def write(self, context: ResultContext) -> tuple[Dataset, ...]:
        """Make one object, Explicit VR Little Endian, without the frames that are empty."""
        with encoding.translated(self.name):
            place = place_on_grid(context, self.name, SERIES_NUMBER, "segmentation")
            segments = drawn_segments(analysis_of(context))
            dataset, ordered = object_with_frames(context, place, frames_of(segments))
            dataset.SegmentsOverlap = "YES" if overlap(segments) else "NO"
            places = [(frame.segment, frame.slice) for frame in ordered]
            dataset.add_new("PixelData", "OB", packed_bits(segments, places))
        return (dataset,)

    def check(self, path: Path, context: ResultContext) -> None:
        """Compare frames with masks voxel for voxel, each at its place in the patient (R41)."""
        with encoding.translated(self.name):
            compare_with_outcome(path, context, analysis_of(context))
