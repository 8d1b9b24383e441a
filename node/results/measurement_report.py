"""Measurements of segments as a TID 1500 report; "absent" where nothing was found (SR-08).

One document holds one kind of group (SR-06): a TID 1411 group for each segment that is drawn in
the Segmentation object, or, for an analysis that found nothing, a TID 1501 group for each concept
that was sought, with the value Absent.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Final

from highdicom.sr import (
    Comprehensive3DSR,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    QualitativeEvaluation,
    ReferencedSegment,
    SourceSeriesForSegmentation,
    VolumetricROIMeasurementsAndQualitativeEvaluations,
)
from highdicom.sr import Measurement as SrMeasurement
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from engines.findings import Analysis, Measurement, Outcome, Segment
from node.interfaces import ResultContext, ResultError, ResultWriter
from node.results import _documents as documents
from node.results import _encoding as encoding
from node.results import _identity as identity
from node.results._image_library import add_image_library
from node.results._measurement_check import compare_with_outcome
from node.results._segments import drawn_segments, largest_slice

SERIES_NUMBER: Final = 9002
SEGMENTATION: Final = "segmentation"


class MeasurementReportWriter(ResultWriter):
    """Writes a Comprehensive 3D SR (SR-01), tied to the segments by tracking UID (OBJ-16)."""

    name: ClassVar[str] = "measurement_report"
    follows: ClassVar[tuple[str, ...]] = (SEGMENTATION,)
    needs: ClassVar[tuple[str, ...]] = (SEGMENTATION,)
    sop_class_uids: ClassVar[tuple[str, ...]] = ("1.2.840.10008.5.1.4.1.1.88.34",)

    def handles(self, outcome: Outcome) -> bool:
        """Take an analysis with segments that are drawn, or one that says what it sought."""
        if not isinstance(outcome, Analysis):
            return False
        return bool(drawn_segments(outcome)) or bool(outcome.sought and not outcome.findings)

    def write(self, context: ResultContext) -> tuple[Dataset, ...]:
        """Make one document; measurements refer to the Segmentation object written before."""
        analysis = _analysis(context)
        with encoding.translated(self.name):
            place = encoding.Place(
                writer=self.name,
                series_instance_uid=identity.series_uid(context, self.name),
                series_number=SERIES_NUMBER,
                description=encoding.described(context, "measurements"),
            )
            dataset = _encode(context, analysis, place)
        return (dataset,)

    def check(self, path: Path, context: ResultContext) -> None:
        """Compare numbers, units, references and tracking UIDs with the outcome (OBJ-22)."""
        with encoding.translated(self.name):
            compare_with_outcome(path, context, _analysis(context))


def _analysis(context: ResultContext) -> Analysis:
    if not isinstance(context.outcome, Analysis):
        raise ResultError("measurement_report: a refusal has no measurements")
    return context.outcome


def _encode(context: ResultContext, analysis: Analysis, place: encoding.Place) -> Dataset:
    segments = drawn_segments(analysis)
    groups = _segment_groups(context, analysis, segments) or _absent_groups(context, analysis)
    report = MeasurementReport(
        observation_context=ObservationContext(
            observer_device_context=documents.observer(context.device)
        ),
        procedure_reported=documents.procedure_reported(context),
        imaging_measurements=groups,
        title=codes.DCM.ImagingMeasurementReport,
    )
    add_image_library(report[0], context, analysis, _slices_pointed_at(analysis, segments))
    previous = [item for item in context.superseded if item.writer == place.writer]
    return documents.make_document(
        Comprehensive3DSR,
        report[0],
        context,
        place,
        others=context.written.get(SEGMENTATION, ()),
        previous=previous,
    )


def _slices_pointed_at(analysis: Analysis, segments: Sequence[Segment]) -> list[int]:
    """Return the slices that a finding or a number is on; the middle one where there is none."""
    slices = {largest_slice(segment) for segment in segments}
    for segment in segments:
        slices |= {m.slice_index for m in segment.measurements if m.slice_index is not None}
    return sorted(slices) or [analysis.grid.shape[0] // 2]


def _segment_groups(
    context: ResultContext, analysis: Analysis, segments: Sequence[Segment]
) -> list[VolumetricROIMeasurementsAndQualitativeEvaluations]:
    """Make a TID 1411 group for each segment."""
    if not segments:
        return []
    written = context.written.get(SEGMENTATION)
    if not written:
        raise ResultError("measurement_report: the Segmentation object was not written before")
    return [
        VolumetricROIMeasurementsAndQualitativeEvaluations(
            tracking_identifier=documents.tracking(context, analysis, segment.key),
            referenced_segment=_referenced_segment(written[0], analysis, number),
            finding_type=encoding.coded(segment.type),
            finding_sites=documents.finding_sites(segment),
            algorithm_id=documents.algorithm(context),
            measurements=[_measured(item, analysis) for item in segment.measurements] or None,
        )
        for number, segment in enumerate(segments, 1)
    ]


def _referenced_segment(written: Dataset, analysis: Analysis, number: int) -> ReferencedSegment:
    reference = ReferencedSegment(
        sop_class_uid=written.SOPClassUID,
        sop_instance_uid=written.SOPInstanceUID,
        segment_number=number,
        source_series=SourceSeriesForSegmentation(analysis.sources[0].series_instance_uid),
    )
    series = reference[-1]  # the library writes capitals that are not in PS3.16 (OBJ-19)
    series.ConceptNameCodeSequence[0].CodeMeaning = "Source series for segmentation"
    return reference


def _absent_groups(
    context: ResultContext, analysis: Analysis
) -> list[MeasurementsAndQualitativeEvaluations]:
    """Make a TID 1501 group for each concept that was sought and not found."""
    image = analysis.sources[analysis.grid.shape[0] // 2]
    return [
        MeasurementsAndQualitativeEvaluations(
            tracking_identifier=documents.tracking(
                context, analysis, documents.absent_key(concept)
            ),
            finding_type=encoding.coded(concept),
            algorithm_id=documents.algorithm(context),
            source_images=[documents.source_image(image)],
            qualitative_evaluations=[
                QualitativeEvaluation(encoding.coded(concept), documents.ABSENT)
            ],
        )
        for concept in analysis.sought
    ]


def _measured(measurement: Measurement, analysis: Analysis) -> SrMeasurement:
    index = measurement.slice_index
    return documents.measured(measurement, None if index is None else analysis.sources[index])
