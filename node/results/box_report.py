"""A box around each segment on the slice where it is largest, as a TID 1500 report (SR-04, R45).

For viewers that show no other coordinates of a report than those of a rectangle. A TID 1410 group
for each segment that can be drawn: the rectangle of pixels that bounds it on that slice, and what
is measured on that slice. The box is no measurement: it says where to look.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Final

import numpy as np
from highdicom.sr import (
    Comprehensive3DSR,
    ContentSequence,
    CoordinatesForMeasurement,
    GraphicTypeValues,
    ImageRegion,
    MeasurementReport,
    ObservationContext,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    SourceImageForRegion,
)
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code as SrCode

from engines.findings import Analysis, Measurement, Outcome, Segment
from engines.images import FloatArray, SourceFrame
from engines.measuring import AREA, SQUARE_CENTIMETRE
from node.interfaces import ResultContext, ResultError, ResultWriter
from node.results import _documents as documents
from node.results import _encoding as encoding
from node.results import _identity as identity
from node.results._content import children, only_child
from node.results._image_library import add_image_library
from node.results._measurement_check import (
    IMAGING_MEASUREMENTS,
    MEASUREMENT_GROUP,
    TRACKING_UID,
    says,
)
from node.results._segments import drawn_segments, largest_slice

NAME: Final = "box_report"
SERIES_NUMBER: Final = 9014
BOUNDED_BY: Final = SrCode("75958009", "SCT", "Bounded by")
IMAGE_REGION: Final = ("111030", "DCM")
SOURCE: Final = ("260753009", "SCT")
CORNERS: Final = 5
"""A rectangle that ends where it begins."""


class BoxReportWriter(ResultWriter):
    """Writes a Comprehensive 3D SR of planar regions (SR-01), tied to segments by tracking UID."""

    name: ClassVar[str] = NAME
    by_default: ClassVar[bool] = False
    sop_class_uids: ClassVar[tuple[str, ...]] = ("1.2.840.10008.5.1.4.1.1.88.34",)

    def handles(self, outcome: Outcome) -> bool:
        """Take an analysis with at least one segment that can be drawn."""
        return isinstance(outcome, Analysis) and bool(drawn_segments(outcome))

    def write(self, context: ResultContext) -> tuple[Dataset, ...]:
        """Make one document."""
        with encoding.translated(NAME):
            return (_encode(context, _analysis(context)),)

    def check(self, path: Path, context: ResultContext) -> None:
        """Compare boxes with the masks they bound, and numbers and tracking UIDs (OBJ-22)."""
        with encoding.translated(NAME):
            _compare(dcmread(path), context, _analysis(context))


def box_around(segment: Segment, index: int) -> FloatArray:
    """Return what bounds a segment on a slice: float64 [corner, (column, row)], closed.

    Place 0, 0 is the top left corner of the image, so that the box runs along the outer edges of
    the outermost pixels (PS3.3 C.18.6.1.1).
    """
    rows, columns = np.nonzero(segment.plane(index))
    left, right = columns.min(), columns.max() + 1
    top, bottom = rows.min(), rows.max() + 1
    corners = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
    return np.array(corners, np.float64)


def _analysis(context: ResultContext) -> Analysis:
    if not isinstance(context.outcome, Analysis):
        raise ResultError(f"{NAME}: the outcome has no segments")
    return context.outcome


def _encode(context: ResultContext, analysis: Analysis) -> Dataset:
    place = encoding.Place(
        writer=NAME,
        series_instance_uid=identity.series_uid(context, NAME),
        series_number=SERIES_NUMBER,
        description=encoding.described(context, "boxes"),
    )
    segments = drawn_segments(analysis)
    report = MeasurementReport(
        observation_context=ObservationContext(
            observer_device_context=documents.observer(context.device)
        ),
        procedure_reported=documents.procedure_reported(context),
        imaging_measurements=[_group(context, analysis, segment) for segment in segments],
        title=codes.DCM.ImagingMeasurementReport,
    )
    slices = sorted({largest_slice(segment) for segment in segments})
    add_image_library(report[0], context, analysis, slices)
    previous = [item for item in context.superseded if item.writer == NAME]
    return documents.make_document(Comprehensive3DSR, report[0], context, place, previous=previous)


def _group(
    context: ResultContext, analysis: Analysis, segment: Segment
) -> PlanarROIMeasurementsAndQualitativeEvaluations:
    """Make a TID 1410 group whose numbers are inferred from its region.

    The library refuses coordinates of a number in a group that has some of its own; OHIF takes no
    rectangle into its measurements where its numbers have none (SR-05).
    """
    index = largest_slice(segment)
    corners, image = box_around(segment, index), _image(analysis.sources[index])
    numbers = list(_numbers(analysis, segment, index))
    group = PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=documents.tracking(context, analysis, segment.key),
        referenced_region=ImageRegion(GraphicTypeValues.POLYLINE, corners, image),
        finding_type=encoding.coded(segment.type),
        finding_sites=documents.finding_sites(segment),
        algorithm_id=documents.algorithm(context),
        measurements=[documents.measured(number, None) for number in numbers],
        geometric_purpose=BOUNDED_BY,
    )
    for item in group[0].ContentSequence:
        if item.ValueType == "NUM":
            region = CoordinatesForMeasurement(GraphicTypeValues.POLYLINE, corners, image)
            item.ContentSequence = ContentSequence([*item.get("ContentSequence", ()), region])
    return group


def _image(frame: SourceFrame) -> SourceImageForRegion:
    return SourceImageForRegion(
        frame.sop_class_uid, frame.sop_instance_uid, documents.frame_numbers(frame)
    )


def _numbers(analysis: Analysis, segment: Segment, index: int) -> Iterator[Measurement]:
    """Yield the area of the segment on the slice, and what else its engine measured there.

    What was measured of the whole segment is no property of a region on one slice.
    """
    measured = [item for item in segment.measurements if item.slice_index == index]
    if AREA not in [item.name for item in measured]:
        _, rows, columns = analysis.grid.spacing
        yield Measurement(
            name=AREA,
            value=int(segment.by_slice[index]) * rows * columns / 100.0,
            unit=SQUARE_CENTIMETRE,
            slice_index=index,
        )
    yield from measured


def _compare(written: Dataset, context: ResultContext, analysis: Analysis) -> None:
    documents.check_document(written, context, ())
    container = only_child(written, IMAGING_MEASUREMENTS, "CONTAINER")
    groups = [] if container is None else list(children(container, MEASUREMENT_GROUP, "CONTAINER"))
    segments = drawn_segments(analysis)
    _require(len(groups) == len(segments), "the groups are not the segments")
    for group, segment in zip(groups, segments, strict=True):
        index = largest_slice(segment)
        tracking = only_child(group, TRACKING_UID, "UIDREF")
        wanted = identity.tracking_uid(context, analysis, segment.key)
        _require(
            tracking is not None and wanted == tracking.UID,
            f"the tracking UID of {segment.key} differs",
        )
        numbers = [item for item in group.ContentSequence if item.ValueType == "NUM"]
        measured = list(_numbers(analysis, segment, index))
        _require(
            len(numbers) == len(measured) and all(map(says, numbers, measured)),
            f"the numbers of {segment.key} differ",
        )
        regions = list(children(group, IMAGE_REGION, "SCOORD"))
        _require(len(regions) == 1, f"{segment.key} has not one region")
        for region in [*regions, *(_region_of(number) for number in numbers)]:
            _compare_region(region, segment, analysis.sources[index], index)


def _region_of(number: Dataset) -> Dataset:
    """Return the coordinates below a number."""
    region = only_child(number, SOURCE, "SCOORD")
    if region is None:
        raise ResultError(f"{NAME}: a number has no coordinates")
    return region


def _compare_region(region: Dataset, segment: Segment, frame: SourceFrame, index: int) -> None:
    """Hold a box against the mask: all of it is within, and touches each of its sides."""
    (image,) = (item.ReferencedSOPSequence[0] for item in region.ContentSequence)
    same = (
        image.ReferencedSOPInstanceUID == frame.sop_instance_uid
        and image.get("ReferencedFrameNumber") == frame.frame
    )
    _require(same, f"the box of {segment.key} lies on another image")
    corners = np.array(region.GraphicData, np.float64).reshape(-1, 2)
    _require(
        region.GraphicType == "POLYLINE"
        and len(corners) == CORNERS
        and bool((corners[0] == corners[-1]).all()),
        f"the box of {segment.key} is no rectangle",
    )
    (left, top), (right, bottom) = corners[0].astype(int), corners[2].astype(int)
    within = segment.plane(index)[top:bottom, left:right]
    sides = (within[:1], within[-1:], within[:, :1], within[:, -1:])
    _require(
        np.count_nonzero(within) == segment.by_slice[index] and all(side.any() for side in sides),
        f"the box of {segment.key} does not bound it",
    )


def _require(holds: bool, fault: str) -> None:
    if not holds:
        raise ResultError(f"{NAME}: {fault}")
