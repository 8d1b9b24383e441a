from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple, replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from highdicom.sr import MeasurementReport, srread
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code as SrCode

from engines.findings import Analysis, Code, Measurement
from node.interfaces import ResultContext, ResultError
from node.results._documents import ABSENT
from node.results.measurement_report import MeasurementReportWriter
from node.results.segmentation import SegmentationWriter
from tests.node.results.building import (
    LUNG,
    ML,
    Headers,
    analysis,
    context,
    grid_of,
    multi_frame,
    nothing_found,
    refusal,
    save_all,
    segment,
    series,
    superseded_by,
    write_all,
)


@pytest.fixture
def headers(tmp_path: Path) -> Headers:
    return series(tmp_path / "source")


def read(path: Path) -> MeasurementReport:
    content = srread(path).content
    assert isinstance(content, MeasurementReport)
    return content


def with_segmentation(made: ResultContext) -> ResultContext:
    return replace(made, written={"segmentation": SegmentationWriter().write(made)})


def test_each_segment_has_a_group_with_its_numbers_and_the_same_tracking_as_the_seg(
    headers: Headers, tmp_path: Path
) -> None:
    """OBJ-16, OBJ-17, AIR-05."""
    outcome = analysis(headers)
    paths = save_all(context(headers, outcome), tmp_path)
    segmentation = pydicom.dcmread(paths["segmentation"])
    groups = read(paths["measurement_report"]).get_volumetric_roi_measurement_groups()
    assert len(groups) == 2
    for group, described in zip(groups, segmentation.SegmentSequence, strict=True):
        assert group.tracking_uid == described.TrackingUID
        assert group.tracking_identifier == described.TrackingID
        reference = group.referenced_segment
        assert reference is not None
        assert reference.referenced_sop_instance_uid == segmentation.SOPInstanceUID
        assert reference.referenced_segment_numbers == [described.SegmentNumber]
        volume, mean, area = group.get_measurements()
        assert (volume.value, volume.unit.value) == (1234.5678, "ml")
        assert mean.derivation is not None
        assert (mean.value, mean.derivation.meaning) == (-850.25, "Mean")
        assert area.value == 3600.123456789


def test_a_number_is_written_short_with_its_exact_value_beside_it(
    headers: Headers, tmp_path: Path
) -> None:
    paths = save_all(context(headers, analysis(headers)), tmp_path)
    items = walk(pydicom.dcmread(paths["measurement_report"]))
    area = next(item for item in items if item.ValueType == "NUM" and named(item, "42798000"))
    (value,) = area.MeasuredValueSequence
    assert (str(value.NumericValue), value.FloatingPointValue) == ("3600.12", 3600.123456789)


def test_a_number_on_one_slice_names_the_image_it_is_on(headers: Headers, tmp_path: Path) -> None:
    outcome = analysis(headers)
    paths = save_all(context(headers, outcome), tmp_path)
    group = read(paths["measurement_report"]).get_volumetric_roi_measurement_groups()[0]
    (image,) = group.get_measurements()[2].referenced_images
    index = outcome.findings[0].measurements[2].slice_index
    assert index is not None
    assert image.referenced_sop_instance_uid == headers[index].SOPInstanceUID


def test_numbers_and_library_name_the_frame_of_an_enhanced_instance(
    headers: Headers, tmp_path: Path
) -> None:
    sources, frames = multi_frame(headers)
    outcome = replace(analysis(headers), sources=frames)
    paths = save_all(context(sources, outcome), tmp_path)
    root = pydicom.dcmread(paths["measurement_report"])
    named = {
        item.ReferencedSOPSequence[0].get("ReferencedFrameNumber")
        for item in walk(root)
        if item.ValueType == "IMAGE" and item.ConceptNameCodeSequence[0].CodeValue != "121191"
    }
    assert named
    assert named <= {frame.frame for frame in frames}


def test_evidence_holds_every_source_and_the_segmentation(headers: Headers, tmp_path: Path) -> None:
    """OBJ-11, AIR-06."""
    paths = save_all(context(headers, analysis(headers)), tmp_path)
    listed = {uid for _, _, uid, _ in srread(paths["measurement_report"]).get_evidence(True)}
    segmentation = pydicom.dcmread(paths["segmentation"], stop_before_pixels=True)
    assert listed == {*(h.SOPInstanceUID for h in headers), segmentation.SOPInstanceUID}


def test_the_report_is_preliminary_unverified_and_by_a_device(
    headers: Headers, tmp_path: Path
) -> None:
    """OBJ-13, OBJ-14."""
    report = pydicom.dcmread(
        save_all(context(headers, analysis(headers)), tmp_path)["measurement_report"]
    )
    flags = (report.CompletionFlag, report.VerificationFlag, report.PreliminaryFlag)
    assert flags == ("COMPLETE", "UNVERIFIED", "PRELIMINARY")
    assert "VerifyingObserverSequence" not in report
    assert observed(report, "121005") == ["Device"]
    assert observed(report, "121016") == ["WR-0001"]


def test_nothing_found_says_absent_for_each_concept_that_was_sought(
    headers: Headers, tmp_path: Path
) -> None:
    """SEG-04, SR-08: and there is no empty segmentation."""
    paths = save_all(context(headers, nothing_found(headers)), tmp_path)
    assert set(paths) == {"measurement_report", "text_report"}
    groups = read(paths["measurement_report"]).get_image_measurement_groups()
    said = [
        item.value
        for group, sought in zip(groups, nothing_found(headers).sought, strict=True)
        for item in group.get_qualitative_evaluations(name=SrCode(*astuple(sought)))
    ]
    assert said == [ABSENT, ABSENT]


def test_a_segment_without_voxels_makes_the_report_partial(
    headers: Headers, tmp_path: Path
) -> None:
    """OBJ-13."""
    outcome = analysis(headers)
    empty = segment("empty", np.zeros(grid_of(headers).shape, dtype=np.bool_), measurements=())
    outcome = replace(outcome, findings=(*outcome.findings, empty))
    paths = save_all(context(headers, outcome), tmp_path)
    report = pydicom.dcmread(paths["measurement_report"])
    assert report.CompletionFlag == "PARTIAL"
    assert "Left lung empty" in report.CompletionFlagDescription


def test_a_report_on_a_later_revision_names_the_one_it_replaces(
    headers: Headers, tmp_path: Path
) -> None:
    outcome = analysis(headers)
    first = write_all(context(headers, outcome))["measurement_report"][0]
    again = replace(
        context(headers, outcome, generation=2),
        superseded=(
            superseded_by(first, "measurement_report"),
            superseded_by(first, "segmentation"),
        ),
    )
    second = pydicom.dcmread(save_all(again, tmp_path)["measurement_report"])
    named = second.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0]
    (reference,) = named.ReferencedSOPSequence
    assert reference.ReferencedSOPInstanceUID == first.SOPInstanceUID
    assert second.SeriesInstanceUID == first.SeriesInstanceUID
    assert second.SOPInstanceUID != first.SOPInstanceUID
    assert (first.InstanceNumber, second.InstanceNumber) == (1, 2)
    assert (first.SeriesDate, first.SeriesTime) == (second.SeriesDate, second.SeriesTime)


def test_the_writer_takes_analyses_that_have_something_to_say(headers: Headers) -> None:
    writer = MeasurementReportWriter()
    assert writer.handles(analysis(headers))
    assert writer.handles(nothing_found(headers))
    assert not writer.handles(replace(nothing_found(headers), sought=()))
    assert not writer.handles(refusal())


def test_measurements_without_the_segmentation_are_refused(headers: Headers) -> None:
    with pytest.raises(ResultError, match="not written before"):
        MeasurementReportWriter().write(context(headers, analysis(headers)))


def test_a_value_that_is_no_number_is_refused(headers: Headers) -> None:
    outcome = analysis(headers)
    broken = Measurement(name=Code("118565006", "SCT", "Volume"), value=float("nan"), unit=ML)
    findings = (replace(outcome.findings[0], measurements=(broken,)),)
    made = with_segmentation(context(headers, replace(outcome, findings=findings)))
    with pytest.raises(ResultError, match="Volume is not a number"):
        MeasurementReportWriter().write(made)


def test_a_report_that_points_at_something_that_is_no_evidence_is_refused(headers: Headers) -> None:
    """OBJ-11."""
    outcome = analysis(headers)
    made = with_segmentation(context(headers, outcome))
    with pytest.raises(ResultError, match="OBJ-1"):
        MeasurementReportWriter().write(replace(made, sources=made.sources[:1]))


def test_a_report_of_other_absences_is_caught(headers: Headers, tmp_path: Path) -> None:
    outcome: Analysis = nothing_found(headers)
    writer = MeasurementReportWriter()
    (dataset,) = writer.write(context(headers, outcome))
    dataset.save_as(tmp_path / "sr.dcm", enforce_file_format=True)
    other = context(headers, replace(outcome, sought=(LUNG, LUNG)))
    with pytest.raises(ResultError, match="not said to be absent"):
        writer.check(tmp_path / "sr.dcm", other)


def item_named(dataset: Dataset, code: str) -> Dataset:
    return next(item for item in walk(dataset) if named(item, code))


def change_a_value(dataset: Dataset) -> None:
    item_named(dataset, "118565006").MeasuredValueSequence[0].FloatingPointValue = 1.0


def change_a_unit(dataset: Dataset) -> None:
    value = item_named(dataset, "118565006").MeasuredValueSequence[0]
    value.MeasurementUnitsCodeSequence[0].CodeValue = "l"


def change_a_derivation(dataset: Dataset) -> None:
    item_named(dataset, "121401").ConceptCodeSequence[0].CodeValue = "1"


def lose_a_group(dataset: Dataset) -> None:
    item_named(dataset, "126010").ContentSequence.pop()


def lose_the_numbers(dataset: Dataset) -> None:
    group = item_named(dataset, "125007")
    group.ContentSequence = [item for item in group.ContentSequence if item.ValueType != "NUM"]


def name_another_template(dataset: Dataset) -> None:
    dataset.ContentTemplateSequence[0].TemplateIdentifier = "2000"


def change_a_tracking_uid(dataset: Dataset) -> None:
    item_named(dataset, "112040").UID = "1.2.3"


def refer_to_another_segment(dataset: Dataset) -> None:
    image = item_named(dataset, "121191")
    image.ReferencedSOPSequence[0].ReferencedSegmentNumber = 2


def lose_evidence(dataset: Dataset) -> None:
    study = dataset.CurrentRequestedProcedureEvidenceSequence[0]
    study.ReferencedSeriesSequence[0].ReferencedSOPSequence.pop()


def claim_verification(dataset: Dataset) -> None:
    dataset.VerificationFlag = "VERIFIED"


def lose_an_attribute(dataset: Dataset) -> None:
    del dataset.PatientID


def walk(item: Dataset) -> list[Dataset]:
    children = [below for child in item.get("ContentSequence", ()) for below in walk(child)]
    return [item, *children]


def named(item: Dataset, code: str) -> bool:
    names = item.get("ConceptNameCodeSequence", ())
    return any(name.CodeValue == code for name in names)


def observed(report: Dataset, code: str) -> list[str]:
    return [
        str(item.TextValue)
        if item.ValueType == "TEXT"
        else str(item.ConceptCodeSequence[0].CodeMeaning)
        for item in report.ContentSequence
        if named(item, code)
    ]


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (change_a_value, "Volume of one differs"),
        (change_a_unit, "Volume of one differs"),
        (change_a_derivation, "Attenuation Coefficient of one differs"),
        (lose_a_group, "the groups are not the segments"),
        (lose_the_numbers, "measurements of one are missing"),
        (name_another_template, "no TID 1500 report"),
        (change_a_tracking_uid, "tracking UID of one differs"),
        (refer_to_another_segment, "another segment"),
        (lose_evidence, "OBJ-11"),
        (claim_verification, "OBJ-13"),
        (lose_an_attribute, "PreliminaryFlag|PatientID"),
    ],
)
def test_the_check_before_sending_catches(
    damage: Callable[[Dataset], None], fault: str, headers: Headers, tmp_path: Path
) -> None:
    """OBJ-11, OBJ-13, OBJ-22."""
    made = with_segmentation(context(headers, analysis(headers)))
    (dataset,) = MeasurementReportWriter().write(made)
    dataset.save_as(tmp_path / "sr.dcm", enforce_file_format=True)
    written = pydicom.dcmread(tmp_path / "sr.dcm")
    damage(written)
    written.save_as(tmp_path / "sr.dcm")
    with pytest.raises(ResultError, match=fault):
        MeasurementReportWriter().check(tmp_path / "sr.dcm", made)
