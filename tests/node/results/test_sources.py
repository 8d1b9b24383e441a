from __future__ import annotations

import warnings
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset

from tests.node.results.awkward import AWKWARD, JAPANESE, TYPE_2, awkward_series
from tests.node.results.building import Headers, analysis, context, refusal, save_all


def text_report_of(headers: Headers, folder: Path) -> Dataset:
    return pydicom.dcmread(save_all(context(headers, refusal()), folder)["text_report"])


@pytest.mark.parametrize("name", AWKWARD)
def test_awkward_headers_give_every_object_and_pass_its_own_check(
    name: str, tmp_path: Path
) -> None:
    """OBJ-03: whatever hospitals send."""
    headers = awkward_series(tmp_path / "source", name)
    assert set(save_all(context(headers, analysis(headers)), tmp_path / "out")) == {
        "segmentation",
        "measurement_report",
        "box_report",
        "text_report",
    }
    assert set(save_all(context(headers, refusal()), tmp_path / "refused")) == {"text_report"}


def test_patient_and_study_are_copied_as_they_came(tmp_path: Path) -> None:
    """OBJ-01."""
    headers = awkward_series(tmp_path / "source", "private and nested")
    report = text_report_of(headers, tmp_path)
    for keyword in (*TYPE_2, "StudyInstanceUID", "StudyDescription", "IssuerOfPatientID"):
        assert report[keyword].value == headers[0][keyword].value
    (other,) = report.OtherPatientIDsSequence
    assert other.PatientID == "OTHER-1"
    assert not [element for element in report.iterall() if element.tag.is_private]


def test_what_the_source_has_wrong_is_left_out_and_costs_no_result(tmp_path: Path) -> None:
    headers = awkward_series(tmp_path / "source", "empty where not allowed")
    report = text_report_of(headers, tmp_path)
    for keyword in (
        "DeidentificationMethod",
        "ClinicalTrialSponsorName",
        "ClinicalTrialSubjectID",
        "ProcedureCodeSequence",
    ):
        assert keyword not in report


def test_a_clinical_trial_is_copied_with_what_it_has_to_name(tmp_path: Path) -> None:
    report = text_report_of(awkward_series(tmp_path / "source", "clinical trial"), tmp_path)
    assert (report.ClinicalTrialSponsorName, report.ClinicalTrialSubjectID) == ("Sponsor", "1")
    assert report.ClinicalTrialSiteName == ""


def test_absent_attributes_stay_unknown(tmp_path: Path) -> None:
    """OBJ-01, OBJ-03: nothing is invented."""
    report = text_report_of(awkward_series(tmp_path / "source", "no Type 2 attributes"), tmp_path)
    for keyword in TYPE_2:
        assert report[keyword].is_empty


def test_a_japanese_name_arrives_in_all_three_writings(tmp_path: Path) -> None:
    """OBJ-03, OBJ-04."""
    report = text_report_of(awkward_series(tmp_path / "source", "ISO 2022 IR 87"), tmp_path)
    assert report.SpecificCharacterSet == "ISO_IR 192"
    assert str(report.PatientName) == JAPANESE
    assert report.StudyDescription == "胸部CT"


def test_sex_that_is_none_of_the_enumerated_values_becomes_empty(tmp_path: Path) -> None:
    """OBJ-03."""
    report = text_report_of(awkward_series(tmp_path / "source", "Patient's Sex U"), tmp_path)
    assert report.PatientSex == ""


def test_control_characters_do_not_reach_a_result(tmp_path: Path) -> None:
    headers = awkward_series(tmp_path / "source", "hostile text")
    report = text_report_of(headers, tmp_path)
    assert report.PatientID == "A[31mB"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the study description is too long in the source, too
        texts = [str(element.value) for element in report.iterall() if element.VR in ("LO", "UT")]
    assert not [text for text in texts if not text.isprintable()]
    assert any("Lung VERIFIED BY A PHYSICIAN" in text for text in texts)


def test_dates_that_are_none_are_left_out(tmp_path: Path) -> None:
    report = text_report_of(awkward_series(tmp_path / "source", "bad values"), tmp_path)
    assert report.PatientBirthDate == ""
    assert report.StudyTime == ""
    assert report.TimezoneOffsetFromUTC == "+0000"


def test_times_are_told_in_the_offset_of_the_source(tmp_path: Path) -> None:
    """OBJ-08."""
    report = text_report_of(awkward_series(tmp_path / "source", "private and nested"), tmp_path)
    assert report.TimezoneOffsetFromUTC == "-0500"
    assert (report.ContentDate, report.ContentTime) == ("20260101", "220405.000000")
