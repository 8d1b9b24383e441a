from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from node.interfaces import ResultContext, ResultError
from node.results.rt_structure_set import RtStructureSetWriter
from tests.factories import CORONAL, SAGITTAL, CtOptions
from tests.node.results.awkward import AWKWARD, awkward_series
from tests.node.results.building import (
    OBLIQUE,
    analysis,
    context,
    image_analysis,
    nothing_found,
    refusal,
    segment,
    series,
)
from tests.node.results.pictured import on_ct, on_enhanced, save
from tests.node.results.test_validators import SOURCES_OWN_FAULTS
from tests.node.results.validators import LATERALITY_UNKNOWN, dcentvfy, dciodvfy

WRITER = RtStructureSetWriter()
GEOMETRIES: Final[Mapping[str, CtOptions]] = {
    "axial": {},
    "sagittal": {"orientation": SAGITTAL},
    "coronal": {"orientation": CORONAL},
    "oblique": {"orientation": OBLIQUE},
    "tilted": {"tilt_degrees": 12.0},
    "anisotropic": {"spacing": (5.0, 4.0, 2.0)},
}


def only(made: ResultContext, folder: Path) -> Dataset:
    (path,) = save(WRITER, made, folder / "out")
    return pydicom.dcmread(path)


def one_block(folder: Path) -> ResultContext:
    headers = series(folder / "source", slices=3)
    mask = np.zeros((3, 48, 40), np.bool_)
    mask[1, 12:24, 10:30] = True
    mask[1, 16:20, 14:18] = False
    mask[1, 40, 2] = True  # a speck
    outcome = replace(analysis(headers), findings=(segment("one", mask),))
    return context(headers, outcome)


def test_a_contour_lies_where_its_mask_is_in_the_patient(tmp_path: Path) -> None:
    made = one_block(tmp_path)
    (region,) = only(made, tmp_path).ROIContourSequence
    (contour,) = region.ContourSequence
    source = made.sources[1]
    left, top, height = map(float, source.ImagePositionPatient)
    points = np.array(contour.ContourData, np.float64).reshape(-1, 3)
    assert contour.ContourImageSequence[0].ReferencedSOPInstanceUID == source.SOPInstanceUID
    assert points[:, 2] == pytest.approx(height)
    low, high = points.min(axis=0), points.max(axis=0)
    assert low[:2] == pytest.approx([left + 9.5 * 3, top + 11.5 * 3])
    assert high[:2] == pytest.approx([left + 29.5 * 3, top + 23.5 * 3])


def test_a_hole_is_gone_around_by_a_keyhole_and_a_speck_is_left_out(tmp_path: Path) -> None:
    (region,) = only(one_block(tmp_path), tmp_path).ROIContourSequence
    (contour,) = region.ContourSequence
    assert contour.ContourGeometricType == "CLOSED_PLANAR"
    x, y, _ = np.array(contour.ContourData, np.float64).reshape(-1, 3).T
    area = abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2
    assert area == pytest.approx((12 * 20 - 4 * 4) * 9)


def test_regions_are_named_coloured_and_unapproved(tmp_path: Path) -> None:
    state = only(on_ct(tmp_path), tmp_path)
    assert [item.ROIName for item in state.StructureSetROISequence] == [
        "Left lung one",
        "Left lung two",
    ]
    assert {item.ROIGenerationAlgorithm for item in state.StructureSetROISequence} == {"AUTOMATIC"}
    assert [list(item.ROIDisplayColor) for item in state.ROIContourSequence] == [
        [220, 120, 40],
        [30, 90, 200],
    ]
    codes = [
        item.RTROIIdentificationCodeSequence[0].CodeValue
        for item in state.RTROIObservationsSequence
    ]
    assert codes == ["39607008", "39607008"]
    assert state.ApprovalStatus == "UNAPPROVED"
    assert state.StructureSetLabel == "AI UNVERIFIED"


@pytest.mark.parametrize("name", GEOMETRIES)
def test_every_geometry_comes_back_from_the_patient_to_the_same_mask(
    name: str, tmp_path: Path
) -> None:
    """R41: `save` runs the check, which compares masks."""
    headers = series(tmp_path / "source", **GEOMETRIES[name])
    made = context(headers, analysis(headers))
    first = save(WRITER, made, tmp_path / "first")
    second = save(WRITER, made, tmp_path / "second")
    assert not dciodvfy(first[0])
    assert first[0].read_bytes() == second[0].read_bytes()


def test_frames_of_an_enhanced_image_are_named(tmp_path: Path) -> None:
    state = only(on_enhanced(tmp_path), tmp_path)
    frames = {
        int(contour.ContourImageSequence[0].ReferencedFrameNumber)
        for region in state.ROIContourSequence
        for contour in region.ContourSequence
    }
    assert frames == {2, 3, 4, 5}


def test_only_segments_in_the_patient_are_handled(tmp_path: Path) -> None:
    headers = series(tmp_path / "source")
    assert not WRITER.by_default
    assert WRITER.handles(analysis(headers))
    assert not WRITER.handles(nothing_found(headers))
    assert not WRITER.handles(image_analysis(headers))
    assert not WRITER.handles(refusal())


@pytest.mark.parametrize("name", AWKWARD)
def test_obj_03_awkward_headers_make_valid_structures(name: str, tmp_path: Path) -> None:
    headers = awkward_series(tmp_path / "source", name)
    accepted = (*SOURCES_OWN_FAULTS.get(name, ()), LATERALITY_UNKNOWN)
    for path in save(WRITER, context(headers, analysis(headers)), tmp_path / "out"):
        faults = [line for line in dciodvfy(path) if not any(word in line for word in accepted)]
        assert not faults


def test_structures_agree_with_their_sources(tmp_path: Path) -> None:
    paths = save(WRITER, on_ct(tmp_path), tmp_path / "out")
    assert not dcentvfy([*sorted((tmp_path / "source").iterdir()), *paths])


def test_a_contour_may_be_longer_than_explicit_vr_has_room_for(tmp_path: Path) -> None:
    headers = series(tmp_path / "source", slices=2, rows=200, columns=200)
    comb = np.zeros((2, 200, 200), np.bool_)
    comb[0, 4:196:8] = True
    for column in range(4, 190, 4):
        comb[0, 5:196:8, column] = True
    comb[0, :, 100] = True
    made = context(headers, replace(analysis(headers), findings=(segment("one", comb),)))
    (region,) = only(made, tmp_path).ROIContourSequence
    assert max(len(str(contour["ContourData"].value)) for contour in region.ContourSequence) > 65534


def _move(state: Dataset) -> None:
    contour = state.ROIContourSequence[0].ContourSequence[0]
    contour.ContourData = [str(float(value) + 3) for value in contour.ContourData]


def _rename(state: Dataset) -> None:
    state.StructureSetROISequence[0].ROIName = "Heart"


def _refer(state: Dataset) -> None:
    state.ReferencedFrameOfReferenceSequence[0].FrameOfReferenceUID = "1.2.3"


@pytest.mark.parametrize(
    ("damage", "fault"), [(_move, "contours"), (_rename, "regions"), (_refer, "other images")]
)
def test_obj_22_structures_that_differ_are_found_out(
    damage: Callable[[Dataset], None], fault: str, tmp_path: Path
) -> None:
    made = on_ct(tmp_path)
    (path,) = save(WRITER, made, tmp_path / "out")
    state = pydicom.dcmread(path)
    damage(state)
    state.save_as(path)
    with pytest.raises(ResultError, match=fault):
        WRITER.check(path, made)
