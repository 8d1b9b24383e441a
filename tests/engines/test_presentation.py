from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from engines.headers import read_headers
from engines.presentation import Picture, presented
from engines.refusals import SeriesRefusedError
from tests.factories import instance_files
from tests.radiographs import make_radiograph

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
    def inverted(dataset: Dataset) -> None:
        dataset.PhotometricInterpretation = "MONOCHROME1"

    assert shown(tmp_path, inverted)[0] == pytest.approx(255 - windowed(RAMP), abs=0.1)


def test_a_voi_lut_goes_before_a_window(tmp_path: Path) -> None:
    def with_table(dataset: Dataset) -> None:
        table = Dataset()
        table.add_new("LUTDescriptor", "US", [4096, 0, 12])
        table.add_new("LUTData", "OW", (np.arange(4096) // 2).astype("<u2").tobytes())
        dataset.VOILUTSequence = Sequence([table])

    assert shown(tmp_path, with_table)[0] == pytest.approx((RAMP // 2) * 255 / 4095, abs=0.1)


def test_without_any_the_lowest_is_black_and_the_highest_white(tmp_path: Path) -> None:
    def bare(dataset: Dataset) -> None:
        del dataset.WindowCenter, dataset.WindowWidth

    assert shown(tmp_path, bare)[0] == pytest.approx(RAMP / 4095 * 255, abs=0.1)


def test_padding_is_black(tmp_path: Path) -> None:
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
