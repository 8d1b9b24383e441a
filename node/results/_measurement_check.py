"""Reads a measurement report back and compares it with the outcome."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from highdicom.sr import (
    CodedConcept,
    Comprehensive3DSR,
    MeasurementReport,
    VolumetricROIMeasurementsAndQualitativeEvaluations,
    srread,
)
from highdicom.sr import Measurement as SrMeasurement

from engines.findings import Analysis, Code, Segment
from node.interfaces import ResultContext, ResultError
from node.results import _documents as documents
from node.results import _encoding as encoding
from node.results import _identity as identity
from node.results._documents import ABSENT
from node.results._segments import drawn_segments


def compare_with_outcome(path: Path, context: ResultContext, analysis: Analysis) -> None:
    """Compare a saved report with findings and written segmentation.

    Raises:
        ResultError: naming the first difference.
    """
    written = srread(path)
    if not isinstance(written, Comprehensive3DSR):
        raise ResultError("measurement_report: it is no Comprehensive 3D SR")
    report = written.content
    if not isinstance(report, MeasurementReport):
        raise ResultError("measurement_report: its content is no TID 1500 report")
    documents.check_document(written, context, context.written.get("segmentation", ()))
    segments = drawn_segments(analysis)
    if segments:
        _compare_segments(report, context, analysis, segments)
    else:
        _compare_absent(report, analysis)


def _compare_segments(
    report: MeasurementReport,
    context: ResultContext,
    analysis: Analysis,
    segments: Sequence[Segment],
) -> None:
    groups = report.get_volumetric_roi_measurement_groups()
    _require(len(groups) == len(segments), "the groups are not the segments")
    segmentation = context.written["segmentation"][0].SOPInstanceUID
    for number, (group, segment) in enumerate(zip(groups, segments, strict=True), 1):
        uid = identity.tracking_uid(context, analysis, segment.key)
        _require(group.tracking_uid == uid, f"the tracking UID of {segment.key} differs")
        _compare_reference(group, str(segmentation), number)
        _compare_measurements(group.get_measurements(), segment)


def _compare_reference(
    group: VolumetricROIMeasurementsAndQualitativeEvaluations, segmentation: str, number: int
) -> None:
    segment = group.referenced_segment
    same = (
        segment is not None
        and segment.referenced_sop_instance_uid == segmentation
        and segment.referenced_segment_numbers == [number]
    )
    _require(same, f"group {number} refers to another segment")


def _compare_measurements(found: Sequence[SrMeasurement], segment: Segment) -> None:
    _require(len(found) == len(segment.measurements), f"measurements of {segment.key} are missing")
    for item, wanted in zip(found, segment.measurements, strict=True):
        same = (
            _same_code(item.name, wanted.name)
            and _same_code(item.unit, wanted.unit)
            and _same_optional(item.derivation, wanted.derivation)
            and item.value is not None
            and math.isclose(item.value, wanted.value, rel_tol=1e-9, abs_tol=1e-12)
        )
        _require(same, f"{wanted.name.meaning} of {segment.key} differs")


def _compare_absent(report: MeasurementReport, analysis: Analysis) -> None:
    groups = report.get_image_measurement_groups()
    _require(len(groups) == len(analysis.sought), "what is absent is not what was sought")
    for group, concept in zip(groups, analysis.sought, strict=True):
        found = group.get_qualitative_evaluations(name=encoding.coded(concept))
        same = [item.value for item in found] == [ABSENT]
        _require(same, f"{concept.meaning} is not said to be absent")


def _same_code(found: CodedConcept, wanted: Code) -> bool:
    return (found.value, found.scheme_designator) == (wanted.value, wanted.scheme)


def _same_optional(found: CodedConcept | None, wanted: Code | None) -> bool:
    if found is None or wanted is None:
        return found is None and wanted is None
    return _same_code(found, wanted)


def _require(holds: bool, fault: str) -> None:
    if not holds:
        raise ResultError(f"measurement_report: {fault}")
