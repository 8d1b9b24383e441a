from __future__ import annotations

import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from engines.headers import PixelFormat
from engines.images import InstanceFile, Volume
from engines.pixels import stored_values
from engines.refusals import Reason, SeriesRefusedError
from engines.series import read_volume
from tests.factories import instance_files, make_ct_series


def one_slice(folder: Path) -> Path:
    (path,) = make_ct_series(folder, slices=1, rows=32, columns=48, noise=20)
    return path


def read_one(path: Path) -> Volume:
    return read_volume(instance_files([path]))


def refusal(path: Path, byte_limit: int = 1 << 30) -> SeriesRefusedError:
    with pytest.raises(SeriesRefusedError) as caught:
        read_volume(instance_files([path]), byte_limit=byte_limit)
    return caught.value


def pixel_format(**values: object) -> PixelFormat:
    usual: dict[str, object] = {
        "rows": 1,
        "columns": 4,
        "frames": 1,
        "samples": 1,
        "photometric": "MONOCHROME2",
        "bits_allocated": 16,
        "bits_stored": 12,
        "high_bit": 11,
        "signed": False,
        "padding": None,
        "transfer_syntax_uid": "1.2.840.10008.1.2.1",
    }
    return PixelFormat(**{**usual, **values})  # type: ignore[arg-type]


@given(
    st.integers(1, 16).flatmap(
        lambda stored: st.tuples(st.just(stored), st.integers(stored - 1, 15))
    ),
    st.booleans(),
    st.integers(0, 0xFFFF),
    st.integers(0, 0xFFFF),
)
def test_bits_stored_come_back_whatever_lies_in_the_other_bits(
    bits: tuple[int, int], signed: bool, value: int, noise: int
) -> None:
    """PIX-05."""
    stored, high = bits
    pattern = value & ((1 << stored) - 1)
    mask = ((1 << stored) - 1) << (high + 1 - stored)
    word = (pattern << (high + 1 - stored)) | (noise & ~mask & 0xFFFF)
    expected = pattern - (1 << stored) if signed and pattern >> (stored - 1) else pattern
    form = pixel_format(bits_stored=stored, high_bit=high, signed=signed, columns=1)
    assert stored_values(np.array([[word]], np.uint16), form).item() == expected


def test_a_series_in_spare_bits_and_another_high_bit_reads_as_the_plain_one(tmp_path: Path) -> None:
    """PIX-05."""
    path = one_slice(tmp_path)
    expected = read_one(path).voxels
    dataset = dcmread(path)
    values = dataset.pixel_array.astype(np.uint16)
    dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 12, 15, 0
    dataset.PixelData = (values << 4 | 0b0101).astype("<u2").tobytes()
    dataset.save_as(path)
    assert np.array_equal(read_one(path).voxels, expected)


@pytest.mark.parametrize(
    "syntax",
    [
        ImplicitVRLittleEndian,
        DeflatedExplicitVRLittleEndian,
        RLELossless,
        JPEG2000Lossless,
        JPEGLSLossless,
    ],
)
def test_every_lossless_transfer_syntax_gives_the_same_volume(tmp_path: Path, syntax: UID) -> None:
    path = one_slice(tmp_path)
    expected = read_one(path)
    dataset = dcmread(path)
    if syntax.is_encapsulated:
        dataset.compress(syntax, generate_instance_uid=False)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(path, implicit_vr=syntax.is_implicit_VR, little_endian=True)
    volume = read_one(path)
    assert np.array_equal(volume.voxels, expected.voxels)
    assert volume.grid == expected.grid


def test_big_endian_words_are_swapped() -> None:
    little = read_one(Path(str(get_testdata_file("MR_small.dcm"))))
    big = read_one(Path(str(get_testdata_file("MR_small_bigendian.dcm"))))
    assert np.array_equal(big.voxels, little.voxels)
    assert little.voxels.max() > 1000
    assert little.unit == ""


def test_padding_is_found_before_rescaling(tmp_path: Path) -> None:
    """PIX-04."""
    path = one_slice(tmp_path)
    dataset = dcmread(path)
    values = dataset.pixel_array.copy()
    values[:3] = -2000
    values[3] = -1990
    dataset.PixelData = values.tobytes()
    dataset.add_new("PixelPaddingValue", "SS", -2000)
    dataset.add_new("PixelPaddingRangeLimit", "SS", -1990)
    dataset.save_as(path)
    valid = read_one(path).valid[0]
    assert not valid[:4].any()
    assert valid[4:].all()


def test_padding_of_the_wrong_sign_is_understood(tmp_path: Path) -> None:
    """PIX-04."""
    path = one_slice(tmp_path)
    dataset = dcmread(path)
    values = dataset.pixel_array.copy()
    values[:3] = -2000
    dataset.PixelData = values.tobytes()
    dataset.add_new("PixelPaddingValue", "US", 65536 - 2000)
    dataset.save_as(path)
    assert np.count_nonzero(~read_one(path).valid) == 3 * 48


def test_slope_and_intercept_are_those_of_each_slice(tmp_path: Path) -> None:
    """PIX-02: as in PET."""

    def rescale(dataset: Dataset, index: int) -> None:
        dataset.RescaleSlope, dataset.RescaleIntercept = str(0.5 + index), str(-10.25 * index)

    files = make_ct_series(tmp_path, slices=4, rows=8, columns=8, modify=rescale)
    volume = read_volume(instance_files(files))
    assert volume.voxels.dtype == np.float32
    for index, path in enumerate(files):
        stored = dcmread(path).pixel_array
        assert np.allclose(volume.voxels[index], stored * (0.5 + index) - 10.25 * index)


def test_monochrome1_is_not_inverted(tmp_path: Path) -> None:
    """PIX-01: values of a volume are what was measured."""
    path = one_slice(tmp_path)
    expected = read_one(path).voxels
    dataset = dcmread(path)
    dataset.PhotometricInterpretation = "MONOCHROME1"
    dataset.save_as(path)
    assert np.array_equal(read_one(path).voxels, expected)


def test_values_that_int16_cannot_hold_are_not_wrapped(tmp_path: Path) -> None:
    path = one_slice(tmp_path)
    dataset = dcmread(path)
    dataset.PixelRepresentation = 0
    dataset.PixelData = np.full((32, 48), 65535, "<u2").tobytes()
    dataset.save_as(path)
    assert read_one(path).voxels.max() == 32767


def test_values_below_int16_are_not_wrapped(tmp_path: Path) -> None:
    path = one_slice(tmp_path)
    dataset = dcmread(path)
    dataset.PixelData = np.full((32, 48), -32768, "<i2").tobytes()
    dataset.save_as(path)
    assert (read_one(path).voxels == -32768).all()


def test_a_frame_that_claims_another_size_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    """T18: dimensions of a codestream."""
    path = one_slice(tmp_path)
    dataset = dcmread(path)
    dataset.compress(JPEG2000Lossless, generate_instance_uid=False)
    frame = bytearray(dataset.PixelData)
    at = frame.index(b"\xff\x4f\xff\x51")
    struct.pack_into(">2I", frame, at + 8, 60000, 60000)
    dataset.PixelData = bytes(frame)
    dataset.save_as(path)
    refused = refusal(path)
    assert refused.reason is Reason.PIXELS_UNREADABLE
    assert "claims 60000 x 60000 pixels" in refused.detail


def test_a_damaged_frame_is_refused(tmp_path: Path) -> None:
    path = one_slice(tmp_path)
    dataset = dcmread(path)
    dataset.file_meta.TransferSyntaxUID = JPEGLSLossless
    dataset.PixelData = encapsulate([b"\xff\xd8\xff\xf7" + bytes(40)])
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(path)
    assert refusal(path).reason is Reason.PIXELS_UNREADABLE


def test_a_transfer_syntax_without_decoder_is_named(tmp_path: Path) -> None:
    path = one_slice(tmp_path)
    dataset = dcmread(path)
    dataset.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.4.55")
    dataset.PixelData = encapsulate([bytes(64)])
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(path)
    refused = refusal(path)
    assert refused.reason is Reason.TRANSFER_SYNTAX
    assert "1.2.840.10008.1.2.4.55" in refused.detail


def test_a_small_rle_file_that_asks_for_gigabytes_is_refused(tmp_path: Path) -> None:
    """T18: dimensions of a header."""
    path = one_slice(tmp_path)
    dataset = dcmread(path)
    dataset.file_meta.TransferSyntaxUID = RLELossless
    dataset.Rows = dataset.Columns = 65535
    dataset.PixelData = encapsulate([bytes(64)])
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(path)
    tracemalloc.start()
    assert refusal(path).reason is Reason.TOO_LARGE
    assert tracemalloc.get_traced_memory()[1] < 16 << 20
    tracemalloc.stop()


def test_a_deflated_bomb_is_refused_without_inflating_it(tmp_path: Path) -> None:
    """T18: a deflated data set, where an engine reads it."""
    path = one_slice(tmp_path)
    dataset = dcmread(path)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.save_as(path)
    head = path.read_bytes()[: 144 + dcmread(path).file_meta.FileMetaInformationGroupLength]
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    element = struct.pack("<HH2sHI", 0x0009, 0x1001, b"OB", 0, 256 << 20)
    body = deflate.compress(element) + deflate.compress(bytes(256 << 20)) + deflate.flush()
    path.write_bytes(head + body)
    assert path.stat().st_size < 1 << 20
    instance = InstanceFile(path=path, sop_instance_uid="1.2.3", sop_class_uid="1.2.4")
    tracemalloc.start()
    with pytest.raises(SeriesRefusedError) as caught:
        read_volume([instance], byte_limit=32 << 20)
    assert caught.value.reason is Reason.TOO_LARGE
    assert tracemalloc.get_traced_memory()[1] < 16 << 20
    tracemalloc.stop()
