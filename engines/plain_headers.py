"""The header of a plain native image, walked once: its attributes, and where its pixels lie.

Plain is what nearly all images from scanners are: Implicit or Explicit VR Little Endian, encoded as
the standard asks for, values in ASCII. What is not plain is left to pydicom; what is gives the
values that pydicom gives. Reads no pixel.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from typing import Final, TypeAlias

from pydicom.datadict import tag_for_keyword
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from engines.byte_range import ByteRange
from engines.elements import (
    LONG_FORM,
    SPECIFIC_CHARACTER_SET,
    UNDEFINED,
    ElementWalk,
    RawValue,
    ShortWindowError,
    UnusualError,
    check_character_set,
)
from engines.images import InstanceFile

Convert: TypeAlias = Callable[[bytes], object]

WINDOWS: Final = (16 << 10, 256 << 10, 4 << 20)
"""How many bytes of a file are looked at, one after the other, until its pixel data are found."""
MOST_BEHIND: Final = 64 << 10
"""How many bytes may lie behind the pixel data."""
META_START: Final = 132
GROUP_LENGTH: Final = 0x00020000
TRANSFER_SYNTAX: Final = 0x00020010
AFTER_META: Final = 0x00030000
LAST_META: Final = 0x0007FFFF
FLOAT_PIXEL_DATA: Final = 0x7FE00008
PIXEL_DATA: Final = 0x7FE00010
BEHIND_ALL: Final = 1 << 32
IMPLICIT: Final = {
    str(ImplicitVRLittleEndian).encode(): True,
    str(ExplicitVRLittleEndian).encode(): False,
}
NUMBER: Final = re.compile(rb" *[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})? *").fullmatch
INTEGER: Final = re.compile(rb"[+-]?\d{1,9} *").fullmatch
UID_CHARACTERS: Final = re.compile(rb"[0-9.]*").fullmatch
EXPLICIT_VR: Final = re.compile(rb"[A-Z][A-Z]").match
CONTROL: Final = re.compile(rb"[\x00-\x1f\x7f]").search


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """Where a value lies in an instance's file: `length` bytes from `offset` on."""

    offset: int
    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainHeader:
    """What was found by walking the elements of a file.

    `attributes` holds the present ones of `WANTED` by keyword, as pydicom gives them (numbers in
    text as text); None: one of them is not plain, or there are functional groups.
    """

    attributes: Mapping[str, object] | None
    transfer_syntax_uid: str
    pixel_data: Extent


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainElements:
    """Elements of a plain header by tag, as they are encoded: with `implicit`, VRs are empty."""

    values: Mapping[int, RawValue]
    implicit: bool
    transfer_syntax_uid: str
    pixel_data: Extent


def read_plain_header(file: InstanceFile, *, byte_limit: int) -> PlainHeader | None:
    """Walk the header of one file; None where pydicom has to read it.

    Args:
        file: the instance.
        byte_limit: a larger file is not looked at.
    """
    try:
        with file.open_unbuffered() as stream:
            if stream.size <= byte_limit:
                return _plain_header(_walk(stream, TAGS))
    except (OSError, UnusualError):
        pass
    return None


def read_plain_elements(file: InstanceFile, wanted: Set[int]) -> PlainElements | None:
    """Walk the header of one file for some elements; None where pydicom has to read it."""
    try:
        with file.open_unbuffered() as stream:
            return _walk(stream, wanted)
    except (OSError, UnusualError):
        return None


def _plain_header(found: PlainElements) -> PlainHeader:
    try:
        attributes = _attributes(found.values, implicit=found.implicit)
    except UnusualError:
        attributes = None
    return PlainHeader(
        attributes=attributes,
        transfer_syntax_uid=found.transfer_syntax_uid,
        pixel_data=found.pixel_data,
    )


def _walk(stream: ByteRange, wanted: Set[int]) -> PlainElements:
    for size in WINDOWS:
        try:
            return _walk_window(stream, stream.read_at(0, size), wanted)
        except ShortWindowError:
            continue
    raise UnusualError("a header of many bytes")


def _walk_window(stream: ByteRange, window: bytes, wanted: Set[int]) -> PlainElements:
    start, transfer_syntax = _file_meta(window, stream.size)
    implicit = IMPLICIT[transfer_syntax]
    if implicit and EXPLICIT_VR(window, start + 4):
        raise UnusualError("explicit value representations where implicit ones are announced")
    walk = ElementWalk(window, stream.size, implicit=implicit)
    found, at = walk.collect(start, wanted, above=LAST_META, stop=FLOAT_PIXEL_DATA)
    pixel_data = _pixel_data(walk, window, at, stream.size)
    behind = pixel_data.offset + pixel_data.length
    if behind < stream.size:
        _check_behind(stream, behind, implicit=implicit)
    return PlainElements(
        values=found,
        implicit=implicit,
        transfer_syntax_uid=transfer_syntax.decode("ascii"),
        pixel_data=pixel_data,
    )


def _file_meta(window: bytes, size: int) -> tuple[int, bytes]:
    """Return where the data set begins, and its transfer syntax (PS3.10 7.1)."""
    if window[128:144] != b"DICM\x02\x00\x00\x00UL\x04\x00" + window[140:144]:
        raise UnusualError("no file meta information that begins with its length")
    if len(window) < META_START + 12:
        raise UnusualError("too short")
    end = META_START + 12 + int(struct.unpack_from("<I", window, 140)[0])
    if end + 8 > size:
        raise UnusualError("file meta information that is longer than the file")
    found, at = ElementWalk(window, end, implicit=False).collect(
        META_START + 12, {TRANSFER_SYNTAX}, above=GROUP_LENGTH, stop=AFTER_META
    )
    syntax = found.get(TRANSFER_SYNTAX)
    if at != end or syntax is None or syntax[0] != b"UI":
        raise UnusualError("file meta information without a transfer syntax or of a wrong length")
    uid = syntax[1].rstrip(b"\0 ")
    if uid not in IMPLICIT:
        raise UnusualError("another transfer syntax")
    return end, uid


def _pixel_data(walk: ElementWalk, window: bytes, at: int, size: int) -> Extent:
    if at + 8 > size or window[at : at + 4] != b"\xe0\x7f\x10\x00":
        raise UnusualError("no pixel data")
    vr, length, value = walk.value_of(at)
    if length == UNDEFINED or vr not in (b"OB", b"OW", b""):
        raise UnusualError("pixel data that are not native")
    return Extent(offset=value, length=min(length, max(0, size - value)))


def _check_behind(stream: ByteRange, at: int, *, implicit: bool) -> None:
    """Walk what lies behind the pixel data: pydicom would read it too."""
    left = stream.size - at
    if left > MOST_BEHIND:
        raise UnusualError("much behind the pixel data")
    walk = ElementWalk(stream.read_at(at, left), left, implicit=implicit)
    walk.collect(0, frozenset(), above=PIXEL_DATA, stop=BEHIND_ALL)


# ------------------------------------------------------------------ values, as pydicom gives them


def _attributes(found: Mapping[int, RawValue], *, implicit: bool) -> dict[str, object]:
    charset = found.get(SPECIFIC_CHARACTER_SET)
    if charset is not None:
        check_character_set(*charset)
    attributes: dict[str, object] = {}
    for tag, (vr, value) in found.items():
        keyword, representations, convert = WANTED[tag]
        if not implicit and vr not in representations:
            raise UnusualError("another value representation than the dictionary's")
        attributes[keyword] = convert(value)
    if "PixelPaddingValue" in attributes and attributes.get("BitsAllocated") not in (8, 16):
        raise UnusualError("padding whose sign matters")
    return attributes


def _texts(value: bytes) -> object:
    """Read CS, LO or SH: one text, or a list of them."""
    text = _ascii(value)
    return [item.rstrip(" ") for item in text.split("\\")] if "\\" in text else text


def _codes(value: bytes) -> object:
    """Read CS: like LO, but the values before the last keep their padding."""
    text = _ascii(value)
    return text.split("\\") if "\\" in text else text


def _one_text(value: bytes) -> str:
    text = _ascii(value)
    if "\\" in text:
        raise UnusualError("several values")
    return text


def _ascii(value: bytes) -> str:
    value = value.rstrip(b"\0 ")
    if not value.isascii() or CONTROL(value):
        raise UnusualError("more than printable ASCII")
    return value.decode("ascii")


def _uid(value: bytes) -> str:
    value = value.rstrip(b"\0 ")
    if not UID_CHARACTERS(value):
        raise UnusualError("no UID")
    return value.decode("ascii")


def _decimals(value: bytes) -> object:
    """Read DS as text: one number, a list of them, or None."""
    return _numbers(value.strip(b" "), NUMBER)


def _integers(value: bytes) -> object:
    """Read IS as text: one number, a list of them, or None."""
    return _numbers(value, INTEGER)


def _numbers(value: bytes, is_number: Callable[[bytes], object]) -> object:
    if not value:
        return None
    items = value.rstrip(b"\0 ").split(b"\\")
    if not all(map(is_number, items)):
        raise UnusualError("a number that is none")
    texts = [item.decode("ascii") for item in items]
    return texts if len(texts) > 1 else texts[0]


def _one_integer(value: bytes) -> object:
    text = _integers(value)
    if isinstance(text, list):
        raise UnusualError("several values")
    return None if text is None else int(str(text))


def _binary(form: str) -> Convert:
    reader = struct.Struct(form)

    def convert(value: bytes) -> object:
        if not value:
            return None
        if len(value) != reader.size:
            raise UnusualError("several values, or a part of one")
        return reader.unpack(value)[0]

    return convert


def _never(_value: bytes) -> object:
    raise UnusualError("functional groups")


CONVERTERS: Final[Mapping[str, tuple[frozenset[bytes], Convert]]] = {
    "CS": (frozenset({b"CS"}), _one_text),
    "CS 1-n": (frozenset({b"CS"}), _codes),
    "LO": (frozenset({b"LO"}), _one_text),
    "LO 1-n": (frozenset({b"LO"}), _texts),
    "SH 1-n": (frozenset({b"SH"}), _texts),
    "UI": (frozenset({b"UI"}), _uid),
    "DS": (frozenset({b"DS"}), _decimals),
    "IS": (frozenset({b"IS"}), _integers),
    "IS 1": (frozenset({b"IS"}), _one_integer),
    "US": (frozenset({b"US"}), _binary("<H")),
    "UL": (frozenset({b"UL"}), _binary("<I")),
    "FD": (frozenset({b"FD"}), _binary("<d")),
    "US or SS": (frozenset({b"US", b"SS"}), _binary("<H")),
    "SQ": (LONG_FORM, _never),
}
KEYWORDS: Final[Mapping[str, str]] = {
    "SpecificCharacterSet": "CS 1-n",
    "ImageType": "CS 1-n",
    "Modality": "CS",
    "ContrastBolusAgent": "LO 1-n",
    "BodyPartExamined": "CS",
    "SliceThickness": "DS",
    "EchoTime": "DS",
    "EchoNumbers": "IS",
    "TriggerTime": "DS",
    "ConvolutionKernel": "SH 1-n",
    "DiffusionBValue": "FD",
    "FrameType": "CS 1-n",
    "EffectiveEchoTime": "FD",
    "NominalCardiacTriggerDelayTime": "FD",
    "SeriesInstanceUID": "UI",
    "AcquisitionNumber": "IS",
    "ImagePositionPatient": "DS",
    "ImageOrientationPatient": "DS",
    "FrameOfReferenceUID": "UI",
    "TemporalPositionIdentifier": "IS",
    "StackID": "SH 1-n",
    "TemporalPositionIndex": "UL",
    "SamplesPerPixel": "US",
    "PhotometricInterpretation": "CS",
    "NumberOfFrames": "IS 1",
    "Rows": "US",
    "Columns": "US",
    "PixelSpacing": "DS",
    "BitsAllocated": "US",
    "BitsStored": "US",
    "HighBit": "US",
    "PixelRepresentation": "US",
    "PixelPaddingValue": "US or SS",
    "PixelPaddingRangeLimit": "US or SS",
    "BurnedInAnnotation": "CS",
    "RescaleIntercept": "DS",
    "RescaleSlope": "DS",
    "RescaleType": "LO",
    "ModalityLUTSequence": "SQ",
    "LossyImageCompression": "CS",
    "PerFrameFunctionalGroupsSequence": "SQ",
    "SharedFunctionalGroupsSequence": "SQ",
}


def _tag(keyword: str) -> int:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise KeyError(keyword)
    return tag


WANTED: Final[Mapping[int, tuple[str, frozenset[bytes], Convert]]] = {
    _tag(keyword): (keyword, *CONVERTERS[form]) for keyword, form in KEYWORDS.items()
}
TAGS: Final = frozenset(WANTED)
