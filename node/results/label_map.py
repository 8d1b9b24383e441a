"""Segments as a Label Map Segmentation (PS3.3 A.51, LABELMAP): one number a voxel, compressed.

For destinations that are known to read it (SEG-10): it is a hundredth of the size of a BINARY
object with as many segments. Segments that overlap cannot be in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Final

import numpy as np
from highdicom.seg import SegmentationTypeValues
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import RLELossless

from engines.findings import Analysis, Outcome, Segment
from node.interfaces import ResultContext, ResultError, ResultWriter
from node.results import _encoding as encoding
from node.results._frame_groups import LABEL_MAP
from node.results._run_lengths import run_lengths
from node.results._segmentation_check import compare_label_map
from node.results._segmentation_frames import Frame
from node.results._segmentation_object import analysis_of, object_with_frames, place_on_grid
from node.results._segments import drawn_segments

SERIES_NUMBER: Final = 9011
BACKGROUND: Final = 0


class LabelMapWriter(ResultWriter):
    """Writes every segment that can be drawn into one label map, on the source grid."""

    name: ClassVar[str] = "label_map"
    by_default: ClassVar[bool] = False

    def handles(self, outcome: Outcome) -> bool:
        """Take an analysis whose drawn segments lie in one array of labels."""
        if not isinstance(outcome, Analysis) or not drawn_segments(outcome):
            return False
        apart = len(set(outcome.grid.positions)) == len(outcome.grid.positions)
        return apart and _share_labels(drawn_segments(outcome))

    def write(self, context: ResultContext) -> tuple[Dataset, ...]:
        """Make one object, RLE Lossless, without the frames that are empty."""
        with encoding.translated(self.name):
            place = place_on_grid(context, self.name, SERIES_NUMBER, "label map")
            segments = drawn_segments(analysis_of(context))
            dataset, ordered = object_with_frames(
                context,
                place,
                [Frame(LABEL_MAP, index) for index in _slices(segments)],
                kind=SegmentationTypeValues.LABELMAP,
                transfer_syntax_uid=RLELossless,
            )
            _leave_out_background(dataset)
            _put_pixels(dataset, segments, [frame.slice for frame in ordered])
        return (dataset,)

    def check(self, path: Path, context: ResultContext) -> None:
        """Compare voxel for voxel, each at its place in the patient (R41)."""
        with encoding.translated(self.name):
            compare_label_map(path, context, analysis_of(context))


def _share_labels(segments: Sequence[Segment]) -> bool:
    values = {segment.value for segment in segments}
    one = all(segment.labels is segments[0].labels for segment in segments)
    return one and len(values) == len(segments)


def _slices(segments: Sequence[Segment]) -> list[int]:
    """Return the indices of the slices that hold a voxel."""
    return [int(index) for index in np.flatnonzero(sum(item.by_slice for item in segments))]


def _put_pixels(dataset: Dataset, segments: Sequence[Segment], slices: Sequence[int]) -> None:
    """Put frames of segment numbers in, compressed.

    Raises:
        ResultError: the segments do not lie in one array of labels.
    """
    if not _share_labels(segments):
        raise ResultError("segments that may overlap cannot be in one label map")
    numbers = np.zeros(256, np.uint8)
    numbers[[segment.value for segment in segments]] = range(1, len(segments) + 1)
    labels = segments[0].labels
    frames = [run_lengths(numbers[labels[index]]) for index in slices]
    dataset.PixelData = encapsulate(frames)
    dataset["PixelData"].VR = "OB"  # PS3.5 A.4
    dataset["PixelData"].is_undefined_length = True
    dataset["PixelPaddingValue"].VR = "US"  # the library leaves it open


def _leave_out_background(dataset: Dataset) -> None:
    """Describe segments only: viewers take the first item to be segment 1 (SEG-10)."""
    dataset.SegmentSequence = [
        item for item in dataset.SegmentSequence if item.SegmentNumber != BACKGROUND
    ]
