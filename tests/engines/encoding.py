"""Data sets written byte by byte, so that they can be wrong in any way."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from pydicom.uid import CTImageStorage

from engines.elements import LONG_FORM, UNDEFINED

EXPLICIT: Final = b"1.2.840.10008.1.2.1"
IMPLICIT: Final = b"1.2.840.10008.1.2"
ITEM: Final = b"\xfe\xff\x00\xe0"
ITEM_END: Final = b"\xfe\xff\x0d\xe0" + bytes(4)
SEQUENCE_END: Final = b"\xfe\xff\xdd\xe0" + bytes(4)


@dataclass(frozen=True, kw_only=True)
class Element:
    """One element; `items` make it a sequence. `length` None: that of the value."""

    tag: int
    vr: bytes
    value: bytes = b""
    items: tuple[Item, ...] | None = None
    undefined: bool = False


@dataclass(frozen=True, kw_only=True)
class Item:
    """One item of a sequence."""

    elements: tuple[Element, ...]
    undefined: bool = False


Elements: TypeAlias = Sequence[Element]


def encoded(elements: Elements, *, implicit: bool) -> bytes:
    """Return a data set, little endian."""
    return b"".join(_element(element, implicit=implicit) for element in elements)


def dicom_file(data_set: bytes, transfer_syntax: bytes) -> bytes:
    """Return a DICOM file (PS3.10 7.1) around a data set."""
    uids = ((0x00020002, CTImageStorage.encode()), (0x00020003, b"1.2.3"))
    meta = [Element(tag=tag, vr=b"UI", value=even(value, b"\0")) for tag, value in uids]
    meta.append(Element(tag=0x00020010, vr=b"UI", value=even(transfer_syntax, b"\0")))
    body = encoded(meta, implicit=False)
    length = Element(tag=0x00020000, vr=b"UL", value=struct.pack("<I", len(body)))
    return bytes(128) + b"DICM" + encoded([length], implicit=False) + body + data_set


def even(value: bytes, pad: bytes = b" ") -> bytes:
    """Return a value of even length."""
    return value + pad if len(value) % 2 else value


def _element(element: Element, *, implicit: bool) -> bytes:
    value = element.value
    if element.items is not None:
        value = b"".join(_item(item, implicit=implicit) for item in element.items)
        value += SEQUENCE_END if element.undefined else b""
    length = UNDEFINED if element.undefined else len(value)
    head = struct.pack("<HH", element.tag >> 16, element.tag & 0xFFFF)
    if implicit:
        return head + struct.pack("<I", length) + value
    if element.vr in LONG_FORM:
        return head + element.vr + bytes(2) + struct.pack("<I", length) + value
    return head + element.vr + struct.pack("<H", length & 0xFFFF) + value


def _item(item: Item, *, implicit: bool) -> bytes:
    value = encoded(item.elements, implicit=implicit)
    if item.undefined:
        return ITEM + struct.pack("<I", UNDEFINED) + value + ITEM_END
    return ITEM + struct.pack("<I", len(value)) + value
