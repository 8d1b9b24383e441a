"""Reading as it is, and with pydicom alone; and plain images written byte by byte."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import pytest
from pydicom.datadict import dictionary_VR, tag_for_keyword

import engines.headers
from engines.headers import FrameHeader, read_headers
from engines.images import InstanceFile, Volume
from engines.refusals import SeriesRefusedError
from engines.series import read_volume
from tests.engines.encoding import EXPLICIT, IMPLICIT, Element, dicom_file, encoded, even

LIMIT: Final = 64 << 20
USUAL: Final = {
    "SpecificCharacterSet": b"ISO_IR 100",
    "ImageType": rb"ORIGINAL\PRIMARY\AXIAL",
    "Modality": b"CT",
    "SeriesInstanceUID": b"1.2.3.4",
    "FrameOfReferenceUID": b"1.2.3.5",
    "ImagePositionPatient": rb"-1.5\2.25\1e1",
    "ImageOrientationPatient": rb"1\0\0\0\1\0",
    "PixelSpacing": rb"0.5\0.75",
    "SliceThickness": b"1",
    "RescaleSlope": b"1",
    "RescaleIntercept": b"-1024",
    "RescaleType": b"HU",
    "PhotometricInterpretation": b"MONOCHROME2",
    "NumberOfFrames": b"1",
    "AcquisitionNumber": b"7",
    "EchoNumbers": b"1",
    "ConvolutionKernel": b"B30f",
    "BodyPartExamined": b"CHEST",
}
NUMBERS: Final = {
    "Rows": 3,
    "Columns": 4,
    "SamplesPerPixel": 1,
    "BitsAllocated": 16,
    "BitsStored": 12,
    "HighBit": 11,
    "PixelRepresentation": 0,
}


@dataclass(frozen=True)
class Outcome:
    """What came of reading a series: headers or a refusal, a volume or a refusal."""

    headers: tuple[FrameHeader, ...] | tuple[str, str]
    volume: Volume | tuple[str, str]

    def same_as(self, other: Outcome) -> bool:
        if isinstance(self.volume, tuple) or isinstance(other.volume, tuple):
            return self.headers == other.headers and self.volume == other.volume
        mine, theirs = self.volume, other.volume
        return (
            self.headers == other.headers
            and mine.voxels.dtype == theirs.voxels.dtype
            and np.array_equal(mine.voxels, theirs.voxels, equal_nan=True)
            and np.array_equal(mine.valid, theirs.valid)
            and replace(mine, voxels=theirs.voxels, valid=theirs.valid) == theirs
        )


def outcome(files: Sequence[InstanceFile], byte_limit: int = LIMIT) -> Outcome:
    headers: tuple[FrameHeader, ...] | tuple[str, str]
    volume: Volume | tuple[str, str]
    try:
        found = [header for file in files for header in read_headers(file, byte_limit=byte_limit)]
        headers = tuple(replace(header, pixel_data=None) for header in found)
    except SeriesRefusedError as refused:
        headers = (refused.reason.value, refused.detail)
    try:
        volume = read_volume(files, byte_limit=byte_limit)
    except SeriesRefusedError as refused:
        volume = (refused.reason.value, refused.detail)
    return Outcome(headers, volume)


def by_pydicom(files: Sequence[InstanceFile], byte_limit: int = LIMIT) -> Outcome:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engines.headers, "read_plain_header", lambda *_a, **_k: None)
        return outcome(files, byte_limit)


def described(path: Path, offset: int = 0, length: int | None = None) -> InstanceFile:
    return InstanceFile(
        path=path, offset=offset, length=length, sop_instance_uid="1.2", sop_class_uid="1.3"
    )


def tag_of(keyword: str) -> int:
    tag = tag_for_keyword(keyword)
    assert tag is not None
    return tag


def element(keyword: str, value: bytes, vr: bytes | None = None) -> Element:
    tag = tag_of(keyword)
    return Element(tag=tag, vr=vr or dictionary_VR(tag).rpartition(" ")[2].encode(), value=value)


def image(
    *,
    texts: Mapping[str, bytes] | None = None,
    numbers: Mapping[str, int] | None = None,
    pixels: bytes = bytes(range(24)),
    further: Sequence[Element] = (),
    syntax: bytes = EXPLICIT,
    behind: bytes = b"",
) -> bytes:
    """Return a DICOM file of 3 x 4 pixels; `further` elements take the place of the usual ones."""
    elements = [element(name, even(value)) for name, value in (USUAL | (dict(texts or {}))).items()]
    for name, number in (NUMBERS | dict(numbers or {})).items():
        elements.append(element(name, struct.pack("<H", number)))
    elements.append(element("PixelData", pixels))
    by_tag = {each.tag: each for each in [*elements, *further]}
    ordered = [by_tag[tag] for tag in sorted(by_tag)]
    return dicom_file(encoded(ordered, implicit=syntax == IMPLICIT) + behind, syntax)
