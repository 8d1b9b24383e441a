from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from engines.headers import read_headers
from engines.presentation import Picture, displayed, presented
from engines.refusals import SeriesRefusedError
from tests.factories import instance_files, make_enhanced_ct
from tests.radiographs import make_radiograph
from tests.slides import make_slide

LIMIT = 1 << 26
RAMP = np.linspace(0, 4095, 240).round()


def shown(folder: Path, modify: Callable[[Dataset], None] = lambda _: None) -> Picture:
    (file,) = instance_files([make_radiograph(folder / "image.dcm", modify=modify)])
    (frame,) = read_headers(file, byte_limit=LIMIT)
    return presented(frame, byte_limit=LIMIT)


def windowed(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """From 1000 to 3000 in 255 steps (PS3.3 C.11.2.1.2.1)."""
    return np.clip((values - 1000) / 2000, 0, 1) * 255


def test_the_window_of_the_image_makes_black_and_white(tmp_path: Path) -> None:
    picture = shown(tmp_path)
    assert picture.shape == (256, 240)
    assert picture.dtype == np.float32
    assert picture[0] == pytest.approx(windowed(RAMP), abs=0.1)
    assert (picture == picture[0]).all()


def test_rescaled_values_are_windowed_not_stored_ones(tmp_path: Path) -> None:
    """PIX-02."""

    def halved(dataset: Dataset) -> None:
        dataset.RescaleSlope, dataset.RescaleIntercept = 0.5, 900

    assert shown(tmp_path, halved)[0] == pytest.approx(windowed(RAMP / 2 + 900), abs=0.1)


def test_signed_values_are_windowed(tmp_path: Path) -> None:
    def signed(dataset: Dataset) -> None:
        dataset.PixelRepresentation = 1
        dataset.WindowCenter = 0.5
        ramp = np.linspace(-2048, 2047, 240).round().astype("<i2")
        dataset.PixelData = np.tile(ramp, (256, 1)).tobytes()

    ramp = np.linspace(-2048, 2047, 240).round()
    assert shown(tmp_path, signed)[0] == pytest.approx(windowed(ramp + 2000), abs=0.1)


def test_monochrome1_is_inverted(tmp_path: Path) -> None:
    """PIX-01: for engines that look at displayed images."""

    def inverted(dataset: Dataset) -> None:
        dataset.PhotometricInterpretation = "MONOCHROME1"

    assert shown(tmp_path, inverted)[0] == pytest.approx(255 - windowed(RAMP), abs=0.1)


def test_a_voi_lut_goes_before_a_window(tmp_path: Path) -> None:
    """PIX-03."""

    def with_table(dataset: Dataset) -> None:
        table = Dataset()
        table.add_new("LUTDescriptor", "US", [4096, 0, 12])
        table.add_new("LUTData", "OW", (np.arange(4096) // 2).astype("<u2").tobytes())
        dataset.VOILUTSequence = Sequence([table])

    assert shown(tmp_path, with_table)[0] == pytest.approx((RAMP // 2) * 255 / 4095, abs=0.1)


@pytest.mark.parametrize(
    ("function", "wanted"),
    [
        ("LINEAR_EXACT", np.clip((RAMP - 2000) / 1000 + 0.5, 0, 1) * 255),
        ("SIGMOID", 255 / (1 + np.exp(-4 * (RAMP - 2000) / 1000))),
    ],
)
def test_the_first_window_is_applied_as_its_function_says(
    function: str, wanted: npt.NDArray[np.float64], tmp_path: Path
) -> None:
    """PIX-03 (PS3.3 C.11.2.1.3)."""

    def windows(dataset: Dataset) -> None:
        dataset.WindowCenter, dataset.WindowWidth = ["2000", "500"], ["1000", "100"]
        dataset.VOILUTFunction = function

    assert shown(tmp_path, windows)[0] == pytest.approx(wanted, abs=0.5)


def test_without_any_the_lowest_is_black_and_the_highest_white(tmp_path: Path) -> None:
    """PIX-03: as images for processing come."""

    def bare(dataset: Dataset) -> None:
        del dataset.WindowCenter, dataset.WindowWidth

    assert shown(tmp_path, bare)[0] == pytest.approx(RAMP / 4095 * 255, abs=0.1)


def test_padding_is_black(tmp_path: Path) -> None:
    """PIX-04."""

    def padded(dataset: Dataset) -> None:
        dataset.add_new("PixelPaddingValue", "US", 4095)

    assert shown(tmp_path, padded)[0, -1] == 0


@pytest.mark.parametrize(
    ("keyword", "value"),
    [("WindowWidth", "0"), ("VOILUTFunction", "CUBIC"), ("SamplesPerPixel", 3)],
)
def test_what_cannot_be_shown_is_refused(keyword: str, value: str | int, tmp_path: Path) -> None:
    def spoiled(dataset: Dataset) -> None:
        setattr(dataset, keyword, value)

    with pytest.raises(SeriesRefusedError):
        shown(tmp_path, spoiled)


def displayed_file(
    path: Path, frame: int | None = None, *, byte_limit: int = LIMIT
) -> npt.NDArray[np.uint8]:
    (file,) = instance_files([path])
    return displayed(file, frame, byte_limit=byte_limit)


def test_a_radiograph_is_displayed_in_grey_as_an_engine_is_shown_it(tmp_path: Path) -> None:
    found = displayed_file(make_radiograph(tmp_path / "image.dcm"))
    wanted = shown(tmp_path / "again")
    assert found.shape == (256, 240, 3)
    assert np.abs(found - wanted[..., np.newaxis]).max() <= 0.5


def test_monochrome1_is_displayed_in_display_polarity(tmp_path: Path) -> None:
    """PIX-01."""

    def inverted(dataset: Dataset) -> None:
        dataset.PhotometricInterpretation = "MONOCHROME1"

    found = displayed_file(make_radiograph(tmp_path / "image.dcm", modify=inverted))
    assert found[0, 0].tolist() == [255, 255, 255]
    assert found[0, -1].tolist() == [0, 0, 0]


def test_a_frame_of_an_enhanced_image_is_displayed_by_its_own_groups(tmp_path: Path) -> None:
    def windowed_by_frame(dataset: Dataset, _: int) -> None:
        for number, groups in enumerate(dataset.PerFrameFunctionalGroupsSequence):
            window = Dataset()
            window.WindowCenter, window.WindowWidth = 40, 400 if number else 4000
            groups.FrameVOILUTSequence = [window]

    path = make_enhanced_ct(
        tmp_path / "enhanced.dcm", slices=2, rows=32, columns=32, modify=windowed_by_frame
    )
    wide, narrow = displayed_file(path, 1), displayed_file(path, 2)
    assert 55 < wide[0, 0, 0] < 70  # air at -1000 HU, black at -1960
    assert narrow[0, 0, 0] == 0


def test_a_window_that_is_none_is_passed_over(tmp_path: Path) -> None:
    def without_width(dataset: Dataset) -> None:
        dataset.WindowWidth = 0

    found = displayed_file(make_radiograph(tmp_path / "image.dcm", modify=without_width))
    assert found[0, 0, 0] == 0
    assert found[0, -1, 0] == 255


def colour_cine(dataset: Dataset) -> None:
    """Three frames of one colour each, as ultrasound sends them (PIX-06, PIX-09)."""
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 3, "RGB"
    dataset.PlanarConfiguration, dataset.NumberOfFrames = 0, 3
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    pixels = np.zeros((3, dataset.Rows, dataset.Columns, 3), np.uint8)
    for index in range(3):
        pixels[index, ..., index] = 200
    dataset.PixelData = pixels.tobytes()


def test_a_frame_of_a_colour_cine_keeps_its_colours(tmp_path: Path) -> None:
    """PIX-06, PIX-09."""
    path = make_radiograph(tmp_path / "cine.dcm", modify=colour_cine)
    for number in (1, 2, 3):
        found = displayed_file(path, number)
        wanted = [0, 0, 0]
        wanted[number - 1] = 200
        assert found.shape == (256, 240, 3)
        assert (found == wanted).all()


def test_palette_colours_are_looked_up(tmp_path: Path) -> None:
    """PIX-06."""

    def palette(dataset: Dataset) -> None:
        dataset.PhotometricInterpretation = "PALETTE COLOR"
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
        for element, top in ((1, 65280), (2, 0), (3, 32768)):
            dataset.add_new((0x0028, 0x1100 + element), "US", [256, 0, 16])
            table = np.linspace(0, top, 256).astype("<u2").tobytes()
            dataset.add_new((0x0028, 0x1200 + element), "OW", table)
        dataset.PixelData = bytes([255]) * (dataset.Rows * dataset.Columns)

    found = displayed_file(make_radiograph(tmp_path / "image.dcm", modify=palette))
    assert (found == [255, 0, 128]).all()


def test_a_slide_is_displayed_whole(tmp_path: Path) -> None:
    found = displayed_file(make_slide(tmp_path / "slide.dcm"))
    assert found.shape == (100, 130, 3)
    assert found[50, 60].tolist() != found[0, 0].tolist()


def test_a_frame_that_is_not_there_or_too_large_is_not_displayed(tmp_path: Path) -> None:
    path = make_radiograph(tmp_path / "cine.dcm", modify=colour_cine)
    with pytest.raises(SeriesRefusedError, match="no frame 4"):
        displayed_file(path, 4)
    with pytest.raises(SeriesRefusedError, match="TOO_LARGE"):
        displayed_file(path, 1, byte_limit=1 << 18)


def test_damaged_pixels_are_not_displayed(tmp_path: Path) -> None:
    def short(dataset: Dataset) -> None:
        colour_cine(dataset)
        dataset.PixelData = dataset.PixelData[:1000]

    with pytest.raises(SeriesRefusedError, match="PIXELS_DAMAGED"):
        displayed_file(make_radiograph(tmp_path / "cine.dcm", modify=short), 3)
