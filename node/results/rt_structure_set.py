"""Segments as contours in the patient: an RT Structure Set (PS3.3 A.19), unapproved.

For systems that read structures and no segmentations. Holes are part of the one contour around a
component, by keyholes; specks of a few pixels are left out. Only segments on a grid have a place
in the patient: classifications and slides are not handled.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Final

import numpy as np
from pydicom import dcmread
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian, RTStructureSetStorage

from engines.findings import Analysis, Outcome, Segment
from engines.images import FloatArray, Grid, SourceFrame
from node.interfaces import ResultContext, ResultError, ResultWriter
from node.results import _documents as documents
from node.results import _encoding as encoding
from node.results import _identity as identity
from node.results import _implicit as implicit
from node.results._contours import Points, filled_contours_of, mask_of, without_specks
from node.results._encoded_items import REFERENCED_SOP_CLASS_UID, REFERENCED_SOP_INSTANCE_UID
from node.results._iod import require_attributes
from node.results._marks import SMALL
from node.results._objects import complete_object, new_object, referenced
from node.results._segments import drawn_segments
from node.results._text import clean

NAME: Final = "rt_structure_set"
SERIES_NUMBER: Final = 9011
STUDY_CLASS: Final = "1.2.840.10008.3.1.2.3.1"
"""Detached Study Management: retired, and still how a study is named here (PS3.3 C.8.8.5)."""
CONTOUR_IMAGE: Final = 0x30060016
DISPLAY_COLOUR: Final = 0x3006002A
CONTOURS: Final = 0x30060040
GEOMETRIC_TYPE: Final = 0x30060042
NUMBER_OF_POINTS: Final = 0x30060046
CONTOUR_DATA: Final = 0x30060050
REGION_NUMBER: Final = 0x30060084
FRAME_NUMBER: Final = 0x00081160
NOT_OF_RT: Final = ("ContentDate", "ContentTime", "BodyPartExamined", "Laterality")
"""What other series and instances have: the RT Series module stands alone (PS3.3 C.8.8.1)."""
HALF_A_PIXEL: Final = 0.5
AXES: Final = 3


class RtStructureSetWriter(ResultWriter):
    """Writes a region of interest for each segment that has a place in the patient."""

    name: ClassVar[str] = NAME
    by_default: ClassVar[bool] = False

    def handles(self, outcome: Outcome) -> bool:
        """Take an analysis with at least one segment that can be drawn."""
        return isinstance(outcome, Analysis) and bool(drawn_segments(outcome))

    def write(self, context: ResultContext) -> tuple[Dataset, ...]:
        """Make one object, in Implicit VR: contours are longer than Explicit VR has room for."""
        with encoding.translated(NAME):
            return (_encode(context, _analysis(context)),)

    def check(self, path: Path, context: ResultContext) -> None:
        """Compare what contours enclose with the masks, from patient space back to pixels (R41)."""
        with encoding.translated(NAME):
            _compare(dcmread(path), context, _analysis(context))


def _analysis(context: ResultContext) -> Analysis:
    if not isinstance(context.outcome, Analysis):
        raise ResultError(f"{NAME}: the outcome has no segments")
    return context.outcome


def _encode(context: ResultContext, analysis: Analysis) -> Dataset:
    place = encoding.Place(
        writer=NAME,
        series_instance_uid=identity.series_uid(
            context, NAME, analysis.grid.frame_of_reference_uid
        ),
        series_number=SERIES_NUMBER,
        description=encoding.described(context, "structures"),
    )
    segments = drawn_segments(analysis)
    dataset = new_object(context, place, RTStructureSetStorage, "RTSTRUCT", ImplicitVRLittleEndian)
    dataset.OperatorsName = ""
    dataset.StructureSetLabel = "AI UNVERIFIED"
    dataset.StructureSetDescription = clean(documents.shortcoming(context) or place.description)
    dataset.ReferencedFrameOfReferenceSequence = [_frame_of_reference(context, analysis)]
    dataset.StructureSetROISequence = [
        _region(context, analysis, number, segment) for number, segment in enumerate(segments, 1)
    ]
    dataset.RTROIObservationsSequence = [
        _observation(number, segment) for number, segment in enumerate(segments, 1)
    ]
    dataset.ApprovalStatus = "UNAPPROVED"
    complete_object(dataset, context, place)
    dataset.StructureSetDate, dataset.StructureSetTime = dataset.ContentDate, dataset.ContentTime
    for keyword in NOT_OF_RT:
        dataset.pop(keyword, None)
    dataset.PositionReferenceIndicator = ""
    dataset.FrameOfReferenceUID = analysis.grid.frame_of_reference_uid
    regions = (
        _region_contours(analysis, number, segment) for number, segment in enumerate(segments, 1)
    )
    implicit.put_items(dataset, "ROIContourSequence", b"".join(regions))
    return dataset


def _frame_of_reference(context: ResultContext, analysis: Analysis) -> Dataset:
    """Name the images that contours lie on, by frame of reference, study and series."""
    frame, study, series = Dataset(), Dataset(), Dataset()
    series.SeriesInstanceUID = analysis.sources[0].series_instance_uid
    series.ContourImageSequence = [referenced(source) for source in analysis.sources]
    study.ReferencedSOPClassUID = STUDY_CLASS
    study.ReferencedSOPInstanceUID = context.sources[0].StudyInstanceUID
    study.RTReferencedSeriesSequence = [series]
    frame.FrameOfReferenceUID = analysis.grid.frame_of_reference_uid
    frame.RTReferencedStudySequence = [study]
    return frame


def _region(context: ResultContext, analysis: Analysis, number: int, segment: Segment) -> Dataset:
    item = Dataset()
    item.ROINumber = number
    item.ReferencedFrameOfReferenceUID = analysis.grid.frame_of_reference_uid
    item.ROIName = clean(segment.label)
    item.ROIDescription = clean(f"{context.engine.name} {segment.key}", 1024)
    item.ROIGenerationAlgorithm = "AUTOMATIC"
    item.ROIGenerationDescription = clean(f"{context.engine.name} {context.engine.version}")
    return item


def _region_contours(analysis: Analysis, number: int, segment: Segment) -> bytes:
    """Encode all contours of a region: they are many."""
    return implicit.item(
        implicit.text(DISPLAY_COLOUR, *segment.colour)
        + implicit.element(CONTOURS, b"".join(_contours(analysis, segment)))
        + implicit.text(REGION_NUMBER, number)
    )


def _contours(analysis: Analysis, segment: Segment) -> Iterator[bytes]:
    for index in np.flatnonzero(segment.by_slice).tolist():
        image = _image(analysis.sources[index])
        for contour in filled_contours_of(without_specks(segment.plane(index), SMALL)):
            yield _contour(_in_patient(contour, analysis.grid, index), image)


def _image(source: SourceFrame) -> bytes:
    """Encode which image a contour lies on."""
    named = implicit.uid(REFERENCED_SOP_CLASS_UID, source.sop_class_uid)
    named += implicit.uid(REFERENCED_SOP_INSTANCE_UID, source.sop_instance_uid)
    if source.frame is not None:
        named += implicit.text(FRAME_NUMBER, source.frame)
    return implicit.element(CONTOUR_IMAGE, implicit.item(named))


def _contour(points: FloatArray, image: bytes) -> bytes:
    values = [f"{value:.3f}" for value in points.ravel().tolist()]
    return implicit.item(
        image
        + implicit.text(GEOMETRIC_TYPE, "CLOSED_PLANAR")
        + implicit.text(NUMBER_OF_POINTS, len(points))
        + implicit.text(CONTOUR_DATA, *values)
    )


def _observation(number: int, segment: Segment) -> Dataset:
    item = Dataset()
    item.ObservationNumber = item.ReferencedROINumber = number
    item.RTROIIdentificationCodeSequence = [encoding.coded(segment.type)]
    item.RTROIInterpretedType = ""
    item.ROIInterpreter = ""
    return item


def _axes(grid: Grid) -> FloatArray:
    """Return the step from column to column and from row to row, mm: float64 [2, 3], LPS."""
    across = np.array(grid.row_direction) * grid.spacing[2]
    down = np.array(grid.column_direction) * grid.spacing[1]
    return np.stack([across, down])


def _in_patient(contour: Points, grid: Grid, index: int) -> FloatArray:
    """Return corners in the patient, float64 [corner, 3]: positions are of the middle of pixels."""
    found: FloatArray = np.array(grid.positions[index]) + (contour - HALF_A_PIXEL) @ _axes(grid)
    return found


def _in_pixels(points: FloatArray, grid: Grid, index: int) -> Points:
    """Return the corners of pixels that points in the patient are."""
    away = points - np.array(grid.positions[index])
    found: Points = away @ np.linalg.pinv(_axes(grid)) + HALF_A_PIXEL
    return found


def _compare(written: Dataset, context: ResultContext, analysis: Analysis) -> None:
    require_attributes(written, walked=("ROIContourSequence",))
    if written.ReferencedFrameOfReferenceSequence[0] != _frame_of_reference(context, analysis):
        raise ResultError(f"{NAME}: it refers to other images")
    segments = drawn_segments(analysis)
    regions = written.ROIContourSequence
    if [str(item.ROIName) for item in written.StructureSetROISequence] != [
        clean(segment.label) for segment in segments
    ] or len(regions) != len(segments):
        raise ResultError(f"{NAME}: its regions are not the segments")
    for region, segment in zip(regions, segments, strict=True):
        _compare_region(region, segment, analysis)


def _numbers(item: Dataset) -> FloatArray:
    """Read the coordinates of a contour as they lie in the file."""
    element = item.get_item(CONTOUR_DATA)
    if not isinstance(element, RawDataElement) or element.value is None:
        raise ResultError(f"{NAME}: a contour has no coordinates")
    return np.array(element.value.split(b"\\"), np.float64)


def _compare_region(region: Dataset, segment: Segment, analysis: Analysis) -> None:
    places = {
        (source.sop_instance_uid, source.frame): index
        for index, source in enumerate(analysis.sources)
    }
    drawn: dict[int, list[Points]] = {}
    for item in region.ContourSequence:
        (image,) = item.ContourImageSequence
        frame = image.get("ReferencedFrameNumber")
        index = places[image.ReferencedSOPInstanceUID, None if frame is None else int(frame)]
        points = _numbers(item).reshape(-1, AXES)
        corners = _in_pixels(points, analysis.grid, index)
        drawn.setdefault(index, []).append(np.concatenate([corners, corners[:1]]))
    shape = (analysis.grid.shape[1], analysis.grid.shape[2])
    for index in range(len(analysis.sources)):
        enclosed = mask_of(drawn.get(index, ()), shape)
        if not np.array_equal(enclosed, without_specks(segment.plane(index), SMALL)):
            raise ResultError(f"{NAME}: contours of {segment.key} are not those of its mask")
