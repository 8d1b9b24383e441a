"""Reads the items of sequences in a result file as they are encoded, by a strict walk (PS3.5 7.5).

A result names hundreds of images or frames: it is checked without an object for each attribute.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Final

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset

from engines.elements import ITEM, ElementWalk, RawValue, UnusualError
from node.interfaces import ResultError

REFERENCED_SERIES: Final = 0x00081115
REFERENCED_INSTANCES: Final = 0x0008114A
REFERENCED_SOP_CLASS_UID: Final = 0x00081150
REFERENCED_SOP_INSTANCE_UID: Final = 0x00081155
REFERENCED_SOPS: Final = 0x00081199
STUDY_INSTANCE_UID: Final = 0x0020000D
SERIES_INSTANCE_UID: Final = 0x0020000E
_END: Final = 0x1_0000_0000
_HEAD: Final = struct.Struct("<HHI")


def referenced_instances(dataset: Dataset, keyword: str, *levels: tuple[int, int]) -> list[str]:
    """Return the SOP Instance UIDs that a sequence of a data set read from a file refers to.

    Args:
        dataset: read from a file that this node wrote.
        keyword: the sequence.
        levels: for sequences in its items, from the outside: the UID of the item, and the tag of
            the sequence in it. The items of the last are references.

    Raises:
        ResultError: it is not encoded as this node encodes it, or a UID is missing.
    """
    element = dataset.get_item(keyword)
    if not isinstance(element, RawDataElement) or not isinstance(element.value, bytes):
        raise ResultError(f"{keyword} is no sequence of defined length")
    try:
        return list(_referenced(element.value, levels))
    except (UnusualError, LookupError, ValueError) as error:
        raise ResultError(f"{keyword} is unreadable") from error


def _referenced(sequence: bytes, levels: Sequence[tuple[int, int]]) -> Iterator[str]:
    if levels:
        (own, inner), *further = levels
        for item in items_of(sequence):
            found = elements_in(item, own, inner)
            _uid(found[own])
            yield from _referenced(found[inner], further)
        return
    for item in items_of(sequence):
        found = elements_in(item, REFERENCED_SOP_CLASS_UID, REFERENCED_SOP_INSTANCE_UID)
        _uid(found[REFERENCED_SOP_CLASS_UID])
        yield _uid(found[REFERENCED_SOP_INSTANCE_UID])


def _uid(value: bytes) -> str:
    text = value.rstrip(b"\0 ").decode("ascii")
    if not text:
        raise UnusualError("an empty UID")
    return text


def elements_in(item: bytes, *wanted: int) -> dict[int, bytes]:
    """Return the values of wanted elements of an item, as they are encoded."""
    walk = ElementWalk(item, len(item), implicit=False)
    found: dict[int, RawValue]
    found, _ = walk.collect(0, frozenset(wanted), above=-1, stop=_END)
    return {tag: value for tag, (_, value) in found.items()}


def only_item(sequence: bytes) -> bytes:
    """Return the one item of a sequence."""
    items = list(items_of(sequence))
    if len(items) != 1:
        raise UnusualError("not one item")
    return items[0]


def items_of(sequence: bytes) -> Iterator[bytes]:
    """Yield the items of a sequence; each states its length (PS3.5 7.5.1)."""
    at = 0
    while at < len(sequence):
        begin = at + _HEAD.size
        if begin > len(sequence):
            raise UnusualError("a sequence ends inside the head of an item")
        group, element, length = _HEAD.unpack_from(sequence, at)
        at = begin + length
        if (group << 16 | element) != ITEM or at > len(sequence):
            raise UnusualError("no item of defined length where one has to be")
        yield sequence[begin:at]
