from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.encaps import generate_frames
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

from engines.codestream import claimed_size
from tests.factories import make_ct_series


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless])
def test_a_real_frame_claims_the_size_it_has(
    syntax: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    from pydicom import dcmread

    (path,) = make_ct_series(tmp_path_factory.mktemp("ct"), slices=1, rows=40, columns=56)
    dataset = dcmread(path)
    dataset.compress(syntax)
    (frame,) = generate_frames(dataset.PixelData, number_of_frames=1)
    assert claimed_size(bytes(frame)) == (40, 56)


def test_an_rle_frame_claims_no_size() -> None:
    assert RLELossless.is_encapsulated
    assert claimed_size(struct.pack("<16I", 2, 64, *[0] * 14)) is None


def test_a_jpeg_frame_is_walked_over_other_segments_and_fill_bytes() -> None:
    comment = b"\xff\xfe" + struct.pack(">H", 6) + b"abcd"
    frame = (
        b"\xff\xd8" + comment + b"\xff" + b"\xff\xc0" + struct.pack(">HBHHB", 11, 8, 480, 640, 1)
    )
    assert claimed_size(frame + b"\x01\x11\x00" + bytes(8)) == (480, 640)


@given(st.binary(max_size=200))
def test_damaged_frames_never_raise(data: bytes) -> None:
    for start in (b"", b"\xff\xd8", b"\xff\x4f\xff\x51", b"\x00\x00\x00\x0cjP  "):
        claim = claimed_size(start + data)
        assert claim is None or np.shape(claim) == (2,)
