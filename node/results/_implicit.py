"""Encodes many alike items at once in Implicit VR Little Endian (PS3.5 7.1.3, 7.5), as `_explicit`.

It is for objects whose values are longer than the 16 bits of length of Explicit VR.
"""

from __future__ import annotations

import struct
from typing import Final

from pydicom.charset import convert_encodings
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

_HEAD: Final = struct.Struct("<HHI")


def element(tag: int, value: bytes, pad: bytes = b" ") -> bytes:
    """Encode an element; a value of odd length is padded."""
    value += pad * (len(value) % 2)
    return _HEAD.pack(tag >> 16, tag & 0xFFFF, len(value)) + value


def text(tag: int, *values: object) -> bytes:
    """Encode an element whose values are characters."""
    return element(tag, "\\".join(map(str, values)).encode("ascii"))


def uid(tag: int, value: str) -> bytes:
    """Encode a UI."""
    return element(tag, value.encode("ascii"), b"\0")


def item(content: bytes) -> bytes:
    """Encode an item around its elements."""
    return _HEAD.pack(0xFFFE, 0xE000, len(content)) + content


def put_items(dataset: Dataset, keyword: str, items: bytes) -> None:
    """Give a data set in UTF-8 a sequence whose items are encoded. So this comes last."""
    tag = Tag(keyword)
    dataset[tag] = RawDataElement(tag, "SQ", len(items), items, 0, True, True)
    dataset.set_original_encoding(True, True, convert_encodings("ISO_IR 192"))
