"""Preamble and file meta group for data sets that came over the wire (PS3.10 7.1)."""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Final

from node.interfaces import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

PREAMBLE: Final = b"\0" * 128 + b"DICM"


def part10_prefix(sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str) -> bytes:
    """Return preamble and file meta group of a received data set.

    The preamble is ours, zeros: what a sender puts there is never kept.
    """
    uid = _padded(sop_instance_uid, b"\0")
    before, behind = _around(sop_class_uid, transfer_syntax_uid, len(uid))
    return before + uid + behind


@lru_cache(maxsize=512)
def _around(sop_class_uid: str, transfer_syntax_uid: str, uid_length: int) -> tuple[bytes, bytes]:
    """Return what stands before and behind the value of Media Storage SOP Instance UID."""
    first = (
        b"\x02\x00\x01\x00OB\x00\x00" + struct.pack("<I", 2) + b"\x00\x01"  # the version
        + _element(0x0002, b"UI", _padded(sop_class_uid, b"\0"))
    )  # fmt: skip
    behind = (
        _element(0x0010, b"UI", _padded(transfer_syntax_uid, b"\0"))
        + _element(0x0012, b"UI", _padded(IMPLEMENTATION_CLASS_UID, b"\0"))
        + _element(0x0013, b"SH", _padded(IMPLEMENTATION_VERSION_NAME, b" "))
    )
    heading = struct.pack("<HH2sH", 0x0002, 0x0003, b"UI", uid_length)
    length = len(first) + len(heading) + uid_length + len(behind)
    group_length = _element(0x0000, b"UL", struct.pack("<I", length))
    return PREAMBLE + group_length + first + heading, behind


def _padded(text: str, padding: bytes) -> bytes:
    value = text.encode("ascii")
    return value + padding if len(value) % 2 else value


def _element(element: int, vr: bytes, value: bytes) -> bytes:
    return struct.pack("<HH2sH", 0x0002, element, vr, len(value)) + value
