from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pydicom
import pytest
from highdicom.seg import segread
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from scipy.spatial.transform import Rotation

from engines.findings import Analysis
from engines.images import SourceFrame, Vector
from node.interfaces import ResultContext, ResultError
from node.results.segmentation import SegmentationWriter
from tests.factories import AXIAL, CORONAL, SAGITTAL, CtOptions
from tests.node.results.building import (
    LUNG,
    OBLIQUE,
    Headers,
    analysis,
    context,
    grid_of,
    masks,
    multi_frame,
    nothing_found,
    refusal,
    save_all,
    segment,
    series,
)
from tests.node.results.itk import convert, mask_centres, same_points

GEOMETRIES: dict[str, CtOptions] = {
    "axial": {"orientation": AXIAL},
    "sagittal": {"orientation": SAGITTAL},
    "coronal": {"orientation": CORONAL},
    "oblique": {"orientation": OBLIQUE, "centre": (12.3, -45.6, 78.9)},
    "axial, rows turned round": {"orientation": (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0)},
    "axial, from the head": {"orientation": (1.0, 0.0, 0.0, 0.0, -1.0, 0.0)},
    "anisotropic": {"spacing": (7.5, 0.3, 1.1)},
    "130 columns": {"rows": 33, "columns": 130},
    "single slice": {"slices": 1},
    "two slices": {"slices": 2},
}


def write(context: ResultContext, path: Path) -> Dataset:
    (dataset,) = SegmentationWriter().write(context)
    dataset.save_as(path, enforce_file_format=True)
    return dataset


@pytest.fixture
def axial(tmp_path: Path) -> Headers:
    return series(tmp_path / "source")


@pytest.mark.parametrize("overlap", [False, True])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_another_toolkit_finds_every_voxel_where_the_engine_put_it(
    name: str, overlap: bool, tmp_path: Path
) -> None:
    """SEG-02, SEG-12: in any orientation, with 130 columns too."""
    outcome = analysis(series(tmp_path / "source", **GEOMETRIES[name]), overlap=overlap)
    made = context(series(tmp_path / "source", **GEOMETRIES[name]), outcome)
    dataset = write(made, tmp_path / "seg.dcm")
    SegmentationWriter().check(tmp_path / "seg.dcm", made)
    found = convert(tmp_path / "seg.dcm", tmp_path / "itk")
    assert len(found) == 2
    for item, wanted in zip(dataset.SegmentSequence, outcome.findings, strict=True):
        centres = mask_centres(wanted.mask, outcome.grid)
        assert same_points(found[item.TrackingUID], centres)


@settings(max_examples=25, deadline=None)
@given(
    turn=st.tuples(*(st.floats(-3.1, 3.1) for _ in range(3))),
    spacing=st.tuples(*(st.floats(0.1, 10.0) for _ in range(3))),
    centre=st.tuples(*(st.floats(-500.0, 500.0) for _ in range(3))),
)
def test_masks_come_back_from_any_place_and_orientation(
    turn: Vector, spacing: Vector, centre: Vector
) -> None:
    axes = Rotation.from_euler("xyz", turn).as_matrix()
    orientation = (*axes[:, 0].tolist(), *axes[:, 1].tolist())
    with TemporaryDirectory() as name:
        folder = Path(name)
        headers = series(
            folder / "source",
            slices=3,
            rows=9,
            columns=7,
            orientation=orientation,
            spacing=spacing,
            centre=centre,
        )
        made = context(headers, analysis(headers))
        write(made, folder / "seg.dcm")
        SegmentationWriter().check(folder / "seg.dcm", made)


def test_instance_numbers_in_another_order_than_the_slices_change_nothing(tmp_path: Path) -> None:
    def shuffle(dataset: Dataset, index: int) -> None:
        dataset.InstanceNumber = (index * 5 + 3) % 7
        dataset.SliceLocation = -index

    headers = series(tmp_path / "source", modify=shuffle)
    made = context(headers, analysis(headers))
    write(made, tmp_path / "seg.dcm")
    SegmentationWriter().check(tmp_path / "seg.dcm", made)


def test_sheared_and_irregular_stacks_keep_the_places_of_their_images(tmp_path: Path) -> None:
    """SEG-07, SEG-08: and claim no distance of slices that would not hold."""
    for name, options in {
        "tilted": CtOptions(tilt_degrees=15.0),
        "gap": CtOptions(missing=(2,)),
    }.items():
        headers = series(tmp_path / name, **options)
        outcome = analysis(headers)
        outcome = replace(outcome, grid=replace(outcome.grid, regular=False))
        made = context(headers, outcome)
        dataset = write(made, tmp_path / f"{name}.dcm")
        SegmentationWriter().check(tmp_path / f"{name}.dcm", made)
        measures = dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
        assert "SpacingBetweenSlices" not in measures


def test_frames_of_an_enhanced_instance_are_referred_to_by_number(
    axial: Headers, tmp_path: Path
) -> None:
    sources, frames = multi_frame(axial)
    outcome = replace(analysis(axial), sources=frames)
    made = context(sources, outcome)
    dataset = write(made, tmp_path / "seg.dcm")
    SegmentationWriter().check(tmp_path / "seg.dcm", made)
    named = {
        item.ReferencedFrameNumber
        for groups in dataset.PerFrameFunctionalGroupsSequence
        for item in groups.DerivationImageSequence[0].SourceImageSequence
    }
    filled = np.flatnonzero(outcome.findings[0].mask.any(axis=(1, 2)))
    assert named == {frames[index].frame for index in filled}
    (listed,) = dataset.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    assert listed.ReferencedSOPInstanceUID == sources[0].SOPInstanceUID


def test_every_source_instance_is_listed_even_where_nothing_is_drawn(
    axial: Headers, tmp_path: Path
) -> None:
    """OBJ-10, SEG-03."""
    dataset = write(context(axial, analysis(axial)), tmp_path / "seg.dcm")
    listed = dataset.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    assert [i.ReferencedSOPInstanceUID for i in listed] == [h.SOPInstanceUID for h in axial]
    assert dataset.NumberOfFrames == 2 * (len(axial) - 2)


def test_masks_of_a_source_without_thickness_are_as_thick_as_the_slices_are_apart(
    tmp_path: Path,
) -> None:
    headers = series(tmp_path / "source", slice_thickness=None)
    made = context(headers, analysis(headers))
    dataset = write(made, tmp_path / "seg.dcm")
    SegmentationWriter().check(tmp_path / "seg.dcm", made)
    measures = dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert (measures.SliceThickness, measures.SpacingBetweenSlices) == (5.0, 5.0)


def test_a_single_slice_of_unknown_thickness_is_told_in_text_only(tmp_path: Path) -> None:
    headers = series(tmp_path / "source", slices=1, slice_thickness=None)
    paths = save_all(context(headers, analysis(headers)), tmp_path)
    assert set(paths) == {"text_report"}
    report = pydicom.dcmread(paths["text_report"])
    assert report.CompletionFlagDescription == "Not drawn: Left lung one, Left lung two"


def test_segments_carry_code_side_colour_algorithm_and_tracking(
    axial: Headers, tmp_path: Path
) -> None:
    """OBJ-15, OBJ-16, SEG-05, SEG-06, AIR-05, AIR-07."""
    write(context(axial, analysis(axial)), tmp_path / "seg.dcm")
    first = segread(tmp_path / "seg.dcm").SegmentSequence[0]
    region = first.AnatomicRegionSequence[0]
    algorithm = first.SegmentationAlgorithmIdentificationSequence[0]
    assert first.SegmentLabel == "Left lung one"
    assert first.SegmentAlgorithmType == "AUTOMATIC"
    assert first.SegmentedPropertyTypeCodeSequence[0].CodeValue == LUNG.value
    assert region.AnatomicRegionModifierSequence[0].CodeMeaning == "Left"
    assert len(first.RecommendedDisplayCIELabValue) == 3
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("lung-seg", "1.2.0")
    assert algorithm.AlgorithmFamilyCodeSequence[0].CodeValue == "123110"
    assert algorithm.AlgorithmParameters == f"package-sha256={'ab' * 32},threshold=-500"
    assert first.TrackingID == "lung-seg one"


def test_a_side_without_a_region_modifies_the_kind_of_tissue(
    axial: Headers, tmp_path: Path
) -> None:
    outcome = analysis(axial)
    plain = segment("plain", outcome.findings[0].mask, region=None)
    outcome = replace(outcome, findings=(plain,))
    dataset = write(context(axial, outcome), tmp_path / "seg.dcm")
    kind = dataset.SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0]
    assert kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning == "Left"


def test_lossy_sources_make_a_lossy_segmentation(axial: Headers, tmp_path: Path) -> None:
    axial[3].LossyImageCompression = "01"
    axial[3].LossyImageCompressionRatio = "8"
    axial[3].LossyImageCompressionMethod = "ISO_15444_1"
    dataset = write(context(axial, analysis(axial)), tmp_path / "seg.dcm")
    assert (dataset.LossyImageCompression, dataset.LossyImageCompressionRatio) == ("01", 8)


def test_only_an_analysis_with_voxels_has_a_segmentation(axial: Headers) -> None:
    """SEG-04."""
    writer = SegmentationWriter()
    empty = segment("empty", np.zeros(grid_of(axial).shape, dtype=np.bool_))
    assert writer.handles(analysis(axial))
    assert not writer.handles(nothing_found(axial))
    assert not writer.handles(refusal())
    assert not writer.handles(replace(analysis(axial), findings=(empty,)))


def test_a_mask_off_the_grid_is_refused(axial: Headers) -> None:
    """SEG-02."""
    outcome = analysis(axial)
    small = segment("small", outcome.findings[0].mask[:, :-1])
    with pytest.raises(ResultError, match="source grid"):
        SegmentationWriter().write(context(axial, replace(outcome, findings=(small,))))


def test_two_segments_with_one_key_are_refused(axial: Headers) -> None:
    outcome = analysis(axial)
    twice = (outcome.findings[0], outcome.findings[0])
    with pytest.raises(ResultError, match="share a key"):
        SegmentationWriter().write(context(axial, replace(outcome, findings=twice)))


def test_a_grid_of_two_series_is_refused(axial: Headers) -> None:
    """SEG-13."""
    outcome = analysis(axial)
    strange = replace(outcome.sources[0], series_instance_uid="1.2.3")
    outcome = replace(outcome, sources=(strange, *outcome.sources[1:]))
    with pytest.raises(ResultError, match="SEG-13"):
        SegmentationWriter().write(context(axial, outcome))


def test_a_source_whose_header_is_missing_is_named(axial: Headers) -> None:
    with pytest.raises(ResultError, match=str(axial[2].SOPInstanceUID)):
        SegmentationWriter().write(context((*axial[:2], *axial[3:]), analysis(axial)))


def flip_a_voxel(dataset: Dataset) -> None:
    dataset.PixelData = bytes([dataset.PixelData[0] ^ 1]) + dataset.PixelData[1:]


def move_a_frame(dataset: Dataset) -> None:
    frame = dataset.PerFrameFunctionalGroupsSequence[1]
    frame.PlanePositionSequence[0].ImagePositionPatient[2] += 1.0


def swap_two_frames(dataset: Dataset) -> None:
    one, two = dataset.PerFrameFunctionalGroupsSequence[:2]
    here, there = one.PlanePositionSequence, two.PlanePositionSequence
    one.PlanePositionSequence, two.PlanePositionSequence = there, here


def refer_elsewhere(dataset: Dataset) -> None:
    frame = dataset.PerFrameFunctionalGroupsSequence[1]
    source = frame.DerivationImageSequence[0].SourceImageSequence[0]
    source.ReferencedSOPInstanceUID = "1.2.3"


def turn_the_plane(dataset: Dataset) -> None:
    plane = dataset.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0]
    plane.ImageOrientationPatient = [0, 1, 0, 1, 0, 0]


def change_the_scale(dataset: Dataset) -> None:
    measures = dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    measures.PixelSpacing = [1.0, 1.0]


def lose_a_frame(dataset: Dataset) -> None:
    dataset.PerFrameFunctionalGroupsSequence.pop()
    dataset.NumberOfFrames -= 1
    dataset.PixelData = dataset.PixelData[: -(dataset.Rows * dataset.Columns // 8)]


def repeat_a_frame(dataset: Dataset) -> None:
    groups = dataset.PerFrameFunctionalGroupsSequence
    groups.append(groups[-1])
    dataset.NumberOfFrames += 1
    dataset.PixelData += dataset.PixelData[-(dataset.Rows * dataset.Columns // 8) :]


def cut_pixels(dataset: Dataset) -> None:
    dataset.PixelData = dataset.PixelData[:-2]


def lose_a_reference(dataset: Dataset) -> None:
    dataset.ReferencedSeriesSequence[0].ReferencedInstanceSequence.pop()


def swap_the_segments(dataset: Dataset) -> None:
    one, two = dataset.SegmentSequence
    one.TrackingUID, two.TrackingUID = two.TrackingUID, one.TrackingUID


def lose_an_attribute(dataset: Dataset) -> None:
    del dataset.ContentLabel


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (flip_a_voxel, "differs on slice"),
        (move_a_frame, "lies on no slice"),
        (swap_two_frames, "names another source"),
        (refer_elsewhere, "names another source"),
        (turn_the_plane, "orientation"),
        (change_the_scale, "pixel spacing"),
        (lose_a_frame, "are missing"),
        (repeat_a_frame, "two frames"),
        (cut_pixels, "end before its frames do"),
        (lose_a_reference, "OBJ-10"),
        (swap_the_segments, "not the findings"),
        (lose_an_attribute, "ContentLabel"),
    ],
)
def test_the_check_before_sending_catches(
    damage: Callable[[Dataset], None], fault: str, axial: Headers, tmp_path: Path
) -> None:
    """OBJ-10, OBJ-22."""
    made = context(axial, analysis(axial))
    write(made, tmp_path / "seg.dcm")
    dataset = pydicom.dcmread(tmp_path / "seg.dcm")
    damage(dataset)
    dataset.save_as(tmp_path / "seg.dcm")
    with pytest.raises(ResultError, match=fault):
        SegmentationWriter().check(tmp_path / "seg.dcm", made)


def test_the_check_notices_a_grid_that_lies_elsewhere_than_its_images(
    axial: Headers, tmp_path: Path
) -> None:
    outcome: Analysis = analysis(axial)
    moved = tuple((x, y, z + 5.0) for x, y, z in outcome.grid.positions)
    outcome = replace(outcome, grid=replace(outcome.grid, positions=moved))
    made = context(axial, outcome)
    write(made, tmp_path / "seg.dcm")
    with pytest.raises(ResultError, match="where its source image lies"):
        SegmentationWriter().check(tmp_path / "seg.dcm", made)


def test_more_segments_than_a_byte_can_number_are_written(axial: Headers, tmp_path: Path) -> None:
    outcome = analysis(axial)
    findings = []
    for number in range(260):
        mask = np.zeros(outcome.grid.shape, dtype=np.bool_)
        mask[2, number // 40, number % 40] = True
        findings.append(segment(f"n{number}", mask, measurements=()))
    made = context(axial, replace(outcome, findings=tuple(findings)))
    write(made, tmp_path / "seg.dcm")
    SegmentationWriter().check(tmp_path / "seg.dcm", made)


def test_frames_of_several_enhanced_instances_of_a_series_go_into_one_object(
    axial: Headers, tmp_path: Path
) -> None:
    (lower,), low = multi_frame(axial[:3])
    (upper,), high = multi_frame(axial[3:])
    upper.SOPInstanceUID = "1.2.3.4"
    frames: tuple[SourceFrame, ...] = (
        *low,
        *(replace(frame, sop_instance_uid="1.2.3.4") for frame in high),
    )
    made = context((lower, upper), replace(analysis(axial), sources=frames))
    write(made, tmp_path / "seg.dcm")
    SegmentationWriter().check(tmp_path / "seg.dcm", made)


def test_masks_of_the_factory_do_not_overlap() -> None:
    one, two = masks((6, 48, 40))
    assert not (one & two).any()
    assert one.any()
    assert two.any()
