from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pydicom
import pytest
from highdicom.sr import (
    CodedConcept,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    srread,
)

from node.interfaces import ResultError
from node.results.classification_report import ClassificationReportWriter
from node.results.measurement_report import MeasurementReportWriter
from node.results.segmentation import SegmentationWriter
from tests.node.results.building import (
    Headers,
    analysis,
    context,
    image_analysis,
    refusal,
    save_all,
    series,
    superseded_by,
    write_all,
)


@pytest.fixture
def headers(tmp_path: Path) -> Headers:
    return series(tmp_path / "source")


def test_each_image_has_a_group_for_all_that_was_sought(headers: Headers, tmp_path: Path) -> None:
    """SR-07, SR-08."""
    paths = save_all(context(headers, image_analysis(headers)), tmp_path)
    assert sorted(paths) == ["classification_report", "text_report"]
    report = srread(paths["classification_report"]).content
    assert isinstance(report, MeasurementReport)
    said = [
        (
            group.source_images[0].referenced_sop_instance_uid,
            *evaluated(group),
            [(item.name.meaning, item.value, item.unit.value) for item in group.get_measurements()],
            [site.value.meaning for site in group.finding_sites],
        )
        for group in report.get_image_measurement_groups()
    ]
    first, second = (header.SOPInstanceUID for header in headers[:2])
    assert said == [
        (first, "Nodule", "Present", [("Certainty of Finding", 91.512345, "%")], ["Lung"]),
        (first, "Pleural effusion", "Absent", [], []),
        (second, "Nodule", "Absent", [], []),
        (second, "Pleural effusion", "Absent", [], []),
    ]


def test_every_group_has_a_tracking_uid_of_its_own_which_a_re_run_keeps(headers: Headers) -> None:
    """OBJ-17."""

    def tracked(generation: int) -> list[str]:
        made = context(headers, image_analysis(headers), generation=generation)
        (dataset,) = ClassificationReportWriter().write(made)
        return [
            str(item.UID)
            for item in walk(dataset)
            if item.ValueType == "UIDREF" and item.ConceptNameCodeSequence[0].CodeValue == "112040"
        ]

    assert len(set(tracked(1))) == 4
    assert tracked(1) == tracked(2)


def evaluated(group: MeasurementsAndQualitativeEvaluations) -> tuple[str, str]:
    """Return the concept of a group and what is said of it."""
    (evaluation,) = group.get_qualitative_evaluations(name=group.finding_type)
    assert isinstance(evaluation.value, CodedConcept)
    return str(evaluation.name.meaning), str(evaluation.value.meaning)


def walk(item: pydicom.Dataset) -> list[pydicom.Dataset]:
    return [found for child in item.get("ContentSequence", ()) for found in (child, *walk(child))]


def test_it_is_preliminary_and_replaces_the_one_before(headers: Headers) -> None:
    first = context(headers, image_analysis(headers))
    earlier = tuple(superseded_by(item, name) for name, (item, _, _) in write_all(first).items())
    again = replace(context(headers, image_analysis(headers), generation=2), superseded=earlier)
    dataset = write_all(again)["classification_report"][0]
    assert (dataset.PreliminaryFlag, dataset.VerificationFlag) == ("PRELIMINARY", "UNVERIFIED")
    replaced = dataset.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0]
    assert (
        replaced.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        == write_all(first)["classification_report"][0].SOPInstanceUID
    )


def test_the_text_says_what_was_found_where(headers: Headers, tmp_path: Path) -> None:
    paths = save_all(context(headers, image_analysis(headers)), tmp_path)
    text = "\n".join(
        str(item.TextValue)
        for item in walk(pydicom.dcmread(paths["text_report"]))
        if "TextValue" in item
    )
    assert "Analysed, 1 finding: Nodule." in text
    assert f"Nodule on image {headers[0].InstanceNumber}: Certainty of Finding 91.51 %." in text
    assert "Looked for: Nodule, Pleural effusion." in text
    assert "Limit: The certainty was not calibrated." in text


def test_nothing_found_is_said_to_be_absent(headers: Headers, tmp_path: Path) -> None:
    """SR-08."""
    nothing = replace(image_analysis(headers), findings=())
    paths = save_all(context(headers, nothing), tmp_path)
    report = srread(paths["classification_report"]).content
    assert isinstance(report, MeasurementReport)
    groups = report.get_image_measurement_groups()
    assert [evaluated(group)[1] for group in groups] == ["Absent"] * 4


def test_each_outcome_has_its_own_writers(headers: Headers) -> None:
    images, volume = image_analysis(headers), analysis(headers)
    writer = ClassificationReportWriter()
    assert writer.handles(images)
    assert not writer.handles(volume)
    assert not writer.handles(refusal())
    assert not writer.handles(replace(images, findings=(), sought=()))
    assert not MeasurementReportWriter().handles(images)
    assert not SegmentationWriter().handles(images)


def test_two_findings_of_an_image_with_one_key_are_not_written(headers: Headers) -> None:
    outcome = image_analysis(headers)
    twice = replace(outcome, findings=outcome.findings * 2)
    with pytest.raises(ResultError, match="share a key"):
        ClassificationReportWriter().write(context(headers, twice))


@pytest.mark.parametrize("value", [91.0, float("nan")])
def test_another_value_is_found_by_the_check(
    value: float, headers: Headers, tmp_path: Path
) -> None:
    made = context(headers, image_analysis(headers))
    path = save_all(made, tmp_path)["classification_report"]
    finding = image_analysis(headers).findings[0]
    other = replace(finding, measurements=(replace(finding.measurements[0], value=value),))
    changed = replace(made, outcome=replace(image_analysis(headers), findings=(other,)))
    with pytest.raises(ResultError, match="not those of the outcome"):
        ClassificationReportWriter().check(path, changed)


def test_a_value_that_is_no_number_is_not_written(headers: Headers) -> None:
    finding = image_analysis(headers).findings[0]
    bad = replace(finding, measurements=(replace(finding.measurements[0], value=float("nan")),))
    outcome = replace(image_analysis(headers), findings=(bad,))
    with pytest.raises(ResultError, match="is not a number"):
        ClassificationReportWriter().write(context(headers, outcome))
