"""A bounded walk over the header of a data set: what the index wants, and nothing more.

What the listener does with bytes off the wire: it looks at top-level elements only, up to the last
one it wants, within limits. Everything more belongs into the sandbox (`node.field_values`).
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO, Final

from pydicom.charset import decode_bytes, python_encoding
from pydicom.datadict import keyword_for_tag, tag_for_keyword
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
)

from storage.records import SeriesAttributes, StudyAttributes

MOST_BYTES: Final = 4 << 20  # read, not skipped
MOST_ELEMENTS: Final = 100_000
DEEPEST: Final = 100
LONGEST_VALUE: Final = 64 << 10
LONGEST_UID: Final = 64
UNDEFINED: Final = 0xFFFFFFFF
ITEM: Final = 0xFFFEE000
ITEM_END: Final = 0xFFFEE00D
SEQUENCE_END: Final = 0xFFFEE0DD
PIXEL_DATA: Final = 0x7FE00010
LONG_FORM: Final = frozenset(
    {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
)
"""Value representations with two reserved bytes and a 32-bit length (PS3.5 7.1.2)."""

UID_PATTERN: Final = re.compile(r"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))+")
CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]+")
INDEXED: Final = (
    "SpecificCharacterSet",
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "Modality",
    "Manufacturer",
    "ReferringPhysicianName",
    "StudyDescription",
    "SeriesDescription",
    "ManufacturerModelName",
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "PatientBirthDate",
    "PatientSex",
    "BodyPartExamined",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "StudyID",
    "SeriesNumber",
    "InstanceNumber",
)


class HeaderError(Exception):
    """The header cannot be read; the message names the tag or the limit, and no value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexHeader:
    """What the index keeps of one instance."""

    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    instance_number: str
    manufacturer: str
    manufacturer_model_name: str
    study: StudyAttributes
    series: SeriesAttributes


def read_index_header(data: BinaryIO, transfer_syntax_uid: str) -> IndexHeader:
    """Read what the index wants from the start of a data set (no preamble, no file meta).

    Raises:
        HeaderError: the bytes are no data set in this transfer syntax, end too soon, exceed a
            limit, or a UID is missing or malformed (PS3.5 9.1).
    """
    wanted = {_tag(keyword): keyword for keyword in INDEXED}
    raw = _walk(data, transfer_syntax_uid, wanted)
    encodings = _encodings(raw.get("SpecificCharacterSet", b""))

    def text(keyword: str) -> str:
        return _text(raw.get(keyword, b""), encodings)

    return IndexHeader(
        sop_class_uid=_uid(raw, "SOPClassUID"),
        sop_instance_uid=_uid(raw, "SOPInstanceUID"),
        study_instance_uid=_uid(raw, "StudyInstanceUID"),
        series_instance_uid=_uid(raw, "SeriesInstanceUID"),
        instance_number=text("InstanceNumber"),
        manufacturer=text("Manufacturer"),
        manufacturer_model_name=text("ManufacturerModelName"),
        study=StudyAttributes(
            patient_id=text("PatientID"),
            issuer_of_patient_id=text("IssuerOfPatientID"),
            patient_name=text("PatientName"),
            patient_birth_date=text("PatientBirthDate"),
            patient_sex=text("PatientSex"),
            accession_number=text("AccessionNumber"),
            study_id=text("StudyID"),
            study_date=text("StudyDate"),
            study_time=text("StudyTime"),
            study_description=text("StudyDescription"),
            referring_physician_name=text("ReferringPhysicianName"),
        ),
        series=SeriesAttributes(
            modality=text("Modality"),
            series_number=text("SeriesNumber"),
            series_description=text("SeriesDescription"),
            body_part_examined=text("BodyPartExamined"),
        ),
    )


# ---------------------------------------------------------------- the walk


def _walk(data: BinaryIO, transfer_syntax_uid: str, wanted: Mapping[int, str]) -> dict[str, bytes]:
    if transfer_syntax_uid == DeflatedExplicitVRLittleEndian:
        data = _inflated(data)
    walker = _Walker(
        data,
        implicit=transfer_syntax_uid == ImplicitVRLittleEndian,
        little=transfer_syntax_uid != ExplicitVRBigEndian,
    )
    return walker.collect(wanted)


def _inflated(data: BinaryIO) -> BinaryIO:
    """Return the first bytes of a deflated data set; never more than the limit."""
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        return io.BytesIO(inflate.decompress(data.read(MOST_BYTES), MOST_BYTES))
    except zlib.error as error:
        raise HeaderError("the data set is not deflated as its transfer syntax says") from error


class _Walker:
    """Reads element headers one after the other; skips values without reading them."""

    def __init__(self, data: BinaryIO, *, implicit: bool, little: bool) -> None:
        self._data = data
        self._implicit = implicit
        self._order = "<" if little else ">"
        self._read_bytes = 0
        self._elements = 0
        here = data.tell()
        self._end = data.seek(0, io.SEEK_END)
        data.seek(here)

    def collect(self, wanted: Mapping[int, str]) -> dict[str, bytes]:
        """Return the raw values of the wanted tags, up to the last of them."""
        found: dict[str, bytes] = {}
        last = max(wanted)
        while self._data.tell() < self._end:
            tag = self._tag()
            if tag > last:
                break
            vr, length = self._vr_and_length()
            if length == UNDEFINED:
                self._skip_sequence(implicit=self._implicit or vr == b"UN")
            elif tag in wanted:
                found[wanted[tag]] = self._value(tag, length)
            else:
                self._skip(length)
        return found

    def _read(self, count: int) -> bytes:
        self._read_bytes += count
        if self._read_bytes > MOST_BYTES:
            raise HeaderError(f"the header is longer than {MOST_BYTES} bytes")
        content = self._data.read(count)
        if len(content) < count:
            raise HeaderError("the data set ends inside an element")
        return content

    def _tag(self) -> int:
        self._elements += 1
        if self._elements > MOST_ELEMENTS:
            raise HeaderError(f"the header has more than {MOST_ELEMENTS} elements")
        group, element = struct.unpack(self._order + "HH", self._read(4))
        return int(group) << 16 | int(element)

    def _vr_and_length(self, *, implicit: bool | None = None) -> tuple[bytes, int]:
        if self._implicit if implicit is None else implicit:
            return b"", self._long()
        vr = self._read(2)
        if not (vr.isalpha() and vr.isupper()):
            raise HeaderError("an element has no value representation: wrong transfer syntax?")
        if vr in LONG_FORM:
            self._read(2)
            return vr, self._long()
        (length,) = struct.unpack(self._order + "H", self._read(2))
        return vr, int(length)

    def _long(self) -> int:
        (length,) = struct.unpack(self._order + "I", self._read(4))
        return int(length)

    def _value(self, tag: int, length: int) -> bytes:
        if length > LONGEST_VALUE:
            raise HeaderError(f"{_shown(tag)} is longer than {LONGEST_VALUE} bytes")
        return self._read(length)

    def _skip(self, length: int) -> None:
        if self._data.tell() + length > self._end:
            raise HeaderError("the data set ends inside an element")
        self._data.seek(length, io.SEEK_CUR)

    def _skip_sequence(self, *, implicit: bool) -> None:
        """Skip a value of undefined length: items, and sequences in them (PS3.5 7.5)."""
        stack = ["sequence"]
        while stack:
            if len(stack) > DEEPEST:
                raise HeaderError(f"sequences are nested deeper than {DEEPEST}")
            tag = self._tag()
            if stack[-1] == "sequence":
                self._in_sequence(tag, stack)
            else:
                self._in_item(tag, stack, implicit=implicit)

    def _in_sequence(self, tag: int, stack: list[str]) -> None:
        length = self._long()
        if tag == SEQUENCE_END:
            stack.pop()
        elif tag != ITEM:
            raise HeaderError(f"{_shown(tag)} stands where an item was expected")
        elif length == UNDEFINED:
            stack.append("item")
        else:
            self._skip(length)

    def _in_item(self, tag: int, stack: list[str], *, implicit: bool) -> None:
        if tag == ITEM_END:
            self._long()
            stack.pop()
            return
        _, length = self._vr_and_length(implicit=implicit)
        if length == UNDEFINED:
            stack.append("sequence")
        else:
            self._skip(length)


def _tag(keyword: str) -> int:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise HeaderError(f"{keyword} is no DICOM keyword")
    return tag


def _shown(tag: int) -> str:
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X}) {keyword_for_tag(tag)}".rstrip()


def _uid(raw: Mapping[str, bytes], keyword: str) -> str:
    value = raw.get(keyword, b"").rstrip(b"\0 ")
    if not value:
        raise HeaderError(f"{_shown(_tag(keyword))} is missing")
    text = value.decode("ascii", errors="replace")
    if len(text) > LONGEST_UID or not UID_PATTERN.fullmatch(text):
        raise HeaderError(f"{_shown(_tag(keyword))} is not a valid UID")
    return text


def _encodings(raw: bytes) -> list[str]:
    """Return Python's names of the character sets (PS3.3 C.12.1.1.2); unknown ones are left out."""
    terms = [term.strip() for term in raw.decode("ascii", errors="replace").split("\\")]
    names = [python_encoding[term] for term in terms if term in python_encoding]
    return names or ["iso8859"]


def _text(raw: bytes, encodings: list[str]) -> str:
    """Decode a value; control characters, which could forge log lines, become blanks."""
    if len(encodings) > 1 or encodings[0].startswith("iso2022"):  # code extensions
        text = decode_bytes(raw, encodings, {0x5C, 0x5E, 0x3D})
    else:
        text = raw.decode(encodings[0], errors="replace")
    return CONTROL.sub(" ", text).strip()
