"""QIDO-RS over real sockets: received instances and results alike, by the keys of the standard."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from dicomweb_client import DICOMwebClient
from pydicom import dcmread
from pydicom.dataset import Dataset

from tests.factories import make_ct_series
from tests.node.dicomweb.planted import PlantedWeb, report

SLICES = 3


def patient(name: str, number: str, date: str = "20240301") -> object:
    def modify(dataset: Dataset, _index: int) -> None:
        dataset.SpecificCharacterSet = "ISO_IR 192"
        dataset.PatientName = name
        dataset.PatientID = number
        dataset.StudyDate = date

    return modify


def study_of(files: list[Path]) -> str:
    return str(dcmread(files[0], stop_before_pixels=True).StudyInstanceUID)


def value(found: dict[str, dict[str, list[object]]], tag: str) -> object:
    return found[tag].get("Value", [None])[0]


@pytest.fixture
def two(web: PlantedWeb, tmp_path: Path) -> tuple[str, str]:
    """Plant two studies; the first has a result too."""
    studies = []
    for seed, (name, number, date) in enumerate(
        [("Müller^Änne=山田^太郎", "P-1", "20240301"), ("Doe^Jane", "P_2", "20250401")], start=1
    ):
        files = make_ct_series(
            tmp_path / number,
            slices=SLICES,
            rows=16,
            columns=16,
            seed=seed,
            modify=patient(name, number, date),  # type: ignore[arg-type]
        )
        web.receive(files)
        studies.append(study_of(files))
    web.make(studies[0], [report(studies[0])])
    return studies[0], studies[1]


def test_studies_are_told_with_their_results_and_names_in_every_script(
    web: PlantedWeb, two: tuple[str, str]
) -> None:
    client = web.client()
    found = {value(item, "0020000D"): item for item in client.search_for_studies()}
    assert set(found) == set(two)
    first = found[two[0]]
    assert first["00100010"]["Value"] == [{"Alphabetic": "Müller^Änne", "Ideographic": "山田^太郎"}]
    assert first["00080061"]["Value"] == ["CT", "SR"]
    assert (value(first, "00201206"), value(first, "00201208")) == (2, SLICES + 1)
    assert found[two[1]]["00080061"]["Value"] == ["CT"]
    assert str(value(first, "00081190")).endswith(f"/dicom-web/studies/{two[0]}")


@pytest.mark.parametrize(
    ("query", "matches"),
    [
        ({"PatientID": "P-1"}, {0}),
        ({"00100020": "P-1"}, {0}),
        ({"PatientID": "p-1"}, set()),
        ({"PatientID": "P_*"}, {1}),
        ({"PatientID": "P?2"}, {1}),
        ({"PatientID": "%"}, set()),
        ({"PatientName": "doe*"}, {1}),
        ({"PatientName": "DOE^JANE"}, {1}),
        ({"StudyDate": "20240301"}, {0}),
        ({"StudyDate": "20240101-20241231"}, {0}),
        ({"StudyDate": "20250101-"}, {1}),
        ({"StudyDate": "-20240301"}, {0}),
        ({"ModalitiesInStudy": "SR"}, {0}),
        ({"ModalitiesInStudy": "CT"}, {0, 1}),
        ({"ModalitiesInStudy": "MR"}, set()),
        ({"StudyDescription": "*phantom*"}, {0, 1}),
    ],
)
def test_studies_are_found_by_their_keys(
    query: dict[str, str], matches: set[int], web: PlantedWeb, two: tuple[str, str]
) -> None:
    found = web.client().search_for_studies(search_filters=query)
    assert {value(item, "0020000D") for item in found} == {two[index] for index in matches}


def test_a_list_of_study_uids_finds_them(web: PlantedWeb, two: tuple[str, str]) -> None:
    address = web.serve()
    found = httpx.get(f"{address}/studies", params={"StudyInstanceUID": ",".join(two)}).json()
    assert len(found) == 2


def test_pages_follow_each_other_and_say_that_there_is_more(
    web: PlantedWeb, two: tuple[str, str]
) -> None:
    address = web.serve(max_results=2)
    uids: list[str] = []
    for offset in (0, 2):
        answer = httpx.get(f"{address}/studies/{two[0]}/instances", params={"offset": offset})
        uids += [item["00080018"]["Value"][0] for item in answer.json()]
        assert answer.headers.get("warning", "").startswith("299") is (offset == 0)
    assert len(set(uids)) == SLICES + 1
    asked = httpx.get(f"{address}/studies", params={"limit": 1})
    assert len(asked.json()) == 1
    assert "additional results" in asked.headers["warning"]


def test_series_and_instances_are_found_with_what_viewers_and_archives_filter_by(
    web: PlantedWeb, two: tuple[str, str]
) -> None:
    """AIR-11: the query keys for results are filled: Modality, template, completion flag."""
    client = web.client()
    series = client.search_for_series(two[0])
    assert sorted(str(value(item, "00080060")) for item in series) == ["CT", "SR"]
    [made] = client.search_for_series(two[0], search_filters={"Modality": "SR"})
    assert value(made, "0008103E") == "Findings"
    assert value(made, "00201209") == 1
    [instance] = client.search_for_instances(two[0], str(value(made, "0020000E")))
    assert value(instance, "0040A491") == "COMPLETE"
    assert instance["0040A504"]["Value"][0]["0040DB00"]["Value"] == ["1500"]
    images = client.search_for_instances(two[0], search_filters={"Modality": "CT"})
    assert [value(item, "00280010") for item in images] == [16] * SLICES
    [second] = client.search_for_instances(
        two[0], search_filters={"Modality": "CT", "InstanceNumber": "2"}
    )
    assert value(second, "00200013") == 2


def test_every_series_and_instance_can_be_searched_without_a_study(
    web: PlantedWeb, two: tuple[str, str]
) -> None:
    client = web.client()
    assert len(client.search_for_series()) == 3
    assert len(client.search_for_instances()) == 2 * SLICES + 1
    found = client.search_for_instances(search_filters={"PatientID": "P_2"})
    assert {value(item, "0020000D") for item in found} == {two[1]}


@pytest.mark.parametrize(
    "query",
    [
        {"PatientsName": "x"},
        {"00100011": "x"},
        {"SeriesNumber": "1"},
        {"limit": "-1"},
        {"limit": "99999999999"},
        {"offset": "x"},
        {"includefield": "NoSuchThing"},
        {"PatientName": "x" * 2000},
        {"__class__": "x"},
    ],
)
def test_what_cannot_be_searched_by_is_refused_and_never_passed_over(
    query: dict[str, str], web: PlantedWeb
) -> None:
    """A key that is passed over would find other patients."""
    answer = httpx.get(f"{web.serve()}/studies", params=query)
    assert answer.status_code == 400
    assert "x" * 100 not in answer.text


@pytest.mark.usefixtures("two")
def test_fuzzy_matching_is_literal_and_says_so(web: PlantedWeb) -> None:
    answer = httpx.get(
        f"{web.serve()}/studies", params={"fuzzymatching": "true", "PatientName": "doe*"}
    )
    assert len(answer.json()) == 1
    assert "literal matching" in answer.headers["warning"]


def test_a_superseded_result_is_not_held_any_more(web: PlantedWeb, two: tuple[str, str]) -> None:
    web.stores.studies.reopen(two[0], reason="tests", by="tests")
    web.make(two[0], [report(two[0], 2)])
    found = web.client().search_for_instances(two[0], search_filters={"Modality": "SR"})
    assert [value(item, "00080018") for item in found] == [f"{two[0]}.9.2"]


def test_nothing_found_is_an_empty_array(web: PlantedWeb) -> None:
    client: DICOMwebClient = web.client()
    assert client.search_for_studies() == []
    assert client.search_for_series("1.2.3") == []
