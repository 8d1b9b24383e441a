"""Notes that results are rejected, before the validators of others (UID-06, IHE IOCM)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pydicom
import pytest
from highdicom.ko import KeyObjectSelectionDocument
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from node.interfaces import ResultError
from node.results._rejection import (
    NOTE,
    NOTICE,
    TITLES,
    Rejected,
    Rejection,
    check_note,
    write_notes,
)
from tests.node.results.awkward import AWKWARD, awkward_series
from tests.node.results.building import (
    CREATED,
    Headers,
    analysis,
    context,
    save_all,
    series,
)
from tests.node.results.test_validators import COMPARED_AS_BYTES, SOURCES_OWN_FAULTS
from tests.node.results.validators import dcentvfy, dciodvfy, dsrdump, sr_validator


def rejection(headers: Headers, folder: Path, code: str = "113037") -> Rejection:
    """Reject every result of a series; as at a node, its header is that of one of them."""
    made = context(headers, analysis(headers))
    results = [pydicom.dcmread(path) for path in save_all(made, folder).values()]
    return Rejection(
        key="withdrawal|1.2.3|PACS",
        at=CREATED,
        code=code,
        reason="It takes the spleen for the liver.",
        rejected=tuple(
            Rejected(
                sop_class_uid=str(item.SOPClassUID),
                sop_instance_uid=str(item.SOPInstanceUID),
                series_instance_uid=str(item.SeriesInstanceUID),
            )
            for item in results
        ),
        header=results[0],
        device=made.device,
        engine=made.engine,
    )


def save(rejected: Rejection, folder: Path) -> dict[str, Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    for name, dataset in write_notes(rejected):
        paths[name] = folder / f"{name}.dcm"
        dataset.save_as(paths[name], enforce_file_format=True)
        check_note(paths[name], rejected)
    return paths


def references(document: Dataset) -> list[tuple[str, str]]:
    return [
        (item.ValueType, item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID)
        for item in document.ContentSequence
        if item.ValueType in ("IMAGE", "COMPOSITE")
    ]


@pytest.mark.parametrize("code", TITLES)
def test_a_note_names_what_is_rejected_under_the_title_that_says_why(
    code: str, tmp_path: Path
) -> None:
    """UID-06, KO-01: titles of PS3.16 CID 7010; its items have no concept name."""
    rejected = rejection(series(tmp_path / "ct"), tmp_path / "results", code)
    note = pydicom.dcmread(save(rejected, tmp_path / "out")[NOTE])
    (title,) = note.ConceptNameCodeSequence
    assert (title.CodeValue, title.CodingSchemeDesignator) == (code, "DCM")
    assert title.CodeMeaning == TITLES[code].meaning
    assert [uid for _, uid in references(note)] == [
        item.sop_instance_uid for item in rejected.rejected
    ]
    assert {kind for kind, _ in references(note)} == {"IMAGE", "COMPOSITE"}
    assert all(
        "ConceptNameCodeSequence" not in item
        for item in note.ContentSequence
        if item.ValueType in ("IMAGE", "COMPOSITE")
    )
    assert KeyObjectSelectionDocument.from_dataset(note)


def test_both_conform_to_their_iod_and_template_and_agree_with_the_study(tmp_path: Path) -> None:
    headers = series(tmp_path / "source")
    made = rejection(headers, tmp_path / "results")
    paths = save(made, tmp_path / "out")
    quality = save(replace(made, code="113001"), tmp_path / "quality")
    assert [dciodvfy(path) for path in (*paths.values(), *quality.values())] == [[]] * 4
    assert not sr_validator([*paths.values(), quality[NOTE]])
    others = [*(tmp_path / "source").iterdir(), *(tmp_path / "results").iterdir()]
    assert not dcentvfy([*sorted(others), *paths.values()])


@pytest.mark.parametrize("name", [name for name in AWKWARD if name not in SOURCES_OWN_FAULTS])
def test_notes_on_awkward_studies_conform(name: str, tmp_path: Path) -> None:
    headers = awkward_series(tmp_path / "source", name)
    paths = save(rejection(headers, tmp_path / "results"), tmp_path / "out")
    assert [dciodvfy(path) for path in paths.values()] == [[], []]
    if name not in COMPARED_AS_BYTES:
        said = dcentvfy([*sorted((tmp_path / "source").iterdir()), *paths.values()])
        assert not [line for line in said if line.startswith("Error")]


def test_the_notice_says_it_in_words_first_of_all(tmp_path: Path) -> None:
    rejected = rejection(series(tmp_path / "ct"), tmp_path / "results")
    text, faults = dsrdump(save(rejected, tmp_path / "out")[NOTICE])
    assert not faults
    assert "AI RESULTS WITHDRAWN: " in text
    assert "It takes the spleen for the liver." in text
    assert "This does not mean a normal finding." in text
    assert '(113037,DCM,"Rejected for Patient Safety Reasons")' in text
    for item in rejected.rejected:
        assert item.sop_instance_uid in text


def test_the_same_rejection_gives_the_same_bytes_and_another_study_other_uids(
    tmp_path: Path,
) -> None:
    """UID-01, UID-02."""
    rejected = rejection(series(tmp_path / "ct"), tmp_path / "results")
    first, second = (save(rejected, tmp_path / name) for name in ("first", "second"))
    assert [path.read_bytes() for path in first.values()] == [
        path.read_bytes() for path in second.values()
    ]
    other = replace(rejected, key="withdrawal|1.2.4|PACS")
    assert {str(made.SOPInstanceUID) for _, made in write_notes(rejected)}.isdisjoint(
        str(made.SOPInstanceUID) for _, made in write_notes(other)
    )


def test_nothing_of_the_header_but_patient_and_study_is_taken_over(tmp_path: Path) -> None:
    """The result's own equipment did not acquire anything."""
    rejected = rejection(series(tmp_path / "ct"), tmp_path / "results")
    for _, made in write_notes(rejected):
        purposes = [
            item.PurposeOfReferenceCodeSequence[0].CodeValue
            for item in made.ContributingEquipmentSequence
        ]
        assert "109101" not in purposes
        assert made.PatientID == rejected.header.PatientID


def test_a_title_that_rejects_nothing_is_refused(tmp_path: Path) -> None:
    rejected = rejection(series(tmp_path / "ct"), tmp_path / "results")
    with pytest.raises(ResultError, match="113000 is no title for rejected objects"):
        write_notes(replace(rejected, code="113000"))


@pytest.mark.parametrize("name", [NOTE, NOTICE])
def test_a_note_that_names_other_objects_is_found_out(name: str, tmp_path: Path) -> None:
    rejected = rejection(series(tmp_path / "ct"), tmp_path / "results")
    path = save(rejected, tmp_path / "out")[name]
    fewer = replace(rejected, rejected=rejected.rejected[:-1])
    with pytest.raises(ResultError, match=r"what (it names is not what )?is rejected"):
        check_note(path, fewer)
    if name == NOTE:
        with pytest.raises(ResultError, match="its title is not the reason"):
            check_note(path, replace(rejected, code="113001"))


def test_the_titles_are_those_of_key_object_selection_documents() -> None:
    """UID-06: PS3.16 CID 7010; CID 7011 has why the quality is bad, which is no title."""
    titles = {TITLES[code].meaning for code in TITLES}
    found = [item for item in codes.CID7010.concepts.values() if item.value in TITLES]
    assert {item.meaning for item in found} == titles
    assert {item.scheme_designator for item in found} == {"DCM"}
    assert not {item.value for item in codes.CID7011.concepts.values()} & set(TITLES)
