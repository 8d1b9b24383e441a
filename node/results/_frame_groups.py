"""Reads what a segmentation file says of each frame, from its bytes (PS3.3 C.7.6.16, C.8.20.3).

A strict walk instead of objects for every attribute: a result of thousands of frames is checked in
the time that it takes to read it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from engines.elements import UnusualError
from node.interfaces import ResultError
from node.results._encoded_items import elements_in, items_of, only_item

PER_FRAME_GROUPS: Final = Tag("PerFrameFunctionalGroupsSequence")
DERIVATION_IMAGE: Final = 0x00089124
SOURCE_IMAGE: Final = 0x00082112
SOP_INSTANCE_UID: Final = 0x00081155
FRAME_NUMBER: Final = 0x00081160
PLANE_POSITION: Final = 0x00209113
IMAGE_POSITION: Final = 0x00200032
SEGMENT_IDENTIFICATION: Final = 0x0062000A
SEGMENT_NUMBER: Final = 0x0062000B
LABEL_MAP: Final = 0


@dataclass(frozen=True, slots=True)
class FramePlace:
    """Where a frame says it lies: position (LPS, mm), and the frame of the source it names."""

    position: tuple[float, ...]
    source_uid: str
    source_frame: int | None


@dataclass(frozen=True, slots=True)
class FrameGroups:
    """What a frame says of itself: the number of its segment, from 1, and its place.

    The frames of a label map are of no one segment: 0.
    """

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
    shared = LABEL_MAP if written.SegmentationType == "LABELMAP" else None
    try:
        for item in items_of(element.value):
            groups = elements_in(item, DERIVATION_IMAGE, PLANE_POSITION, SEGMENT_IDENTIFICATION)
            key = groups[DERIVATION_IMAGE], groups[PLANE_POSITION]
            if key not in places:
                places[key] = _place(*key)
            if SEGMENT_IDENTIFICATION in groups:
                number = _segment_number(groups[SEGMENT_IDENTIFICATION])
            else:
                shared = _shared_segment_number(written) if shared is None else shared
                number = shared
            yield FrameGroups(number, places[key])
    except (UnusualError, LookupError, ValueError) as error:
        raise ResultError(
            "segmentation: the functional groups of a frame are unreadable"
        ) from error


def _place(derivation: bytes, position: bytes) -> FramePlace:
    source = only_item(elements_in(only_item(derivation), SOURCE_IMAGE)[SOURCE_IMAGE])
    named = elements_in(source, SOP_INSTANCE_UID, FRAME_NUMBER)
    where = elements_in(only_item(position), IMAGE_POSITION)[IMAGE_POSITION]
    return FramePlace(
        position=tuple(float(value) for value in where.decode("ascii").split("\\")),
        source_uid=named[SOP_INSTANCE_UID].rstrip(b"\0 ").decode("ascii"),
        source_frame=int(named[FRAME_NUMBER]) if FRAME_NUMBER in named else None,
    )


def _segment_number(sequence: bytes) -> int:
    value = elements_in(only_item(sequence), SEGMENT_NUMBER)[SEGMENT_NUMBER]
    return int.from_bytes(value, "little")


def _shared_segment_number(written: Dataset) -> int:
    groups = written.SharedFunctionalGroupsSequence[0]
    return int(groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
