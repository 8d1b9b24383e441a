from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from engines.findings import Refusal
from node.interfaces import ResultContext, ResultError
from node.results.text_report import TextReportWriter
from tests.node.results.building import (
    REASON,
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


def sections(report: Dataset) -> dict[str, list[str]]:
    return {
        str(section.ConceptNameCodeSequence[0].CodeMeaning): [
            str(item.TextValue) for item in section.ContentSequence if item.ValueType == "TEXT"
        ]
        for section in report.ContentSequence
        if section.ValueType == "CONTAINER"
    }


def context_of_nobody() -> ResultContext:
    header = Dataset()
    header.StudyInstanceUID = "1.2.3"
    return context((header,), refusal())


def report_on(made: ResultContext, folder: Path) -> Dataset:
    return pydicom.dcmread(save_all(made, folder)["text_report"])


def test_findings_are_told_with_their_values_and_limits(headers: Headers, tmp_path: Path) -> None:
    said = sections(report_on(context(headers, analysis(headers)), tmp_path))
    assert said["Summary"] == [
        "AI RESULT - PRELIMINARY - NOT VERIFIED BY A PHYSICIAN.",
        "Analysed, 2 findings: Left lung one, Left lung two.",
        "Not for clinical use.",
    ]
    assert said["Findings"] == [
        "Left lung one: Volume 1235 ml; Mean Attenuation Coefficient -850.2 HU;"
        " Area 3600 mm2 on image 2.",
        "Left lung two: Volume 1235 ml; Mean Attenuation Coefficient -850.2 HU;"
        " Area 3600 mm2 on image 2.",
        "Looked for: Lung.",
        "Limit: The lung bases lie outside the images.",
    ]


def test_what_was_analysed_by_what_and_when_is_told(headers: Headers, tmp_path: Path) -> None:
    """VIEW-03: and that nobody verified it stands above all else."""
    said = sections(report_on(context(headers, analysis(headers)), tmp_path))
    assert said["Current Procedure Descriptions"] == [
        'Analysed: CT series 1 "Synthetic body", 6 instances.',
        f"Engine: lung-seg 1.2.0, package SHA-256 {'ab' * 32}.",
        "Intended use: Research on lung volumes",
        "Run by wetread 0.1.0 at station WETREAD1, rule lungs (revision 3).",
        "Made 2026-01-02 03:04 UTC, revision 1 of the study.",
    ]
    assert said["Summary"][0] == "AI RESULT - PRELIMINARY - NOT VERIFIED BY A PHYSICIAN."


def test_nothing_found_is_told_with_what_was_sought(headers: Headers, tmp_path: Path) -> None:
    said = sections(report_on(context(headers, nothing_found(headers)), tmp_path))
    assert said["Summary"][1] == "Analysed, nothing found. Looked for: Lung, Nodule."
    assert said["Findings"][0] == "Not found: Lung, Nodule."


def test_a_refusal_is_told_with_its_code_and_is_no_negative(
    headers: Headers, tmp_path: Path
) -> None:
    """OBJ-13, OBJ-19, SR-08."""
    report = report_on(context(headers, refusal()), tmp_path)
    said = sections(report)
    assert said["Summary"][1] == "NOT ANALYSED: Slices are missing."
    assert "does not mean a normal finding" in said["Summary"][2]
    assert said["Conclusions"] == [refusal().detail]
    conclusions = report.ContentSequence[-2].ContentSequence
    (code,) = [item.ConceptCodeSequence[0] for item in conclusions if item.ValueType == "CODE"]
    assert (code.CodeValue, code.CodingSchemeDesignator) == (REASON.value, REASON.scheme)
    (scheme,) = report.CodingSchemeIdentificationSequence
    assert scheme.CodingSchemeDesignator == "99WETREAD"
    assert report.CompletionFlag == "PARTIAL"
    assert report.CompletionFlagDescription == "Not analysed: Slices are missing"
    assert said["Current Procedure Descriptions"][0].startswith("Looked at: CT series 1")


def test_every_outcome_has_a_text_report(headers: Headers) -> None:
    for outcome in (analysis(headers), nothing_found(headers), refusal()):
        assert TextReportWriter().handles(outcome)


def test_a_refusal_of_several_series_names_each(tmp_path: Path) -> None:
    both = series(tmp_path / "a") + series(tmp_path / "b", series=2, slices=3)
    said = sections(report_on(context(both, refusal()), tmp_path))
    assert said["Current Procedure Descriptions"][:2] == [
        'Looked at: CT series 1 "Synthetic body", 6 instances.',
        'Looked at: CT series 2 "Synthetic body", 3 instances.',
    ]


def test_frames_are_counted_and_named(headers: Headers, tmp_path: Path) -> None:
    sources, frames = multi_frame(headers)
    outcome = replace(analysis(headers), sources=frames)
    said = sections(report_on(context(sources, outcome), tmp_path))
    assert said["Current Procedure Descriptions"][0].endswith("1 instance with 6 frames.")
    assert f"on image 1 frame {frames[1].frame}." in said["Findings"][0]


def test_a_segment_without_voxels_is_named(headers: Headers, tmp_path: Path) -> None:
    empty = segment("empty", np.zeros(grid_of(headers).shape, dtype=np.bool_), measurements=())
    outcome = replace(analysis(headers), findings=(empty,))
    said = sections(report_on(context(headers, outcome), tmp_path))
    assert said["Findings"][0] == "Left lung empty: not drawn on the images."


def test_a_refusal_after_findings_replaces_their_measurements_too(
    headers: Headers, tmp_path: Path
) -> None:
    first = write_all(context(headers, analysis(headers)))
    earlier = tuple(superseded_by(first[name][0], name) for name in first)
    later = replace(context(headers, refusal(), generation=2), superseded=earlier)
    report = report_on(later, tmp_path)
    replaced = {
        item.ReferencedSOPInstanceUID
        for study in report.PredecessorDocumentsSequence
        for one in study.ReferencedSeriesSequence
        for item in one.ReferencedSOPSequence
    }
    wanted = {
        first[name][0].SOPInstanceUID
        for name in ("measurement_report", "box_report", "text_report")
    }
    assert replaced == wanted
    assert "replaces an AI report" in sections(report)["Summary"][-1]
    assert report.SeriesInstanceUID == first["text_report"][0].SeriesInstanceUID


def test_text_of_headers_cannot_break_a_sentence(headers: Headers, tmp_path: Path) -> None:
    headers[0].SeriesDescription = 'A"\tB  C'
    headers[0].SeriesNumber = None
    said = sections(report_on(context(headers, analysis(headers)), tmp_path))
    first = said["Current Procedure Descriptions"][0]
    assert first == 'Analysed: CT series "A" B C", 6 instances.'


def test_text_of_an_engine_is_cleaned_and_shortened(headers: Headers, tmp_path: Path) -> None:
    outcome = Refusal(reason=REASON, detail="bad\x07 value\n" + "x" * 5000)
    said = sections(report_on(context(headers, outcome), tmp_path))
    assert said["Conclusions"][0].startswith("bad value xxx")
    assert len(said["Conclusions"][0]) == 1024


def test_without_any_header_there_is_nobody_to_report_on() -> None:
    with pytest.raises(ResultError, match="whose study"):
        TextReportWriter().write(replace(context_of_nobody(), sources=()))


def test_a_refusal_of_an_unknown_kind_of_object_is_told(headers: Headers, tmp_path: Path) -> None:
    headers[0].SOPClassUID = "1.3.46.670589.5.0.1"
    report = report_on(context(headers[:1], refusal()), tmp_path)
    evidence = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
    assert evidence.ReferencedSOPSequence[0].ReferencedSOPClassUID == "1.3.46.670589.5.0.1"


def test_a_report_on_another_outcome_is_caught(headers: Headers, tmp_path: Path) -> None:
    (dataset,) = TextReportWriter().write(context(headers, nothing_found(headers)))
    dataset.save_as(tmp_path / "sr.dcm", enforce_file_format=True)
    outcome = replace(nothing_found(headers), limits=("Another limit.",))
    with pytest.raises(ResultError, match="not those of the outcome"):
        TextReportWriter().check(tmp_path / "sr.dcm", context(headers, outcome))
