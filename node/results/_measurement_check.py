"""Reads a measurement report back and compares it with the outcome."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import Comprehensive3DSRStorage

from engines.findings import Analysis, Code, Measurement, Segment
from node.interfaces import ResultContext, ResultError
from node.results import _documents as documents
from node.results import _identity as identity
from node.results._content import (
    NOTHING,
    Key,
    children,
    code_in,
    name_of,
    number_in,
    only_child,
    unit_of,
)
from node.results._segments import drawn_segments

TEMPLATE: Final = "1500"
IMAGING_MEASUREMENTS: Final = ("126010", "DCM")
MEASUREMENT_GROUP: Final = ("125007", "DCM")
TRACKING_UID: Final = ("112040", "DCM")
REFERENCED_SEGMENT: Final = ("121191", "DCM")
DERIVATION: Final = ("121401", "DCM")


def compare_with_outcome(path: Path, context: ResultContext, analysis: Analysis) -> None:
    """Compare a saved report with findings and written segmentation.

    Raises:
        ResultError: naming the first difference.
    """
    written = dcmread(path)
    _require(written.SOPClassUID == Comprehensive3DSRStorage, "it is no Comprehensive 3D SR")
    template = written.get("ContentTemplateSequence")
    _require(
        bool(template) and template[0].TemplateIdentifier == TEMPLATE,
        "its content is no TID 1500 report",
    )
    documents.check_document(written, context, context.written.get("segmentation", ()))
    container = only_child(written, IMAGING_MEASUREMENTS, "CONTAINER")
    groups = [] if container is None else list(children(container, MEASUREMENT_GROUP, "CONTAINER"))
    segments = drawn_segments(analysis)
    if segments:
        _compare_segments(groups, context, analysis, segments)
    else:
        _compare_absent(groups, analysis)


def says(item: Dataset, wanted: Measurement) -> bool:
    """Say whether a NUM has the name, unit, derivation and value of a measurement."""
    derivation = only_child(item, DERIVATION, "CODE")
    value = number_in(item)
    return (
        name_of(item) == _key(wanted.name)
        and unit_of(item) == _key(wanted.unit)
        and (NOTHING if derivation is None else code_in(derivation, "ConceptCodeSequence"))
        == (NOTHING if wanted.derivation is None else _key(wanted.derivation))
        and value is not None
        and math.isclose(value, wanted.value, rel_tol=1e-9, abs_tol=1e-12)
    )


def _compare_segments(
    groups: Sequence[Dataset],
    context: ResultContext,
    analysis: Analysis,
    segments: Sequence[Segment],
) -> None:
    _require(len(groups) == len(segments), "the groups are not the segments")
    segmentation = context.written["segmentation"][0].SOPInstanceUID
    for number, (group, segment) in enumerate(zip(groups, segments, strict=True), 1):
        tracking = only_child(group, TRACKING_UID, "UIDREF")
        same = (
            tracking is not None
            and identity.tracking_uid(context, analysis, segment.key) == tracking.UID
        )
        _require(same, f"the tracking UID of {segment.key} differs")
        _compare_reference(group, str(segmentation), number)
        _compare_measurements(group, segment)


def _compare_reference(group: Dataset, segmentation: str, number: int) -> None:
    image = only_child(group, REFERENCED_SEGMENT, "IMAGE")
    reference = None if image is None else image.ReferencedSOPSequence[0]
    same = (
        reference is not None
        and reference.ReferencedSOPInstanceUID == segmentation
        and reference.get("ReferencedSegmentNumber") == number
    )
    _require(same, f"group {number} refers to another segment")


def _compare_measurements(group: Dataset, segment: Segment) -> None:
    found = [item for item in group.ContentSequence if item.ValueType == "NUM"]
    _require(len(found) == len(segment.measurements), f"measurements of {segment.key} are missing")
    for item, wanted in zip(found, segment.measurements, strict=True):
        _require(says(item, wanted), f"{wanted.name.meaning} of {segment.key} differs")


def _compare_absent(groups: Sequence[Dataset], analysis: Analysis) -> None:
    _require(len(groups) == len(analysis.sought), "what is absent is not what was sought")
    absent = (documents.ABSENT.value, documents.ABSENT.scheme_designator)
    for group, concept in zip(groups, analysis.sought, strict=True):
        evaluation = only_child(group, _key(concept), "CODE")
        same = evaluation is not None and code_in(evaluation, "ConceptCodeSequence") == absent
        _require(same, f"{concept.meaning} is not said to be absent")


def _key(code: Code) -> Key:
    return code.value, code.scheme


def _require(holds: bool, fault: str) -> None:
    if not holds:
        raise ResultError(f"measurement_report: {fault}")
