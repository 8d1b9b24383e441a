"""Every kind of object, from every kind of source, before the validators of others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from engines.findings import Outcome
from tests.factories import SAGITTAL, CtOptions
from tests.node.results.awkward import AWKWARD, awkward_series
from tests.node.results.building import (
    OBLIQUE,
    Headers,
    analysis,
    context,
    image_analysis,
    multi_frame,
    nothing_found,
    refusal,
    save_all,
    series,
    superseded_by,
    write_all,
)
from tests.node.results.validators import dcentvfy, dciodvfy, dsrdump, sr_validator

NOT_FOR_DICOMDIR: Final = "Missing attribute or value that would be needed to build DICOMDIR"
SOURCES_OWN_FAULTS: Final = {  # VAL-16: the source's, not made up for in the copy
    "no Type 2 attributes": (NOT_FOR_DICOMDIR,),
    "hostile text": ("StudyDescription",),
    "bad values": (NOT_FOR_DICOMDIR,),
}
COMPARED_AS_BYTES: Final = ("ISO 2022 IR 87", "ISO_IR 100")
"""dcentvfy compares bytes, not text: a name in another character set is another name to it."""
GEOMETRIES: Final[Mapping[str, CtOptions]] = {
    "axial": {},
    "sagittal": {"orientation": SAGITTAL},
    "oblique": {"orientation": OBLIQUE},
    "single slice": {"slices": 1},
    "130 columns": {"columns": 130, "spacing": (5.0, 0.4, 0.9)},
    "tilted": {"tilt_degrees": 15.0},
}


def all_outcomes(headers: Headers, folder: Path) -> list[Path]:
    outcomes: dict[str, Outcome] = {
        "found": analysis(headers),
        "overlap": analysis(headers, overlap=True),
        "nothing": nothing_found(headers),
        "refused": refusal(),
        "images": image_analysis(headers),
    }
    return [
        path
        for name, outcome in outcomes.items()
        for path in save_all(context(headers, outcome), folder / name).values()
    ]


@pytest.mark.parametrize("name", GEOMETRIES)
def test_objects_on_every_geometry_conform_to_their_iod(name: str, tmp_path: Path) -> None:
    """VAL-12: what refers to sources is never stripped."""
    headers = series(tmp_path / "source", **GEOMETRIES[name])
    for path in all_outcomes(headers, tmp_path / "out"):
        assert not dciodvfy(path), path


@pytest.mark.parametrize("name", AWKWARD)
def test_objects_from_awkward_headers_conform_to_their_iod(name: str, tmp_path: Path) -> None:
    headers = awkward_series(tmp_path / "source", name)
    accepted = SOURCES_OWN_FAULTS.get(name, ())
    for path in all_outcomes(headers, tmp_path / "out"):
        faults = [line for line in dciodvfy(path) if not any(word in line for word in accepted)]
        assert not faults, path


def test_a_weight_of_zero_is_the_sources_own_fault_and_is_copied(tmp_path: Path) -> None:
    """VAL-16: what it says stays as it is, and nothing else is complained of."""

    def weightless(dataset: Dataset, _: int) -> None:
        dataset.PatientWeight = "0"

    headers = series(tmp_path / "source", modify=weightless)
    for path in save_all(context(headers, refusal()), tmp_path / "out").values():
        assert dcmread(path).PatientWeight == 0
        said = dciodvfy(path)
        assert said
        assert not [line for line in said if "PatientWeight" not in line]


def test_objects_on_an_enhanced_instance_conform_to_their_iod(tmp_path: Path) -> None:
    headers = series(tmp_path / "source")
    sources, frames = multi_frame(headers)
    outcome = replace(analysis(headers), sources=frames)
    for path in save_all(context(sources, outcome), tmp_path).values():
        assert not dciodvfy(path), path


def test_reports_on_frames_and_in_japanese_follow_their_templates(tmp_path: Path) -> None:
    """Reports of every kind of finding are validated in `test_kinds_and_objects`."""
    headers = series(tmp_path / "source")
    japanese = awkward_series(tmp_path / "japanese", "ISO 2022 IR 87")
    sources, frames = multi_frame(headers)
    paths = [
        *all_outcomes(japanese, tmp_path / "other")[-1:],
        *save_all(
            context(sources, replace(analysis(headers), sources=frames)), tmp_path / "enhanced"
        ).values(),
    ]
    reports = [path for path in paths if path.stem != "segmentation"]
    assert not sr_validator(reports)


def test_source_results_and_re_run_agree_on_patient_study_and_series(tmp_path: Path) -> None:
    """OBJ-01, OBJ-07, VAL-14, VAL-15: dicom3tools compares them."""
    headers = series(tmp_path / "source")
    first = context(headers, analysis(headers))
    earlier = tuple(
        superseded_by(dataset, name) for name, (dataset, _, _) in write_all(first).items()
    )
    again = replace(context(headers, analysis(headers), generation=2), superseded=earlier)
    paths = [
        *sorted((tmp_path / "source").iterdir()),
        *save_all(first, tmp_path / "first").values(),
        *save_all(again, tmp_path / "again").values(),
    ]
    assert not dcentvfy(paths)


@pytest.mark.parametrize("name", [name for name in AWKWARD if name not in SOURCES_OWN_FAULTS])
def test_results_agree_with_awkward_sources(name: str, tmp_path: Path) -> None:
    headers = awkward_series(tmp_path / "source", name)
    paths = save_all(context(headers, analysis(headers)), tmp_path / "out").values()
    said = dcentvfy([*sorted((tmp_path / "source").iterdir()), *paths])
    errors = [line for line in said if line.startswith("Error")]
    if name in COMPARED_AS_BYTES:
        errors = [line for line in errors if "String attribute has different value" not in line]
    assert not errors


def test_reports_print_as_readable_text(tmp_path: Path) -> None:
    """VAL-13."""
    headers = series(tmp_path / "source")
    for path in all_outcomes(headers, tmp_path / "out"):
        if path.stem == "segmentation":
            continue
        text, faults = dsrdump(path)
        assert not faults
        assert "UNVERIFIED" in text
        assert "PRELIMINARY" in text


def test_a_refusal_prints_its_reason(tmp_path: Path) -> None:
    headers = series(tmp_path / "source")
    paths = save_all(context(headers, refusal()), tmp_path / "out")
    text, _ = dsrdump(paths["text_report"])
    assert '="NOT ANALYSED: Slices are missing."' in text
    assert '=(SLICES_MISSING,99WETREAD,"Slices are missing")' in text
