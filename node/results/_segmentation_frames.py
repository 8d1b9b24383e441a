"""The frames of a BINARY segmentation: packed bits, and the functional groups of each.

The library makes an object around two frames at most, so that everything but the number of frames
stays as it makes it; here the other frames are put in. What it would spend most of its time on,
objects for each attribute of each frame, is encoded once for each slice instead.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Final

import numpy as np
from highdicom.spatial import get_volume_positions
from pydicom.charset import convert_encodings
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.tag import Tag

from engines.findings import Segment
from engines.images import BoolArray, Grid, SourceFrame
from node.results._text import decimals

PER_FRAME_GROUPS: Final = Tag("PerFrameFunctionalGroupsSequence")
PIXEL_DATA: Final = Tag("PixelData")
_ELEMENT: Final = struct.Struct("<HH2sHI")
_ITEM: Final = struct.Struct("<HHI")
_INDEX_VALUES: Final = struct.Struct("<HH2sHII")
_SEGMENT_NUMBER: Final = struct.Struct("<HH2sHH")


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame: a segment, by its number from 1, on a slice of the grid, by its index from 0."""

    segment: int
    slice: int


def frames_of(segments: Sequence[Segment]) -> list[Frame]:
    """Return the frames that hold a voxel, segment by segment, along the grid."""
    return [
        Frame(number, int(index))
        for number, segment in enumerate(segments, 1)
        for index in np.flatnonzero(filled_slices(segment.mask))
    ]


def filled_slices(mask: BoolArray) -> BoolArray:
    """Say for each slice of a mask [slice, row, column] whether it holds a voxel: bool [slice]."""
    return np.fromiter((plane.any() for plane in mask), np.bool_, len(mask))


def complete_frames(
    dataset: Dataset,
    segments: Sequence[Segment],
    frames: Sequence[Frame],
    grid: Grid,
    sources: Mapping[int, SourceFrame],
) -> None:
    """Put all frames in the place of those that an object was made around.

    Args:
        dataset: made by the library around the lowest and the highest of the slices.
        segments: as they are numbered in the object.
        frames: see `frames_of`.
        grid: where the slices lie.
        sources: by slice, the frame of a source that lies there.
    """
    made = dataset.PerFrameFunctionalGroupsSequence
    slices = sorted({frame.slice for frame in frames})
    positions = [_position(item) for item in made]
    descending = positions[0] != decimals(grid.positions[slices[0]])
    ranks = {index: rank for rank, index in enumerate(sorted(slices, reverse=descending), 1)}
    ordered = sorted(frames, key=lambda frame: (frame.segment, ranks[frame.slice]))
    planes = {index: _plane(made[0], grid, index, sources[index]) for index in slices}
    numbered = "SegmentIdentificationSequence" in made[0]
    groups = b"".join(_item(f, planes[f.slice], ranks[f.slice], numbered) for f in ordered)
    dataset[PER_FRAME_GROUPS] = RawDataElement(
        PER_FRAME_GROUPS, "SQ", len(groups), groups, 0, False, True
    )
    dataset.set_original_encoding(False, True, convert_encodings("ISO_IR 192"))  # as they are
    dataset.NumberOfFrames = len(ordered)
    dataset.add_new(PIXEL_DATA, "OB", _packed(segments, ordered))
    if "DimensionOrganizationType" in dataset and not _regular(grid, slices):
        del dataset.DimensionOrganizationType


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


def _plane(made: Dataset, grid: Grid, index: int, source: SourceFrame) -> tuple[bytes, bytes]:
    """Encode what all frames on a slice share: the source that they come from, and the place."""
    reference = made.DerivationImageSequence[0].SourceImageSequence[0]
    reference.ReferencedSOPClassUID = source.sop_class_uid
    reference.ReferencedSOPInstanceUID = source.sop_instance_uid
    if source.frame is not None:
        reference.ReferencedFrameNumber = source.frame
    elif "ReferencedFrameNumber" in reference:
        del reference.ReferencedFrameNumber
    made.PlanePositionSequence[0].ImagePositionPatient = decimals(grid.positions[index])
    return _encoded(made, "DerivationImageSequence"), _encoded(made, "PlanePositionSequence")


def _encoded(groups: Dataset, keyword: str) -> bytes:
    alone = Dataset()
    alone.add(groups[keyword])
    stream = DicomBytesIO()
    stream.is_implicit_VR, stream.is_little_endian = False, True
    write_dataset(stream, alone)
    return stream.getvalue()


def _item(frame: Frame, plane: tuple[bytes, bytes], rank: int, numbered: bool) -> bytes:
    """Encode the functional groups of one frame, in the order of their tags."""
    derivation, position = plane
    content = _INDEX_VALUES.pack(0x0020, 0x9157, b"UL", 8, frame.segment, rank)
    body = derivation + _sequence(0x0020, 0x9111, content) + position
    if numbered:
        number = _SEGMENT_NUMBER.pack(0x0062, 0x000B, b"US", 2, frame.segment)
        body += _sequence(0x0062, 0x000A, number)
    return _ITEM.pack(0xFFFE, 0xE000, len(body)) + body


def _sequence(group: int, element: int, item: bytes) -> bytes:
    """Encode a sequence of one item (PS3.5 7.5)."""
    head = _ELEMENT.pack(group, element, b"SQ", 0, len(item) + _ITEM.size)
    return head + _ITEM.pack(0xFFFE, 0xE000, len(item)) + item


def _packed(segments: Sequence[Segment], frames: Sequence[Frame]) -> bytes:
    """Pack the frames: one bit a pixel, frame behind frame without a gap (PS3.5 8.1.1, A.4)."""
    stream = BytesIO()
    for part in _whole_bytes(segments, frames):
        stream.write(part)
    if stream.tell() % 2:
        stream.write(b"\0")
    return stream.getvalue()


def _whole_bytes(segments: Sequence[Segment], frames: Sequence[Frame]) -> Iterator[bytes]:
    left = np.zeros(0, dtype=np.bool_)
    for frame in frames:
        bits = segments[frame.segment - 1].mask[frame.slice].reshape(-1)
        if left.size:
            bits = np.concatenate([left, bits])
        whole = bits.size - bits.size % 8
        yield np.packbits(bits[:whole], bitorder="little").tobytes()
        left = bits[whole:]
    yield np.packbits(left, bitorder="little").tobytes()
