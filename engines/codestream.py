"""Sizes that compressed frames claim for themselves, read before any decoder sees them.

Plain functions on bytes. A frame whose own header asks for more pixels than the DICOM header would
make a decoder allocate memory that nobody budgeted.
"""

from __future__ import annotations

import struct
from typing import Final

JPEG_START: Final = b"\xff\xd8"
JPEG_2000_START: Final = b"\xff\x4f\xff\x51"
JP2_SIGNATURE: Final = b"\x00\x00\x00\x0cjP  "
FRAME_MARKERS: Final = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}
"""Start of frame of JPEG (ISO/IEC 10918-1 Table B.1) and of JPEG-LS (0xF7)."""
PREFIX: Final = 0xFF
STANDALONE: Final = frozenset({0x01, *range(0xD0, 0xD9)})


def claimed_size(frame: bytes) -> tuple[int, int] | None:
    """Return (rows, columns) that a JPEG, JPEG-LS or JPEG 2000 frame claims; None if it does not.

    RLE frames claim no size: their decoder is bounded by the DICOM header.
    """
    if frame.startswith(JPEG_START):
        return _jpeg_size(frame)
    if frame.startswith(JP2_SIGNATURE):
        return _jpeg_2000_size(frame, frame.find(JPEG_2000_START))
    if frame.startswith(JPEG_2000_START):
        return _jpeg_2000_size(frame, 0)
    return None


def _jpeg_2000_size(frame: bytes, start: int) -> tuple[int, int] | None:
    """Read the SIZ segment (ISO/IEC 15444-1 A.5.1)."""
    if start < 0 or len(frame) < start + 24:
        return None
    right, bottom, left, top = struct.unpack_from(">4I", frame, start + 8)
    return bottom - top, right - left


def _jpeg_size(frame: bytes) -> tuple[int, int] | None:
    """Walk the marker segments up to the first start of frame."""
    at = 2
    while at + 9 <= len(frame):
        if frame[at] != PREFIX:
            return None
        marker = frame[at + 1]
        if marker in FRAME_MARKERS:
            rows, columns = struct.unpack_from(">2H", frame, at + 5)
            return rows, columns
        if marker == PREFIX:
            at += 1
        elif marker in STANDALONE:
            at += 2
        else:
            at += 2 + int.from_bytes(frame[at + 2 : at + 4], "big")
    return None
