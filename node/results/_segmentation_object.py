"""What Segmentation objects have in common, whichever way they hold their voxels (PS3.3 A.51)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

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

from engines.findings import Analysis, Segment
from engines.images import Grid
from node.interfaces import ResultContext, ResultError
from node.results import _encoding as encoding
from node.results import _explicit as explicit
from node.results import _identity as identity
from node.results._encoded_items import REFERENCED_INSTANCES, SERIES_INSTANCE_UID
from node.results._segmentation_frames import Frame, complete_frames
from node.results._segments import drawn_segments, slice_depth
from node.results._sources import (
    Headers,
    blank_carrier,
    cleaned,
    header_text,
    headers_by_uid,
    source_of,
)
from node.results._text import clean, decimals

Pixels: TypeAlias = npt.NDArray[np.uint8]
_LOSSY: Final = (
    "LossyImageCompression",
    "LossyImageCompressionRatio",
    "LossyImageCompressionMethod",
)


def analysis_of(context: ResultContext) -> Analysis:
    if not isinstance(context.outcome, Analysis):
        raise ResultError("segmentation: a refusal has no segments")
    analysis = context.outcome
    if len({source.series_instance_uid for source in analysis.sources}) != 1:
        raise ResultError("segmentation: the grid is not of one source series (SEG-13)")
    if len(analysis.sources) != analysis.grid.shape[0]:
        raise ResultError("segmentation: the grid needs one source frame for each slice")
    return analysis


def make_object(
    context: ResultContext,
    analysis: Analysis,
    place: encoding.Place,
    planes: Mapping[int, Pixels],
    *,
    kind: SegmentationTypeValues = SegmentationTypeValues.BINARY,
    transfer_syntax_uid: str = ExplicitVRLittleEndian,
) -> Dataset:
    """Let the library make the object, with the frames of some slices.

    `planes` are uint8 [row, column] of segment numbers, or [row, column, segment] of 0 and 1, by
    the index of their slice. `object_with_frames` puts in what the library cannot know.
    """
    device, headers = context.device, headers_by_uid(context)
    made = Segmentation(
        source_images=[_stand_in(context, headers, analysis, index) for index in planes],
        pixel_array=np.stack(list(planes.values())),
        segmentation_type=kind,
        segment_descriptions=[
            _description(context, analysis, number, segment)
            for number, segment in enumerate(drawn_segments(analysis), 1)
        ],
        manufacturer_model_name=clean(device.model),
        software_versions=device.software_version,
        device_serial_number=clean(device.serial_number),
        omit_empty_frames=True,
        transfer_syntax_uid=transfer_syntax_uid,
        content_label="AI_SEGMENTATION",
        content_description=encoding.described(context, "segments"),
        **encoding.common_arguments(context, place),
    )
    dataset = Dataset()
    dataset.update(made)
    dataset.file_meta = made.file_meta
    return dataset


def _a_pixel_each(grid: Grid, slices: Sequence[int]) -> dict[int, Pixels]:
    """Return planes with one pixel of the first segment: the lowest of some slices, the highest."""
    plane = np.zeros(grid.shape[1:], dtype=np.uint8)
    plane[0, 0] = 1
    return dict.fromkeys(sorted({slices[0], slices[-1]}), plane)


def _stand_in(context: ResultContext, headers: Headers, analysis: Analysis, index: int) -> Dataset:
    """Make the header of a single-frame image where one slice of the grid is.

    The library takes geometry and references from its sources, and takes only some kinds of
    source. It is given the grid itself; `_refer_to_sources` and `complete_frames` put the true
    references in, whatever kind of instance, or frame of one, a slice came from.
    """
    grid = analysis.grid
    true_source = source_of(headers, analysis.sources[index])
    stand_in = blank_carrier(context, CTImageStorage, _stand_in_uid(index))
    stand_in.Rows, stand_in.Columns = grid.shape[1:]
    stand_in.FrameOfReferenceUID = grid.frame_of_reference_uid
    stand_in.PositionReferenceIndicator = header_text(true_source, "PositionReferenceIndicator")
    stand_in.ImageOrientationPatient = decimals(grid.row_direction + grid.column_direction)
    stand_in.ImagePositionPatient = decimals(grid.positions[index])
    stand_in.PixelSpacing = decimals((grid.spacing[1], grid.spacing[2]))
    stand_in.SliceThickness = "0"
    return stand_in


def _stand_in_uid(index: int) -> str:
    return identity.derived_uid("stand-in", index)


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


def object_with_frames(
    context: ResultContext,
    place: encoding.Place,
    frames: Sequence[Frame],
    *,
    kind: SegmentationTypeValues = SegmentationTypeValues.BINARY,
    transfer_syntax_uid: str = ExplicitVRLittleEndian,
) -> tuple[Dataset, list[Frame]]:
    """Make a complete object but for its pixels, and say in which order its frames have them.

    Raises:
        ResultError: the header of a source that a frame lies on is missing (OBJ-10).
    """
    analysis, headers = analysis_of(context), headers_by_uid(context)
    slices = sorted({frame.slice for frame in frames})
    sources = {index: analysis.sources[index] for index in slices}
    for source in sources.values():
        source_of(headers, source)
    dataset = make_object(
        context,
        analysis,
        place,
        _a_pixel_each(analysis.grid, slices),
        kind=kind,
        transfer_syntax_uid=transfer_syntax_uid,
    )
    _settle_pixel_measures(dataset, analysis.grid)
    _tell_of_compression(dataset, context)
    dataset.ContentCreatorName = ""  # Type 2; nobody drew it (PS3.3 Table 10-12)
    encoding.complete(dataset, context, place)
    ordered = complete_frames(dataset, frames, analysis.grid, sources)
    _refer_to_sources(dataset, context)
    return dataset, ordered


def place_on_grid(
    context: ResultContext, writer: str, series_number: int, what: str
) -> encoding.Place:
    """Say where an object on the source grid stands: its series is that of the grid's frame."""
    frame_of_reference = analysis_of(context).grid.frame_of_reference_uid
    return encoding.Place(
        writer=writer,
        series_instance_uid=identity.series_uid(context, writer, frame_of_reference),
        series_number=series_number,
        description=encoding.described(context, what),
    )


def _tell_of_compression(dataset: Dataset, context: ResultContext) -> None:
    """Say that the masks come from lossy images where any source is one (PS3.3 C.7.6.1.1.5)."""
    for source in context.sources:
        if header_text(source, "LossyImageCompression") == "01":
            for keyword in _LOSSY:
                element = cleaned(source, keyword)
                if element is not None:
                    dataset.add(element)
            return


def _refer_to_sources(dataset: Dataset, context: ResultContext) -> None:
    """Name every source instance (OBJ-10)."""
    named = explicit.references(context.sources)
    series = explicit.uid(SERIES_INSTANCE_UID, context.sources[0].SeriesInstanceUID)
    instances = explicit.sequence(REFERENCED_INSTANCES, named)
    explicit.put_items(dataset, "SourceImageSequence", named)
    explicit.put_items(dataset, "ReferencedSeriesSequence", explicit.item(instances + series))


def _settle_pixel_measures(dataset: Dataset, grid: Grid) -> None:
    """State how thick the masks are, and the distance of slices where they have one (SEG-08)."""
    measures = dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    if "SpacingBetweenSlices" in measures:
        del measures.SpacingBetweenSlices
    if grid.regular and grid.spacing[0] is not None:
        measures.SpacingBetweenSlices = format_number_as_ds(grid.spacing[0])
    measures.SliceThickness = format_number_as_ds(slice_depth(grid) or 0.0)
