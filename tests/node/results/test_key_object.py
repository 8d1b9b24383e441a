from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest
from highdicom.ko import KeyObjectSelectionDocument
from pydicom.dataset import Dataset

from node.interfaces import ResultContext, ResultError
from node.results.key_object import KeyObjectWriter
from tests.node.results.awkward import AWKWARD, awkward_series
from tests.node.results.building import analysis, context, nothing_found, refusal, series
from tests.node.results.pictured import SOURCES, again, on_ct, on_enhanced, on_radiograph, save
from tests.node.results.test_validators import SOURCES_OWN_FAULTS
from tests.node.results.validators import dcentvfy, dciodvfy, sr_validator

WRITER = KeyObjectWriter()


def only(made: ResultContext, folder: Path) -> Dataset:
    (path,) = save(WRITER, made, folder / "out")
    return pydicom.dcmread(path)


def images(document: Dataset) -> list[Dataset]:
    return [
        item.ReferencedSOPSequence[0]
        for item in document.ContentSequence
        if item.ValueType == "IMAGE"
    ]


def test_ko_01_the_images_where_findings_are_largest_are_of_interest(tmp_path: Path) -> None:
    made = on_ct(tmp_path)
    document = only(made, tmp_path)
    (title,) = document.ConceptNameCodeSequence
    assert (title.CodeValue, title.CodingSchemeDesignator) == ("113000", "DCM")
    assert document.Modality == "KO"
    largest = sorted({int(item.by_slice.argmax()) for item in made.outcome.findings})  # type: ignore[union-attr]
    assert [item.ReferencedSOPInstanceUID for item in images(document)] == [
        made.sources[index].SOPInstanceUID for index in largest
    ]


def test_ko_01_images_have_no_concept_name(tmp_path: Path) -> None:
    for item in only(on_ct(tmp_path), tmp_path).ContentSequence:
        assert ("ConceptNameCodeSequence" in item) == (item.ValueType != "IMAGE")


def test_the_description_says_whose_choice_it_is_and_what_was_found(tmp_path: Path) -> None:
    """KO-01."""
    document = only(on_radiograph(tmp_path), tmp_path)
    (text,) = [item.TextValue for item in document.ContentSequence if item.ValueType == "TEXT"][-1:]
    assert text == (
        "AI - PRELIMINARY - UNVERIFIED - lung-seg 1.2.0 - Not for clinical use."
        " 1 image of 1 with findings: where each is largest."
        " Nodule on image 1: Certainty of Finding 91.51 %."
    )


def test_obj_11_the_evidence_is_what_it_refers_to(tmp_path: Path) -> None:
    document = only(on_enhanced(tmp_path), tmp_path)
    (study,) = document.CurrentRequestedProcedureEvidenceSequence
    (of_series,) = study.ReferencedSeriesSequence
    (instance,) = of_series.ReferencedSOPSequence
    assert {item.ReferencedSOPInstanceUID for item in images(document)} == {
        instance.ReferencedSOPInstanceUID
    }
    assert all(item.ReferencedFrameNumber for item in images(document))


def test_there_is_none_where_there_is_nothing_to_look_at(tmp_path: Path) -> None:
    headers = series(tmp_path / "source")
    assert not WRITER.by_default
    assert not WRITER.handles(nothing_found(headers))
    assert not WRITER.handles(refusal())


@pytest.mark.parametrize("name", SOURCES)
def test_val_08_documents_pass_every_validator_and_are_the_same_bytes_again(
    name: str, tmp_path: Path
) -> None:
    made = SOURCES[name](tmp_path)
    first = save(WRITER, made, tmp_path / "first")
    second = save(WRITER, made, tmp_path / "second")
    assert not [line for path in first for line in dciodvfy(path)]
    assert not sr_validator(first)
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    parsed = KeyObjectSelectionDocument.from_dataset(pydicom.dcmread(first[0]))
    assert parsed.content.get_references()


@pytest.mark.parametrize("name", AWKWARD)
def test_obj_03_awkward_headers_make_valid_documents(name: str, tmp_path: Path) -> None:
    headers = awkward_series(tmp_path / "source", name)
    accepted = SOURCES_OWN_FAULTS.get(name, ())
    for path in save(WRITER, context(headers, analysis(headers)), tmp_path / "out"):
        faults = [line for line in dciodvfy(path) if not any(word in line for word in accepted)]
        assert not faults


def test_a_document_agrees_with_its_sources(tmp_path: Path) -> None:
    paths = save(WRITER, on_ct(tmp_path), tmp_path / "out")
    assert not dcentvfy([*sorted((tmp_path / "source").iterdir()), *paths])


def _point_elsewhere(document: Dataset) -> None:
    images(document)[0].ReferencedSOPInstanceUID = "1.2.3"


def _retell(document: Dataset) -> None:
    for item in document.ContentSequence:
        if item.ValueType == "TEXT":
            item.TextValue = "All is well"


def _drop_evidence(document: Dataset) -> None:
    (study,) = document.CurrentRequestedProcedureEvidenceSequence
    study.ReferencedSeriesSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID = "1.2.3"


@pytest.mark.parametrize(
    ("damage", "fault"),
    [(_point_elsewhere, "images"), (_retell, "description"), (_drop_evidence, "evidence")],
)
def test_obj_22_a_document_that_differs_is_found_out(
    damage: Callable[[Dataset], None], fault: str, tmp_path: Path
) -> None:
    made = on_ct(tmp_path)
    (path,) = save(WRITER, made, tmp_path / "out")
    document = pydicom.dcmread(path)
    damage(document)
    document.save_as(path)
    with pytest.raises(ResultError, match=fault):
        WRITER.check(path, made)


def test_findings_that_cannot_be_told_apart_are_refused(tmp_path: Path) -> None:
    made = on_ct(tmp_path)
    first = made.outcome.findings[0]  # type: ignore[union-attr]
    twice = replace(made.outcome, findings=(first, first))  # type: ignore[arg-type]
    with pytest.raises(ResultError, match="share a key"):
        WRITER.write(again(made, twice))
