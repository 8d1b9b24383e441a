"""Segments as a DICOM Segmentation object (PS3.3 A.51): BINARY, one instance for all segments."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Final

from pydicom.dataset import Dataset

from engines.findings import Analysis, Outcome
from node.interfaces import ResultContext, ResultWriter
from node.results import _encoding as encoding
from node.results import _identity as identity
from node.results._frame_bits import packed_bits
from node.results._segmentation_check import compare_with_outcome
from node.results._segmentation_frames import complete_frames, frames_of
from node.results._segmentation_object import (
    a_pixel_each,
    analysis_of,
    complete_object,
    make_object,
    refer_to_sources,
)
from node.results._segments import drawn_segments
from node.results._sources import headers_by_uid, source_of

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
        analysis = analysis_of(context)
        with encoding.translated(self.name):
            place = encoding.Place(
                writer=self.name,
                series_instance_uid=identity.series_uid(
                    context, self.name, analysis.grid.frame_of_reference_uid
                ),
                series_number=SERIES_NUMBER,
                description=encoding.described(context, "segmentation"),
            )
            segments = drawn_segments(analysis)
            frames = frames_of(segments)
            slices = sorted({frame.slice for frame in frames})
            headers = headers_by_uid(context)
            for index in slices:
                source_of(headers, analysis.sources[index])
            planes = a_pixel_each(analysis.grid, slices)
            dataset = make_object(context, analysis, place, planes)
            complete_object(dataset, context, place, analysis.grid)
            sources = {index: analysis.sources[index] for index in slices}
            ordered = complete_frames(dataset, frames, analysis.grid, sources)
            places = [(frame.segment, frame.slice) for frame in ordered]
            dataset.add_new("PixelData", "OB", packed_bits(segments, places))
            refer_to_sources(dataset, context)
        return (dataset,)

    def check(self, path: Path, context: ResultContext) -> None:
        """Compare frames with masks voxel for voxel, each at its place in the patient (R41)."""
        with encoding.translated(self.name):
            compare_with_outcome(path, context, analysis_of(context))
