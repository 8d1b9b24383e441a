"""Reads what a segmentation file says of each frame, from its bytes (PS3.3 C.7.6.16, C.8.20.3).

A strict walk instead of objects for every attribute: a result of thousands of frames is checked in
the time that it takes to read it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from engines.elements import ITEM, ElementWalk, RawValue, UnusualError
from node.interfaces import ResultError

PER_FRAME_GROUPS: Final = Tag("PerFrameFunctionalGroupsSequence")
DERIVATION_IMAGE: Final = 0x00089124
SOURCE_IMAGE: Final = 0x00082112
SOP_INSTANCE_UID: Final = 0x00081155
FRAME_NUMBER: Final = 0x00081160
PLANE_POSITION: Final = 0x00209113
IMAGE_POSITION: Final = 0x00200032
SEGMENT_IDENTIFICATION: Final = 0x0062000A
SEGMENT_NUMBER: Final = 0x0062000B
_END: Final = 0x1_0000_0000
_HEAD: Final = struct.Struct("<HHI")


@dataclass(frozen=True, slots=True)
class FramePlace:
    """Where a frame says it lies: position (LPS, mm), and the frame of the source it names."""

    position: tuple[float, ...]
    source_uid: str
    source_frame: int | None


@dataclass(frozen=True, slots=True)
class FrameGroups:
    """What a frame says of itself: the number of its segment, from 1, and its place."""

    segment: int
    place: FramePlace


def frame_groups(written: Dataset) -> Iterator[FrameGroups]:
    """Yield the functional groups of each frame of a data set read from a file, in their order.

    Raises:
        ResultError: they are missing, or not encoded as this node encodes them.
    """
    element = written.get_item(PER_FRAME_GROUPS)
    if not isinstance(element, RawDataElement) or not isinstance(element.value, bytes):
        raise ResultError("segmentation: its frames have no functional groups of defined length")
    places: dict[tuple[bytes, bytes], FramePlace] = {}
    shared: int | None = None
    try:
        for item in _items(element.value):
            groups = _elements(item, DERIVATION_IMAGE, PLANE_POSITION, SEGMENT_IDENTIFICATION)
            key = groups[DERIVATION_IMAGE], groups[PLANE_POSITION]
            if key not in places:
                places[key] = _place(*key)
            if SEGMENT_IDENTIFICATION in groups:
                number = _segment_number(groups[SEGMENT_IDENTIFICATION])
            else:
                shared = shared or _shared_segment_number(written)
                number = shared
            yield FrameGroups(number, places[key])
    except (UnusualError, LookupError, ValueError) as error:
        raise ResultError(
            "segmentation: the functional groups of a frame are unreadable"
        ) from error


def _place(derivation: bytes, position: bytes) -> FramePlace:
    source = _only(_elements(_only(derivation), SOURCE_IMAGE)[SOURCE_IMAGE])
    named = _elements(source, SOP_INSTANCE_UID, FRAME_NUMBER)
    where = _elements(_only(position), IMAGE_POSITION)[IMAGE_POSITION]
    return FramePlace(
        position=tuple(float(value) for value in where.decode("ascii").split("\\")),
        source_uid=named[SOP_INSTANCE_UID].rstrip(b"\0 ").decode("ascii"),
        source_frame=int(named[FRAME_NUMBER]) if FRAME_NUMBER in named else None,
    )


def _segment_number(sequence: bytes) -> int:
    value = _elements(_only(sequence), SEGMENT_NUMBER)[SEGMENT_NUMBER]
    return int.from_bytes(value, "little")


def _shared_segment_number(written: Dataset) -> int:
    groups = written.SharedFunctionalGroupsSequence[0]
    return int(groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber)


def _elements(item: bytes, *wanted: int) -> dict[int, bytes]:
    """Return the values of wanted elements of an item, as they are encoded."""
    walk = ElementWalk(item, len(item), implicit=False)
    found: dict[int, RawValue]
    found, _ = walk.collect(0, frozenset(wanted), above=-1, stop=_END)
    return {tag: value for tag, (_, value) in found.items()}


def _only(sequence: bytes) -> bytes:
    """Return the one item of a sequence."""
    items = list(_items(sequence))
    if len(items) != 1:
        raise UnusualError("not one item")
    return items[0]


def _items(sequence: bytes) -> Iterator[bytes]:
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
