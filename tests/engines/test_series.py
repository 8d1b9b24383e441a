from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Unpack

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import UID

from engines.images import InstanceFile
from engines.refusals import Reason, SeriesRefusedError
from engines.series import read_volume
from tests.factories import (
    AXIAL,
    CORONAL,
    INTERCEPT,
    SAGITTAL,
    CtOptions,
    instance_files,
    make_ct_series,
    make_enhanced_ct,
    uid,
)

OBLIQUE = (0.8, 0.6, 0.0, 0.0, 0.0, -1.0)
Change = Callable[[Dataset, int], None]


def small(folder: Path, **options: Unpack[CtOptions]) -> list[InstanceFile]:
    """Write a small series."""
    chosen: CtOptions = {"slices": 6, "rows": 16, "columns": 20, **options}
    return instance_files(make_ct_series(folder, **chosen))


def refusal(instances: list[InstanceFile], **limits: int) -> SeriesRefusedError:
    with pytest.raises(SeriesRefusedError) as caught:
        read_volume(instances, **limits)
    return caught.value


@pytest.mark.parametrize("orientation", [AXIAL, CORONAL, SAGITTAL, OBLIQUE])
def test_slices_are_put_in_order_whatever_their_order_names_and_numbers(
    tmp_path: Path, orientation: tuple[float, ...]
) -> None:
    """GEO-01: by position along the normal, on four planes."""

    def mislead(dataset: Dataset, index: int) -> None:
        dataset.InstanceNumber = 100 - index
        dataset.SliceLocation = str(-index)

    files = small(tmp_path, orientation=orientation, modify=mislead)
    shuffled = files.copy()
    random.Random(5).shuffle(shuffled)  # noqa: S311 - a test order, no secret
    volume = read_volume(shuffled)
    assert [s.sop_instance_uid for s in volume.sources] == [f.sop_instance_uid for f in files]
    for plane, file in zip(volume.voxels, files, strict=True):
        dataset = dcmread(file.path)
        expected = dataset.pixel_array + int(dataset.RescaleIntercept)
        assert np.array_equal(plane, expected)
    along = np.array(volume.grid.positions) @ np.array(volume.grid.normal)
    assert np.allclose(np.diff(along), 5.0)


def test_the_grid_says_where_voxels_lie(tmp_path: Path) -> None:
    volume = read_volume(small(tmp_path, spacing=(4.0, 2.0, 3.0), slice_thickness=6.0))
    grid = volume.grid
    assert grid.shape == volume.voxels.shape == volume.valid.shape == (6, 16, 20)
    assert grid.spacing == pytest.approx((4.0, 2.0, 3.0))
    assert grid.slice_thickness == 6.0
    assert grid.positions[0] == pytest.approx((-28.5, -15.0, -10.0))
    assert grid.voxel_volume_ml == pytest.approx(0.024)
    assert volume.unit == "HU"
    assert volume.voxels.dtype == np.int16


def test_a_single_slice_has_no_spacing_but_a_thickness(tmp_path: Path) -> None:
    grid = read_volume(small(tmp_path, slices=1)).grid
    assert grid.spacing[0] is None
    assert grid.voxel_volume_ml is None
    assert grid.slice_thickness == 5.0


def test_a_slice_without_thickness_is_read(tmp_path: Path) -> None:
    assert read_volume(small(tmp_path, slices=1, slice_thickness=None)).grid.slice_thickness is None


def test_the_same_instance_given_twice_counts_once(tmp_path: Path) -> None:
    """GEO-05: one SOP Instance UID."""
    files = small(tmp_path)
    assert read_volume([*files, *files]).voxels.shape[0] == 6


def test_missing_slices_are_refused_with_their_number(tmp_path: Path) -> None:
    """GEO-04."""
    refused = refusal(small(tmp_path, slices=9, missing=(4, 5)))
    assert refused.reason is Reason.MISSING_SLICES
    assert refused.detail.startswith("2 slices missing in 1 gaps")


def test_gantry_tilt_is_refused_with_its_angle(tmp_path: Path) -> None:
    """GEO-03."""
    refused = refusal(small(tmp_path, tilt_degrees=18.5))
    assert refused.reason is Reason.TILTED
    assert "18.5 degrees" in refused.detail


def _at(index: int, change: Callable[[Dataset], None]) -> Change:
    def modify(dataset: Dataset, at: int) -> None:
        if at == index:
            change(dataset)

    return modify


def _set(name: str, value: object) -> Callable[[Dataset], None]:
    return lambda dataset: setattr(dataset, name, value)


def _drop(name: str) -> Callable[[Dataset], None]:
    return lambda dataset: delattr(dataset, name)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_set("ImageOrientationPatient", [1, 0, 0, 0, 0, -1]), Reason.MIXED_ORIENTATION),
        (_set("ImageOrientationPatient", [1, 0, 0, 1, 0, 0]), Reason.INVALID_GEOMETRY),
        (_set("ImageOrientationPatient", [1, 0, 0, 0, "nan", 0]), Reason.INVALID_GEOMETRY),
        (_set("ImagePositionPatient", [0, 0]), Reason.INVALID_GEOMETRY),
        (_set("ImagePositionPatient", [0, 0, "1e999"]), Reason.INVALID_GEOMETRY),
        (_set("PixelSpacing", [3, 2.5]), Reason.MIXED_SPACING),
        (_set("PixelSpacing", [0, 3]), Reason.INVALID_GEOMETRY),
        (_set("PixelSpacing", [-3, 3]), Reason.INVALID_GEOMETRY),
        (_set("RescaleSlope", "0"), Reason.INVALID_RESCALE),
        (_set("RescaleSlope", "inf"), Reason.INVALID_RESCALE),
        (_set("RescaleIntercept", "nan"), Reason.INVALID_RESCALE),
        (_set("FrameOfReferenceUID", "1.2.3"), Reason.MIXED_FRAME_OF_REFERENCE),
        (_set("SeriesInstanceUID", "1.2.3"), Reason.SEVERAL_SERIES),
        (_set("EchoTime", "12.5"), Reason.SEVERAL_VOLUMES),
        (_set("TemporalPositionIdentifier", 2), Reason.SEVERAL_VOLUMES),
        (_set("DiffusionBValue", 1000.0), Reason.SEVERAL_VOLUMES),
        (_set("ConvolutionKernel", "B70f"), Reason.SEVERAL_VOLUMES),
        (_set("ImageType", ["DERIVED", "SECONDARY", "AXIAL"]), Reason.SEVERAL_VOLUMES),
        (_drop("ImagePositionPatient"), Reason.MISSING_GEOMETRY),
        (_drop("ImageOrientationPatient"), Reason.MISSING_GEOMETRY),
        (_drop("PixelSpacing"), Reason.MISSING_GEOMETRY),
        (_drop("FrameOfReferenceUID"), Reason.MISSING_GEOMETRY),
        (_drop("PixelData"), Reason.NO_PIXELS),
        (_drop("Rows"), Reason.NO_PIXELS),
        (_set("SamplesPerPixel", 3), Reason.PIXEL_FORMAT),
        (_set("PhotometricInterpretation", "PALETTE COLOR"), Reason.PIXEL_FORMAT),
        (_set("BitsAllocated", 12), Reason.PIXEL_FORMAT),
        (_set("HighBit", 20), Reason.PIXEL_FORMAT),
        (_set("NumberOfFrames", 2), Reason.MISSING_GEOMETRY),
    ],
)
@pytest.mark.filterwarnings("ignore:Invalid value for VR:UserWarning")
def test_one_wrong_image_makes_the_series_refused(
    tmp_path: Path, change: Callable[[Dataset], None], reason: Reason
) -> None:
    """GEO-08, GEO-13: what differs, and directions that are none."""
    assert refusal(small(tmp_path, modify=_at(2, change))).reason is reason


def test_images_of_different_size_are_refused(tmp_path: Path) -> None:
    def crop(dataset: Dataset) -> None:
        dataset.PixelData = dataset.pixel_array[:8].tobytes()
        dataset.Rows = 8

    assert refusal(small(tmp_path, modify=_at(1, crop))).reason is Reason.MIXED_MATRIX


def test_two_phases_in_one_series_are_refused_and_the_difference_is_named(tmp_path: Path) -> None:
    """GEO-08."""

    def late(dataset: Dataset, index: int) -> None:
        dataset.AcquisitionNumber = 2
        dataset.SOPInstanceUID = uid("late", index)
        dataset.file_meta.MediaStorageSOPInstanceUID = UID(dataset.SOPInstanceUID)

    early = small(tmp_path / "early")
    refused = refusal(early + small(tmp_path / "late", modify=late))
    assert refused.reason is Reason.SEVERAL_VOLUMES
    assert "AcquisitionNumber (2 values)" in refused.detail


def test_two_images_at_one_position_without_a_difference_are_refused(tmp_path: Path) -> None:
    """GEO-05: two SOP Instance UIDs."""

    def other(dataset: Dataset, index: int) -> None:
        dataset.SOPInstanceUID = uid("other", index)
        dataset.file_meta.MediaStorageSOPInstanceUID = UID(dataset.SOPInstanceUID)

    both = small(tmp_path / "one") + small(tmp_path / "two", modify=other)
    assert refusal(both).reason is Reason.DUPLICATE_POSITION


def test_acquisitions_that_follow_each_other_are_one_volume(tmp_path: Path) -> None:
    def step(dataset: Dataset, index: int) -> None:
        dataset.AcquisitionNumber = index // 2 + 1

    assert read_volume(small(tmp_path, modify=step)).grid.regular


def test_a_localizer_among_slices_is_left_out_and_said_to_be(tmp_path: Path) -> None:
    """GEO-09."""

    def localize(dataset: Dataset) -> None:
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
        dataset.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
        dataset.PixelSpacing = [1, 1]

    volume = read_volume(small(tmp_path, modify=_at(0, localize)))
    assert volume.grid.shape[0] == 5
    assert volume.notes == ("1 localizer images of the series were left out.",)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_set("ImageType", ["ORIGINAL", "PRIMARY", "LOCALIZER"]), Reason.ONLY_LOCALIZERS),
        (_set("ImageType", ["DERIVED", "SECONDARY", "SCREEN SAVE"]), Reason.ONLY_SECONDARY),
        (_set("BurnedInAnnotation", "YES"), Reason.ONLY_SECONDARY),
    ],
)
def test_a_series_without_slices_is_refused(
    tmp_path: Path, change: Callable[[Dataset], None], reason: Reason
) -> None:
    """GEO-09, PIX-12: nothing but localizers, screen saves, or text burned in."""
    assert refusal(small(tmp_path, modify=lambda d, _: change(d))).reason is reason


def test_secondary_captures_are_told_by_their_sop_class(tmp_path: Path) -> None:
    """GEO-09."""
    (file,) = small(tmp_path, slices=1)
    capture = InstanceFile(
        path=file.path,
        sop_instance_uid=file.sop_instance_uid,
        sop_class_uid="1.2.840.10008.5.1.4.1.1.7.2",
    )
    assert refusal([capture]).reason is Reason.ONLY_SECONDARY


def test_no_image_at_all_is_refused() -> None:
    assert refusal([]).reason is Reason.EMPTY


def test_a_file_that_is_no_dicom_is_refused_without_its_words(tmp_path: Path) -> None:
    path = tmp_path / "letter.dcm"
    path.write_bytes(b"Dear Mr Miller, " * 100)
    refused = refusal([InstanceFile(path=path, sop_instance_uid="1.2", sop_class_uid="1.3")])
    assert refused.reason is Reason.UNREADABLE
    assert "Miller" not in refused.detail


def test_values_of_a_data_set_reach_neither_terminal_nor_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    files = small(tmp_path)
    data = files[0].path.read_bytes()
    files[0].path.write_bytes(
        data.replace(b"\\PRIMARY\\", b"\\Miller:\\").replace(b"B30f", b"Mi^l")
    )
    refusal(files)
    assert "Mi" not in caplog.text
    assert "Mi" not in "".join(capfd.readouterr())


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    files = small(tmp_path)
    data = files[3].path.read_bytes()
    files[3].path.write_bytes(data[:-200])
    assert refusal(files).reason in {Reason.PIXELS_TOO_SHORT, Reason.UNREADABLE}


def test_a_series_over_the_byte_limit_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    files = small(tmp_path, rows=512, columns=512, slices=6)
    refused = refusal(files, byte_limit=2 << 20)
    assert refused.reason is Reason.TOO_LARGE


# ------------------------------------------------------------------ Enhanced multi-frame


def enhanced(path: Path, **options: Unpack[CtOptions]) -> list[InstanceFile]:
    chosen: CtOptions = {"slices": 6, "rows": 16, "columns": 20, **options}
    return instance_files([make_enhanced_ct(path, **chosen)])


def test_an_enhanced_image_gives_the_same_volume_as_the_classic_series(tmp_path: Path) -> None:
    """GEO-10: frames lie in the file from top to bottom, and count from 1."""
    classic = read_volume(small(tmp_path / "classic"))
    volume = read_volume(enhanced(tmp_path / "enhanced.dcm"))
    assert np.array_equal(volume.voxels, classic.voxels)
    assert np.allclose(volume.grid.positions, classic.grid.positions)
    assert volume.grid.spacing == pytest.approx(classic.grid.spacing)
    assert volume.unit == "HU"
    assert [source.frame for source in volume.sources] == [6, 5, 4, 3, 2, 1]


def _shared(name: str, attribute: str, value: object) -> Change:
    def modify(dataset: Dataset, _frames: int) -> None:
        setattr(getattr(dataset.SharedFunctionalGroupsSequence[0], name)[0], attribute, value)

    return modify


def test_attributes_of_a_frame_come_before_the_shared_ones(tmp_path: Path) -> None:
    """GEO-10, PIX-02: a rescale of its own."""

    def own_rescale(dataset: Dataset, _frames: int) -> None:
        item = Dataset()
        item.RescaleSlope, item.RescaleIntercept, item.RescaleType = "2", "0", "HU"
        dataset.PerFrameFunctionalGroupsSequence[0].PixelValueTransformationSequence = [item]

    plain = read_volume(enhanced(tmp_path / "plain.dcm")).voxels
    voxels = read_volume(enhanced(tmp_path / "own.dcm", modify=own_rescale)).voxels
    assert np.array_equal(voxels[:-1], plain[:-1])
    assert np.array_equal(voxels[-1], (plain[-1].astype(int) - INTERCEPT) * 2)


@pytest.mark.parametrize(
    ("modify", "reason"),
    [
        (_shared("PixelMeasuresSequence", "PixelSpacing", [0, 3]), Reason.INVALID_GEOMETRY),
        (
            _shared("PlaneOrientationSequence", "ImageOrientationPatient", [1, 0, 0, 1, 0, 0]),
            Reason.INVALID_GEOMETRY,
        ),
    ],
)
def test_wrong_shared_groups_are_refused(tmp_path: Path, modify: Change, reason: Reason) -> None:
    assert refusal(enhanced(tmp_path / "e.dcm", modify=modify)).reason is reason


def test_a_frame_without_its_groups_is_refused(tmp_path: Path) -> None:
    def cut(dataset: Dataset, _frames: int) -> None:
        del dataset.PerFrameFunctionalGroupsSequence[-1]

    assert refusal(enhanced(tmp_path / "e.dcm", modify=cut)).reason is Reason.INCOMPLETE


def test_two_stacks_in_one_image_are_refused(tmp_path: Path) -> None:
    """GEO-10: by StackID."""

    def second(dataset: Dataset, _frames: int) -> None:
        dataset.PerFrameFunctionalGroupsSequence[0].FrameContentSequence[0].StackID = "2"

    refused = refusal(enhanced(tmp_path / "e.dcm", modify=second))
    assert refused.reason is Reason.SEVERAL_VOLUMES
    assert "StackID (2 values)" in refused.detail


def test_a_part_of_a_concatenation_is_refused(tmp_path: Path) -> None:
    """GEO-11."""

    def part(dataset: Dataset, _frames: int) -> None:
        dataset.ConcatenationUID = "1.2.3"
        dataset.InConcatenationNumber, dataset.InConcatenationTotalNumber = 1, 3

    assert refusal(enhanced(tmp_path / "e.dcm", modify=part)).reason is Reason.INCOMPLETE


def test_a_missing_frame_is_refused(tmp_path: Path) -> None:
    refused = refusal(enhanced(tmp_path / "e.dcm", missing=(3,)))
    assert refused.reason is Reason.MISSING_SLICES


def test_enhanced_pixel_data_shorter_than_its_frames_is_refused(tmp_path: Path) -> None:
    def shorten(dataset: Dataset, _frames: int) -> None:
        dataset.PixelData = dataset.PixelData[: -16 * 20 * 2]

    refused = refusal(enhanced(tmp_path / "e.dcm", modify=shorten))
    assert refused.reason is Reason.PIXELS_TOO_SHORT
