"""Segments as a DICOM Segmentation object (PS3.3 A.51): BINARY, one instance for all segments."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Final

import numpy as np
import numpy.typing as npt
from highdicom import AlgorithmIdentificationSequence
from highdicom.color import CIELabColor
from highdicom.seg import (
    SegmentAlgorithmTypeValues,
    Segmentation,
    SegmentationTypeValues,
    SegmentDescription,
)
from highdicom.sr import CodedConcept
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pydicom.valuerep import format_number_as_ds

from engines.findings import Analysis, Outcome, Segment
from engines.images import Grid, SourceFrame
from node.interfaces import ResultContext, ResultError, ResultWriter
from node.results import _encoding as encoding
from node.results import _identity as identity
from node.results._segmentation_check import compare_with_outcome
from node.results._segments import drawn_segments, slice_depth
from node.results._sources import (
    Headers,
    blank_carrier,
    cleaned,
    header_text,
    headers_by_uid,
    source_of,
)
from node.results._text import clean

SERIES_NUMBER: Final = 9001
_LOSSY: Final = (
    "LossyImageCompression",
    "LossyImageCompressionRatio",
    "LossyImageCompressionMethod",
)


class SegmentationWriter(ResultWriter):
    """Writes every segment that can be drawn, on the source grid (SEG-01 to SEG-08, SEG-12)."""

    name: ClassVar[str] = "segmentation"

    def handles(self, outcome: Outcome) -> bool:
        """Take an analysis with at least one segment that can be drawn (SEG-04)."""
        return isinstance(outcome, Analysis) and bool(drawn_segments(outcome))

    def write(self, context: ResultContext) -> tuple[Dataset, ...]:
        """Make one object, Explicit VR Little Endian, without the frames that are empty."""
        analysis = _analysis(context)
        with encoding.translated(self.name):
            place = encoding.Place(
                writer=self.name,
                series_instance_uid=identity.series_uid(
                    context, self.name, analysis.grid.frame_of_reference_uid
                ),
                series_number=SERIES_NUMBER,
                description=encoding.described(context, "segmentation"),
            )
            dataset = _encode(context, analysis, place)
            _refer_to_sources(dataset, context, analysis.sources)
            _settle_pixel_measures(dataset, analysis.grid)
            _tell_of_compression(dataset, context)
            dataset.ContentCreatorName = ""  # Type 2; nobody drew it (PS3.3 Table 10-12)
            encoding.complete(dataset, context, place)
        return (dataset,)

    def check(self, path: Path, context: ResultContext) -> None:
        """Compare frames with masks voxel for voxel, each at its place in the patient (R41)."""
        with encoding.translated(self.name):
            compare_with_outcome(path, context, _analysis(context))


def _analysis(context: ResultContext) -> Analysis:
    if not isinstance(context.outcome, Analysis):
        raise ResultError("segmentation: a refusal has no segments")
    analysis = context.outcome
    if len({source.series_instance_uid for source in analysis.sources}) != 1:
        raise ResultError("segmentation: the grid is not of one source series (SEG-13)")
    if len(analysis.sources) != analysis.grid.shape[0]:
        raise ResultError("segmentation: the grid needs one source frame for each slice")
    return analysis


def _encode(context: ResultContext, analysis: Analysis, place: encoding.Place) -> Segmentation:
    segments = drawn_segments(analysis)
    slices = _slices_with_voxels(segments)
    device, headers = context.device, headers_by_uid(context)
    return Segmentation(
        source_images=[_stand_in(context, headers, analysis, index) for index in slices],
        pixel_array=_pixels(segments, slices),
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=[
            _description(context, analysis, number, segment)
            for number, segment in enumerate(segments, 1)
        ],
        manufacturer_model_name=clean(device.model),
        software_versions=device.software_version,
        device_serial_number=clean(device.serial_number),
        omit_empty_frames=True,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        content_label="AI_SEGMENTATION",
        content_description=encoding.described(context, "segments"),
        **encoding.common_arguments(context, place),
    )


def _slices_with_voxels(segments: Sequence[Segment]) -> list[int]:
    filled = np.zeros(segments[0].mask.shape[0], dtype=np.bool_)
    for segment in segments:
        filled |= segment.mask.any(axis=(1, 2))
    return [int(index) for index in np.flatnonzero(filled)]


def _pixels(segments: Sequence[Segment], slices: Sequence[int]) -> npt.NDArray[np.uint8]:
    """Stack the masks of the slices: uint8 [slice, row, column], the segment's number or 0.

    Where segments overlap, uint8 [slice, row, column, segment] of 0 and 1.
    """
    numbers = np.zeros((len(slices), *segments[0].mask.shape[1:]), dtype=np.uint8)
    for number, segment in enumerate(segments, 1):
        mask = segment.mask[slices]
        if number > np.iinfo(np.uint8).max or numbers[mask].any():
            return np.stack([s.mask[slices].view(np.uint8) for s in segments], axis=-1)
        numbers[mask] = number
    return numbers


def _stand_in(context: ResultContext, headers: Headers, analysis: Analysis, index: int) -> Dataset:
    """Make the header of a single-frame image where one slice of the grid is.

    The library takes geometry and references from its sources, and takes only some kinds of
    source. It is given the grid itself, slice by slice; `_refer_to_sources` puts the true
    references in, whatever kind of instance, or frame of one, a slice came from.
    """
    grid = analysis.grid
    true_source = source_of(headers, analysis.sources[index])
    stand_in = blank_carrier(context, CTImageStorage, _stand_in_uid(index))
    stand_in.Rows, stand_in.Columns = grid.shape[1:]
    stand_in.FrameOfReferenceUID = grid.frame_of_reference_uid
    stand_in.PositionReferenceIndicator = header_text(true_source, "PositionReferenceIndicator")
    stand_in.ImageOrientationPatient = _decimals(grid.row_direction + grid.column_direction)
    stand_in.ImagePositionPatient = _decimals(grid.positions[index])
    stand_in.PixelSpacing = _decimals((grid.spacing[1], grid.spacing[2]))
    stand_in.SliceThickness = "0"
    return stand_in


def _stand_in_uid(index: int) -> str:
    return identity.derived_uid("stand-in", index)


def _decimals(values: Sequence[float]) -> list[str]:
    return [format_number_as_ds(float(value)) for value in values]


def _description(
    context: ResultContext, analysis: Analysis, number: int, segment: Segment
) -> SegmentDescription:
    description = SegmentDescription(
        segment_number=number,
        segment_label=clean(segment.label),
        segmented_property_category=encoding.coded(segment.category),
        segmented_property_type=encoding.coded(segment.type),
        algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=AlgorithmIdentificationSequence(
            name=clean(context.engine.name),
            version=clean(context.engine.version),
            family=codes.DCM.ArtificialIntelligence,
            parameters=encoding.parameters(context),
        ),
        tracking_id=clean(f"{context.engine.name} {segment.key}"),
        tracking_uid=identity.tracking_uid(context, analysis, segment.key),
        anatomic_regions=[encoding.coded(segment.region)] if segment.region else None,
        display_color=CIELabColor.from_rgb(*segment.colour),
    )
    if segment.laterality:
        _add_laterality(description, segment, encoding.coded(segment.laterality))
    return description


def _add_laterality(description: Dataset, segment: Segment, side: CodedConcept) -> None:
    """Put the side where its structure is named (PS3.3 Table 10-8, Table C.8.20-4)."""
    if segment.region:
        description.AnatomicRegionSequence[0].AnatomicRegionModifierSequence = [side]
    else:
        kind = description.SegmentedPropertyTypeCodeSequence[0]
        kind.SegmentedPropertyTypeModifierCodeSequence = [side]


def _tell_of_compression(dataset: Dataset, context: ResultContext) -> None:
    """Say that the masks come from lossy images where any source is one (PS3.3 C.7.6.1.1.5)."""
    for source in context.sources:
        if header_text(source, "LossyImageCompression") == "01":
            for keyword in _LOSSY:
                element = cleaned(source, keyword)
                if element is not None:
                    dataset.add(element)
            return


def _refer_to_sources(
    dataset: Dataset, context: ResultContext, frames: Sequence[SourceFrame]
) -> None:
    """Name every source instance, and for each frame the one that it lies on (OBJ-10)."""
    references = [_reference(s.SOPClassUID, s.SOPInstanceUID) for s in context.sources]
    dataset.SourceImageSequence = references
    series = Dataset()
    series.SeriesInstanceUID = context.sources[0].SeriesInstanceUID
    series.ReferencedInstanceSequence = [
        _reference(s.SOPClassUID, s.SOPInstanceUID) for s in context.sources
    ]
    dataset.ReferencedSeriesSequence = [series]
    true_frames = {_stand_in_uid(index): frame for index, frame in enumerate(frames)}
    for item in _derivation_items(dataset):
        frame = true_frames.get(item.ReferencedSOPInstanceUID)
        if frame is None:
            continue  # segments on one slice share the item
        item.ReferencedSOPClassUID = frame.sop_class_uid
        item.ReferencedSOPInstanceUID = frame.sop_instance_uid
        if frame.frame is not None:
            item.ReferencedFrameNumber = frame.frame


def _reference(sop_class_uid: str, sop_instance_uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = sop_class_uid
    item.ReferencedSOPInstanceUID = sop_instance_uid
    return item


def _derivation_items(dataset: Dataset) -> Iterator[Dataset]:
    for groups in dataset.PerFrameFunctionalGroupsSequence:
        for derivation in groups.DerivationImageSequence:
            yield from derivation.SourceImageSequence


def _settle_pixel_measures(dataset: Dataset, grid: Grid) -> None:
    """State how thick the masks are, and the distance of slices where they have one (SEG-08)."""
    measures = dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    if "SpacingBetweenSlices" in measures:
        del measures.SpacingBetweenSlices
    if grid.regular and grid.spacing[0] is not None:
        measures.SpacingBetweenSlices = format_number_as_ds(grid.spacing[0])
    measures.SliceThickness = format_number_as_ds(slice_depth(grid) or 0.0)
