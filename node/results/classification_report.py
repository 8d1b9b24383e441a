"""What was found in images, and what was not, as a TID 1500 report with TID 1501 groups.

A group for each finding in each image: Present, with the certainty in percent (SR-07); and for each
concept that was sought in an image and not found there: Absent (SR-08).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Final

from highdicom.sr import (
    CodedConcept,
    Comprehensive3DSR,
    FindingSite,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    QualitativeEvaluation,
    srread,
)
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code as SrCode

from engines.findings import Classification, Code, ImageAnalysis, Outcome
from node.interfaces import ResultContext, ResultError, ResultWriter
from node.results import _documents as documents
from node.results import _encoding as encoding
from node.results import _identity as identity
from node.results._image_library import add_image_library

SERIES_NUMBER: Final = 9004


class ClassificationReportWriter(ResultWriter):
    """Writes a Comprehensive 3D SR on images as such (SR-01, SR-07, SR-08)."""

    name: ClassVar[str] = "classification_report"
    sop_class_uids: ClassVar[tuple[str, ...]] = ("1.2.840.10008.5.1.4.1.1.88.34",)

    def handles(self, outcome: Outcome) -> bool:
        """Take an analysis of images that found something, or says what it sought."""
        return isinstance(outcome, ImageAnalysis) and bool(outcome.findings or outcome.sought)

    def write(self, context: ResultContext) -> tuple[Dataset, ...]:
        """Make one document."""
        analysis = _analysis(context)
        with encoding.translated(self.name):
            place = encoding.Place(
                writer=self.name,
                series_instance_uid=identity.series_uid(context, self.name),
                series_number=SERIES_NUMBER,
                description=encoding.described(context, "findings"),
            )
            dataset = _encode(context, analysis, place)
        return (dataset,)

    def check(self, path: Path, context: ResultContext) -> None:
        """Compare every group with the outcome: concept, value, numbers, image, tracking UID."""
        with encoding.translated(self.name):
            _compare(path, context, _analysis(context))


def _analysis(context: ResultContext) -> ImageAnalysis:
    analysis = context.outcome
    if not isinstance(analysis, ImageAnalysis):
        raise ResultError("classification_report: the outcome is not of images")
    keys = [(finding.key, finding.image) for finding in analysis.findings]
    if len(set(keys)) != len(keys):
        raise ResultError("two findings of an image share a key: they could not be told apart")
    return analysis


def _encode(context: ResultContext, analysis: ImageAnalysis, place: encoding.Place) -> Dataset:
    report = MeasurementReport(
        observation_context=ObservationContext(
            observer_device_context=documents.observer(context.device)
        ),
        procedure_reported=documents.procedure_reported(context),
        imaging_measurements=list(_groups(context, analysis)),
        title=codes.DCM.ImagingMeasurementReport,
    )
    add_image_library(report[0], context, analysis, range(len(analysis.sources)))
    previous = [item for item in context.superseded if item.writer == place.writer]
    return documents.make_document(Comprehensive3DSR, report[0], context, place, previous=previous)


def _groups(
    context: ResultContext, analysis: ImageAnalysis
) -> Iterator[MeasurementsAndQualitativeEvaluations]:
    for index, image in enumerate(analysis.sources):
        for concept, value, finding in _said_of(analysis, index):
            yield MeasurementsAndQualitativeEvaluations(
                tracking_identifier=documents.tracking(
                    context, analysis, _key(analysis, concept, finding, index)
                ),
                finding_type=encoding.coded(concept),
                finding_sites=_sites(finding),
                algorithm_id=documents.algorithm(context),
                source_images=[documents.source_image(image)],
                measurements=_numbers(finding),
                qualitative_evaluations=[QualitativeEvaluation(encoding.coded(concept), value)],
            )


def _said_of(
    analysis: ImageAnalysis, index: int
) -> Iterator[tuple[Code, SrCode, Classification | None]]:
    """Yield what is said of one image: concept, Present or Absent, the finding if it is one."""
    found = [finding for finding in analysis.findings if finding.image == index]
    for finding in found:
        yield finding.type, documents.PRESENT, finding
    for concept in analysis.sought:
        if concept not in {finding.type for finding in found}:
            yield concept, documents.ABSENT, None


def _key(analysis: ImageAnalysis, concept: Code, finding: Classification | None, index: int) -> str:
    """Name what is said; by the image too, where there are several."""
    key = finding.key if finding else documents.absent_key(concept)
    return key if len(analysis.sources) == 1 else f"{key} {index + 1}"


def _numbers(finding: Classification | None) -> list[Measurement] | None:
    if finding is None:
        return None
    return [documents.measured(item, None) for item in finding.measurements] or None


def _sites(finding: Classification | None) -> list[FindingSite] | None:
    if finding is None or finding.region is None:
        return None
    return [FindingSite(encoding.coded(finding.region))]


def _compare(path: Path, context: ResultContext, analysis: ImageAnalysis) -> None:
    written = srread(path)
    if not isinstance(written, Comprehensive3DSR):
        raise ResultError("classification_report: it is no Comprehensive 3D SR")
    report = written.content
    if not isinstance(report, MeasurementReport):
        raise ResultError("classification_report: its content is no TID 1500 report")
    documents.check_document(written, context, ())
    wanted = [
        (
            concept.value,
            str(value.value),
            image.sop_instance_uid,
            tuple(item.value for item in finding.measurements) if finding else (),
            identity.tracking_uid(context, analysis, _key(analysis, concept, finding, index)),
        )
        for index, image in enumerate(analysis.sources)
        for concept, value, finding in _said_of(analysis, index)
    ]
    found = [_said_in(group) for group in report.get_image_measurement_groups()]
    if found != wanted:
        raise ResultError("classification_report: its groups are not those of the outcome")


def _said_in(
    group: MeasurementsAndQualitativeEvaluations,
) -> tuple[str, str, str, tuple[float | None, ...], str]:
    (evaluation,) = group.get_qualitative_evaluations(name=group.finding_type)
    (image,) = group.source_images
    return (
        str(evaluation.name.value),
        str(evaluation.value.value) if isinstance(evaluation.value, CodedConcept) else "",
        str(image.referenced_sop_instance_uid),
        tuple(item.value for item in group.get_measurements()),
        str(group.tracking_uid),
    )
