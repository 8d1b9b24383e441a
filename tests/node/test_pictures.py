"""Pictures of frames: grey, inverted, coloured, by palette, windowed; as a browser shows them."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from pydantic import JsonValue
from pydicom import dcmread
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset

from node.pictures import picture_operation
from tests.factories import make_ct_series

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # the sandbox hears none


def quiet(_stage: str) -> None:
    return None


def shown(file: Path, **wanted: JsonValue) -> npt.NDArray[np.uint8]:
    answer = picture_operation({"file": {"path": str(file)}, **wanted}, quiet)
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(str(answer["content"])))))


def grey(
    folder: Path, photometric: str = "MONOCHROME2", window: tuple[int, int] | None = None
) -> Path:
    """Write an image whose values are 0 to 255 of a ramp, as they are."""

    def modify(dataset: Dataset, _index: int) -> None:
        dataset.PhotometricInterpretation = photometric
        dataset.RescaleIntercept, dataset.RescaleSlope = 0, 1
        dataset.PixelData = np.arange(256, dtype="<i2").tobytes()
        for key in ("WindowCenter", "WindowWidth"):
            dataset.pop(key, None)
        if window is not None:
            dataset.WindowCenter, dataset.WindowWidth = window

    (file,) = make_ct_series(folder, slices=1, rows=16, columns=16, modify=modify)
    return file


def coloured(folder: Path, photometric: str, values: npt.NDArray[np.generic]) -> Path:
    """Write an image of 2 x 2 pixels with three samples each."""

    def modify(dataset: Dataset, _index: int) -> None:
        dataset.PhotometricInterpretation = photometric
        dataset.SamplesPerPixel, dataset.PlanarConfiguration = 3, 0
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
        dataset.PixelRepresentation = 0
        dataset.Rows = dataset.Columns = 2
        dataset.PixelData = values.astype(np.uint8).tobytes()

    (file,) = make_ct_series(folder, slices=1, rows=2, columns=2, modify=modify)
    return file


def test_without_a_window_the_whole_range_is_shown(tmp_path: Path) -> None:
    assert np.array_equal(shown(grey(tmp_path)).ravel(), np.arange(256))


def test_monochrome1_is_inverted(tmp_path: Path) -> None:
    assert np.array_equal(shown(grey(tmp_path, "MONOCHROME1")).ravel(), 255 - np.arange(256))


def test_the_window_of_the_image_or_the_one_asked_for_counts(tmp_path: Path) -> None:
    """PS3.3 C.11.2.1.2.1: centre less a half, width less one."""
    file = grey(tmp_path, window=(128, 2))
    own = shown(file).ravel()
    assert set(own[:127]) == {0}
    assert set(own[128:]) == {255}
    asked = shown(file, window=[10.5, 21]).ravel()
    assert (asked[0], asked[20], asked[10]) == (0, 255, 127)


RED_GREEN = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [9, 9, 9]]])


def test_colours_are_shown_as_they_are(tmp_path: Path) -> None:
    assert np.array_equal(shown(coloured(tmp_path, "RGB", RED_GREEN)), RED_GREEN)


def test_luminance_and_chrominance_become_colours(tmp_path: Path) -> None:
    """PIX-06."""
    red = np.broadcast_to(np.array([76, 85, 255]), (2, 2, 3))  # PS3.3 C.7.6.3.1.2
    found = shown(coloured(tmp_path, "YBR_FULL", red)).astype(int)
    assert np.abs(found - [255, 0, 0]).max() <= 3


def test_a_palette_is_looked_up(tmp_path: Path) -> None:
    dataset = dcmread(grey(tmp_path))
    dataset.PhotometricInterpretation = "PALETTE COLOR"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.PixelRepresentation = 0
    dataset.PixelData = np.arange(256, dtype=np.uint8).tobytes()
    ramp = np.arange(256, dtype="<u2")
    for name, table in (("Red", ramp), ("Green", ramp[::-1]), ("Blue", ramp * 0)):
        keyword = f"{name}PaletteColorLookupTableDescriptor"
        dataset.add_new(tag_for_keyword(keyword) or 0, "US", [256, 0, 8])
        setattr(dataset, f"{name}PaletteColorLookupTableData", table.astype("u1").tobytes())
    file = tmp_path / "palette.dcm"
    dataset.save_as(file)
    found = shown(file).reshape(256, 3)
    assert found.shape == (256, 3)
    assert np.array_equal(found[:, 0], np.arange(256))
    assert np.array_equal(found[:, 1], np.arange(256)[::-1])


def test_a_picture_is_made_smaller_in_its_proportions(tmp_path: Path) -> None:
    assert shown(grey(tmp_path), size=[8, 4]).shape == (4, 4)
