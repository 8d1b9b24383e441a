"""Encodes the many alike items of a result at once: Explicit VR Little Endian (PS3.5 7.1.2, 7.5).

What the library and pydicom spend most of their time on, objects for each attribute of each item,
is left out where a result names hundreds of images or frames. Sequences have a defined length.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from typing import Final, TypeAlias

from pydicom.charset import convert_encodings
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.tag import Tag

from node.results._encoded_items import REFERENCED_SOP_CLASS_UID, REFERENCED_SOP_INSTANCE_UID

Elements: TypeAlias = Mapping[int, bytes]
"""Elements by their tag, each encoded with its head."""

_SHORT: Final = struct.Struct("<HH2sH")
_LONG: Final = struct.Struct("<HH2sHI")
_ITEM: Final = struct.Struct("<HHI")


def element(tag: int, vr: bytes, value: bytes) -> bytes:
    """Encode an element whose length has 16 bits; `value` is padded with what its VR asks for."""
    if len(value) % 2:
        value += b"\0" if vr == b"UI" else b" "
    return _SHORT.pack(tag >> 16, tag & 0xFFFF, vr, len(value)) + value


def uid(tag: int, value: str) -> bytes:
    """Encode a UI."""
    return element(tag, b"UI", value.encode("ascii"))


def item(content: bytes) -> bytes:
    """Encode an item around its elements."""
    return _ITEM.pack(0xFFFE, 0xE000, len(content)) + content


def sequence(tag: int, items: bytes) -> bytes:
    """Encode an SQ around its items."""
    return _LONG.pack(tag >> 16, tag & 0xFFFF, b"SQ", 0, len(items)) + items


def in_order(elements: Elements) -> bytes:
    """Put elements behind each other, in the order of their tags."""
    return b"".join(encoded for _, encoded in sorted(elements.items()))


def elements_of(dataset: Dataset) -> dict[int, bytes]:
    """Encode every element of a small data set by itself."""
    found: dict[int, bytes] = {}
    for tag in dataset.keys():  # noqa: SIM118 - iterating gives elements
        alone = Dataset()
        alone.add(dataset[tag])
        stream = DicomBytesIO()
        stream.is_implicit_VR, stream.is_little_endian = False, True
        write_dataset(stream, alone)
        found[int(tag)] = stream.getvalue()
    return found


def references(instances: Iterable[Dataset]) -> bytes:
    """Encode an item for each instance: its class and its UID (PS3.3 Table 10-11)."""
    return b"".join(
        item(
            uid(REFERENCED_SOP_CLASS_UID, instance.SOPClassUID)
            + uid(REFERENCED_SOP_INSTANCE_UID, instance.SOPInstanceUID)
        )
        for instance in instances
    )


def put_items(dataset: Dataset, keyword: str, items: bytes) -> None:
    """Give a data set in UTF-8 a sequence whose items are encoded.

    They stay bytes until somebody looks at them: so this comes last.
    """
    tag = Tag(keyword)
    dataset[tag] = RawDataElement(tag, "SQ", len(items), items, 0, False, True)
    dataset.set_original_encoding(False, True, convert_encodings("ISO_IR 192"))
