"""What every structured report has in common in its content, whichever writer made it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import Comprehensive3DSRStorage, EnhancedSRStorage

from engines.findings import Outcome
from node.results import _identity as identity
from node.results._documents import procedure_reported
from tests.node.results.building import (
    Headers,
    analysis,
    context,
    image_analysis,
    nothing_found,
    refusal,
    save_all,
    series,
)

TRACKING_NAME: Final = "112039"
TRACKING_UID: Final = "112040"
GROUP: Final = "125007"
ALGORITHM: Final = {"111001", "111003", "111002", "111000"}
"""Name, version, parameters, family (TID 4019)."""
MANUFACTURER_OF_ALGORITHM: Final = "122405"
ENGINE: Final = (
    "lung-seg",
    "1.2.0",
    f"package-sha256={'ab' * 32}",
    "threshold=-500",
    "Artificial Intelligence",
)
PROCEDURES: Final[Mapping[str, tuple[str, str]]] = {
    "CT": ("25045-6", "LN"),
    "MR": ("25056-3", "LN"),
    "PT": ("44136-0", "LN"),
    "DX": ("363679005", "SCT"),
    "SM": ("363679005", "SCT"),
}


@pytest.fixture(scope="module")
def headers(tmp_path_factory: pytest.TempPathFactory) -> Headers:
    return series(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def reports(headers: Headers, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Dataset]:
    """Make a report of each kind, of what was found and of nothing."""
    folder = tmp_path_factory.mktemp("reports")
    outcomes: dict[str, Outcome] = {
        "found": analysis(headers),
        "nothing": nothing_found(headers),
        "images": image_analysis(headers),
        "refused": refusal(),
    }
    return {
        f"{name}, {writer}": pydicom.dcmread(path)
        for name, outcome in outcomes.items()
        for writer, path in save_all(context(headers, outcome), folder / name).items()
        if writer != "segmentation"
    }


@pytest.fixture(scope="module")
def coded(reports: dict[str, Dataset]) -> dict[str, Dataset]:
    """Return those with values in codes."""
    return {name: report for name, report in reports.items() if "text_report" not in name}


def walk(item: Dataset) -> Iterator[Dataset]:
    yield item
    for child in item.get("ContentSequence", ()):
        yield from walk(child)


def name_of(item: Dataset) -> str:
    """Return the value of the code that names a content item; empty where it has no name."""
    names = item.get("ConceptNameCodeSequence", ())
    return str(names[0].CodeValue) if names else ""


def value_of(item: Dataset) -> str:
    """Return the value of a content item as text."""
    if item.ValueType == "CODE":
        return str(item.ConceptCodeSequence[0].CodeMeaning)
    return str(item.get("TextValue") or item.get("UID") or item.get("PersonName"))


def groups_of(report: Dataset) -> list[Dataset]:
    return [item for item in walk(report) if name_of(item) == GROUP]


def test_a_device_observed_and_no_person(reports: dict[str, Dataset], headers: Headers) -> None:
    """OBJ-14, AIR-07: type, UID, name, manufacturer, model, serial number, in every report."""
    device = context(headers, refusal()).device
    for report in reports.values():
        said = {name_of(item): value_of(item) for item in report.ContentSequence}
        assert {code: said.get(code) for code in (*map(str, range(121005, 121017)),)} == {
            "121005": "Device",
            **dict.fromkeys(map(str, range(121006, 121012))),
            "121012": identity.device_uid(device),
            "121013": "WETREAD1",
            "121014": "wetread",
            "121015": "wetread",
            "121016": "WR-0001",
        }


def test_each_group_names_the_algorithm_with_its_parameters(coded: dict[str, Dataset]) -> None:
    """OBJ-15, AIR-07: without a manufacturer, which validators warn of."""
    for report in coded.values():
        for group in groups_of(report):
            said = [value_of(item) for item in group.ContentSequence if name_of(item) in ALGORITHM]
            assert sorted(said) == sorted(ENGINE)
        assert not [item for item in walk(report) if name_of(item) == MANUFACTURER_OF_ALGORITHM]


def test_each_group_is_tracked_first_of_all_by_its_uid(coded: dict[str, Dataset]) -> None:
    """OBJ-16, OBJ-17, AIR-05: no two of a document have the same."""
    for report in coded.values():
        uids = []
        for group in groups_of(report):
            assert [item for item in group.ContentSequence if name_of(item) == TRACKING_NAME]
            first = next(item for item in group.ContentSequence if item.ValueType == "UIDREF")
            assert name_of(first) == TRACKING_UID
            uids.append(str(first.UID))
        assert uids
        assert len(set(uids)) == len(uids)


def test_every_number_has_a_unit_of_ucum(coded: dict[str, Dataset]) -> None:
    """OBJ-18."""
    numbers = [
        item
        for report in coded.values()
        for item in walk(report)
        if item.get("MeasuredValueSequence")
    ]
    assert len(numbers) > 10
    for item in numbers:
        [unit] = item.MeasuredValueSequence[0].MeasurementUnitsCodeSequence
        assert unit.CodingSchemeDesignator == "UCUM"


def library_of(report: Dataset) -> list[str]:
    """Return the images of the image library."""
    [library] = [item for item in report.ContentSequence if name_of(item) == "111028"]
    images = [item for item in walk(library) if item.ValueType == "IMAGE"]
    return [str(item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID) for item in images]


def test_the_library_has_the_images_that_findings_point_at_and_no_others(
    coded: dict[str, Dataset], headers: Headers
) -> None:
    """OBJ-12: of six images; one where nothing was found, as it may not be empty."""
    found = analysis(headers).findings
    largest = {int(item.by_slice.argmax()) for item in found}
    numbers = [number.slice_index for item in found for number in item.measurements]
    wanted: dict[str, set[int]] = {
        "found, measurement_report": largest | {index for index in numbers if index is not None},
        "found, box_report": largest,
        "nothing, measurement_report": {len(headers) // 2},
        "images, classification_report": {0, 1},
    }
    listed = {name: sorted(library_of(report)) for name, report in coded.items()}
    assert listed == {
        name: sorted(str(headers[index].SOPInstanceUID) for index in slices)
        for name, slices in wanted.items()
    }


def test_a_procedure_is_one_of_few(headers: Headers) -> None:
    """SR-03: whatever else it is called, another would be none of CID 100."""
    for modality, wanted in PROCEDURES.items():
        source = Dataset()
        source.update(headers[0])
        source.Modality = modality
        found = procedure_reported(context((source,), refusal()))
        assert (found.value, found.scheme_designator) == wanted


def test_reports_are_comprehensive_3d_with_the_title_of_tid_1500(
    reports: dict[str, Dataset],
) -> None:
    """SR-01, SR-02: text is an Enhanced SR."""
    for name, report in reports.items():
        text = "text_report" in name
        assert report.SOPClassUID == (EnhancedSRStorage if text else Comprehensive3DSRStorage)
        [template] = report.ContentTemplateSequence
        assert template.TemplateIdentifier == ("2000" if text else "1500")
        if not text:
            [title] = report.ConceptNameCodeSequence
            assert (title.CodeValue, title.CodingSchemeDesignator) == ("126000", "DCM")
            assert title.CodeMeaning == "Imaging Measurement Report"


def kind_of_group(group: Dataset) -> str:
    """Return what a group is about: segments, regions, or whole images."""
    names = {name_of(item) for item in group.ContentSequence}
    return "segment" if "121191" in names else "region" if "111030" in names else "image"


def test_a_report_has_groups_of_one_kind_and_coordinates_of_one_kind(
    coded: dict[str, Dataset],
) -> None:
    """SR-06, VAL-10: of segments, of regions in images, or of images."""
    kinds = {
        name: {kind_of_group(each) for each in groups_of(item)} for name, item in coded.items()
    }
    assert kinds == {
        "found, measurement_report": {"segment"},
        "nothing, measurement_report": {"image"},
        "images, classification_report": {"image"},
        "found, box_report": {"region"},
    }
    for report in coded.values():
        assert "SCOORD3D" not in {item.ValueType for item in walk(report) if "ValueType" in item}
