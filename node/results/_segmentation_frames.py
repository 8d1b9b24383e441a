"""The frames of a segmentation: the functional groups of each.

The library makes an object around two frames at most, so that everything but the number of frames
stays as it makes it; here the other frames are put in. What it would spend most of its time on,
objects for each attribute of each frame, is encoded once for each slice instead.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
from highdicom.spatial import get_volume_positions
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from engines.findings import Segment
from engines.images import Grid, SourceFrame, Vector
from node.results import _explicit as explicit
from node.results._encoded_items import REFERENCED_SOP_CLASS_UID, REFERENCED_SOP_INSTANCE_UID
from node.results._frame_groups import LABEL_MAP
from node.results._text import decimals

PIXEL_DATA: Final = Tag("PixelData")
OCTET: Final = 8
Octets: TypeAlias = npt.NDArray[np.uint8]
FRAMES_AT_ONCE: Final = 8
REFERENCED_FRAME_NUMBER: Final = 0x00081160
SOURCE_IMAGE: Final = 0x00082112
DERIVATION_IMAGE: Final = 0x00089124
IMAGE_POSITION: Final = 0x00200032
FRAME_CONTENT: Final = 0x00209111
PLANE_POSITION: Final = 0x00209113
SEGMENT_IDENTIFICATION: Final = 0x0062000A
_INDEX_VALUE: Final = struct.Struct("<HH2sHI")
_INDEX_VALUES: Final = struct.Struct("<HH2sHII")
_SEGMENT_NUMBER: Final = struct.Struct("<HH2sHH")


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame: a segment, by its number from 1, on a slice of the grid, by its index from 0.

    The frames of a label map are of no one segment: `LABEL_MAP`.
    """

    segment: int
    slice: int


def frames_of(segments: Sequence[Segment]) -> list[Frame]:
    """Return the frames that hold a voxel, segment by segment, along the grid."""
    return [
        Frame(number, int(index))
        for number, segment in enumerate(segments, 1)
        for index in np.flatnonzero(segment.by_slice)
    ]


def complete_frames(
    dataset: Dataset,
    frames: Sequence[Frame],
    grid: Grid,
    sources: Mapping[int, SourceFrame],
) -> list[Frame]:
    """Describe all frames in the place of those that an object was made around.

    Args:
        dataset: made by the library around the lowest and the highest of the slices.
        frames: see `frames_of`.
        grid: where the slices lie.
        sources: by slice, the frame of a source that lies there.

    Returns:
        The frames in the order in which their pixels have to lie.
    """
    made = dataset.PerFrameFunctionalGroupsSequence
    slices = sorted({frame.slice for frame in frames})
    positions = [_position(item) for item in made]
    descending = positions[0] != decimals(grid.positions[slices[0]])
    ranks = _ranks(grid, sorted(slices, reverse=descending))
    ordered = sorted(frames, key=lambda frame: (frame.segment, ranks[frame.slice]))
    encoder = _Planes(made[0])
    planes = {index: encoder.encoded(grid.positions[index], sources[index]) for index in slices}
    numbered = "SegmentIdentificationSequence" in made[0]
    groups = b"".join(_item(f, planes[f.slice], ranks[f.slice], numbered) for f in ordered)
    explicit.put_items(dataset, "PerFrameFunctionalGroupsSequence", groups)
    dataset.NumberOfFrames = len(ordered)
    if "DimensionOrganizationType" in dataset and not _regular(grid, slices):
        del dataset.DimensionOrganizationType
    return ordered


def _ranks(grid: Grid, slices: Sequence[int]) -> dict[int, int]:
    """Return the place of each slice, counted from 1; slices of several phases may share one."""
    places = {tuple(decimals(grid.positions[index])): None for index in slices}
    numbers = {place: number for number, place in enumerate(places, 1)}
    return {index: numbers[tuple(decimals(grid.positions[index]))] for index in slices}


def _regular(grid: Grid, slices: Sequence[int]) -> bool:
    """Say whether slices make a volume by themselves, as the library asks (PS3.3 C.7.6.17)."""
    spacing, _ = get_volume_positions(
        image_positions=[[float(v) for v in decimals(grid.positions[i])] for i in slices],
        image_orientation=[float(v) for v in decimals(grid.row_direction + grid.column_direction)],
        sort=True,
    )
    return spacing is not None and spacing > 0.0


def _position(groups: Dataset) -> list[str]:
    return decimals(groups.PlanePositionSequence[0].ImagePositionPatient)


class _Planes:
    """Encodes what all frames on a slice share: the source that they come from, and the place.

    `made` is the functional groups of a frame as the library makes them.
    """

    def __init__(self, made: Dataset) -> None:
        derivation = made.DerivationImageSequence[0]
        self._reference = explicit.elements_of(derivation.SourceImageSequence[0])
        self._reference.pop(REFERENCED_FRAME_NUMBER, None)
        self._derivation = explicit.elements_of(derivation)
        self._place = explicit.elements_of(made.PlanePositionSequence[0])

    def encoded(self, position: Vector, source: SourceFrame) -> tuple[bytes, bytes]:
        """Return the derivation of the frames on a slice, and their position."""
        named = {
            REFERENCED_SOP_CLASS_UID: source.sop_class_uid,
            REFERENCED_SOP_INSTANCE_UID: source.sop_instance_uid,
        }
        reference = self._reference | {tag: explicit.uid(tag, uid) for tag, uid in named.items()}
        if source.frame is not None:
            number = str(source.frame).encode("ascii")
            reference[REFERENCED_FRAME_NUMBER] = explicit.element(
                REFERENCED_FRAME_NUMBER, b"IS", number
            )
        derivation = {SOURCE_IMAGE: _one(SOURCE_IMAGE, explicit.in_order(reference))}
        where = "\\".join(decimals(position)).encode("ascii")
        place = {IMAGE_POSITION: explicit.element(IMAGE_POSITION, b"DS", where)}
        return (
            _one(DERIVATION_IMAGE, explicit.in_order(self._derivation | derivation)),
            _one(PLANE_POSITION, explicit.in_order(self._place | place)),
        )


def _one(tag: int, content: bytes) -> bytes:
    """Encode a sequence of one item."""
    return explicit.sequence(tag, explicit.item(content))


def _item(frame: Frame, plane: tuple[bytes, bytes], rank: int, numbered: bool) -> bytes:
    """Encode the functional groups of one frame, in the order of their tags."""
    derivation, position = plane
    if frame.segment == LABEL_MAP:
        content = _INDEX_VALUE.pack(0x0020, 0x9157, b"UL", 4, rank)
    else:
        content = _INDEX_VALUES.pack(0x0020, 0x9157, b"UL", 8, frame.segment, rank)
    body = derivation + _one(FRAME_CONTENT, content) + position
    if numbered:
        number = _SEGMENT_NUMBER.pack(0x0062, 0x000B, b"US", 2, frame.segment)
        body += _one(SEGMENT_IDENTIFICATION, number)
    return explicit.item(body)
