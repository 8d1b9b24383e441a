"""What the index wants of a header, and nothing more.

All that the listener does with bytes off the wire is a bounded walk (`node.header_walk`).
Everything more belongs into the sandbox (`node.field_values`).

The slices of a series share nearly all of what the index wants: what is the same as in the header
before is taken over, not decoded again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pydicom.charset import decode_bytes, python_encoding
from pydicom.datadict import tag_for_keyword

from node.header_pattern import HeaderPatterns
from node.header_walk import HeaderError, ReadBytes, shown, walk
from storage.records import SeriesAttributes, StudyAttributes

__all__ = ["HeaderError", "HeaderReader", "IndexHeader", "MissingUidError", "read_index_header"]

LONGEST_UID: Final = 64
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


class MissingUidError(HeaderError):
    """A UID without which an instance has no place is missing; `tag` says which."""

    def __init__(self, tag: int) -> None:
        super().__init__(f"{shown(tag)} is missing")
        self.tag = tag


class HeaderReader:
    """Reads the headers that one association brings, one after the other."""

    def __init__(self) -> None:
        self._patterns = HeaderPatterns(WANTED)
        self._key: tuple[bytes | None, ...] = ()
        self._study = StudyAttributes()
        self._series = SeriesAttributes()
        self._uids = ("", "", "")
        self._maker = ("", "")

    def read(
        self, head: bytes | bytearray, size: int, read_bytes: ReadBytes, transfer_syntax_uid: str
    ) -> IndexHeader:
        """Read what the index wants of a data set (no preamble, no file meta).

        Args:
            head: its first bytes; where they do not suffice, `read_bytes` is asked for others.
            size: its length in bytes.
            read_bytes: reads any of its bytes.
            transfer_syntax_uid: how it is encoded.

        Raises:
            HeaderError: the bytes are no data set in this transfer syntax, end too soon, exceed a
                limit, or a UID is malformed (PS3.5 9.1).
            MissingUidError: a UID is missing.
        """
        raw = self._patterns.read(head, transfer_syntax_uid)
        if raw is None:
            raw = walk(head, size, read_bytes, transfer_syntax_uid, WANTED)
            self._patterns.learn(head, transfer_syntax_uid)
        key = tuple(map(raw.get, SHARED))
        if key != self._key:
            self._take(raw)
            self._key = key
        return IndexHeader(
            sop_class_uid=self._uids[2],
            sop_instance_uid=_uid(raw, SOP_INSTANCE_UID),
            study_instance_uid=self._uids[0],
            series_instance_uid=self._uids[1],
            instance_number=_text(raw.get(INSTANCE_NUMBER, b""), ["ascii"]),
            manufacturer=self._maker[0],
            manufacturer_model_name=self._maker[1],
            study=self._study,
            series=self._series,
        )

    def _take(self, raw: Mapping[int, bytes]) -> None:
        """Decode what the instances of a series have in common."""
        self._key = ()
        encodings = _encodings(raw.get(CHARACTER_SET, b""))

        def text(keyword: str) -> str:
            return _text(raw.get(_tag(keyword), b""), encodings)

        self._uids = (
            _uid(raw, _tag("StudyInstanceUID")),
            _uid(raw, _tag("SeriesInstanceUID")),
            _uid(raw, SOP_CLASS_UID),
        )
        self._maker = (
            _text(raw.get(MANUFACTURER, b""), ["iso8859"]),
            _text(raw.get(MODEL_NAME, b""), ["iso8859"]),
        )
        self._study = StudyAttributes(
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
        )
        self._series = SeriesAttributes(
            modality=text("Modality"),
            series_number=text("SeriesNumber"),
            series_description=text("SeriesDescription"),
            body_part_examined=text("BodyPartExamined"),
        )


def read_index_header(data: bytes, transfer_syntax_uid: str) -> IndexHeader:
    """Read what the index wants of a data set that is in memory.

    Raises:
        HeaderError
    """
    return HeaderReader().read(
        data, len(data), lambda start, length: data[start : start + length], transfer_syntax_uid
    )


def _tag(keyword: str) -> int:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise HeaderError(f"{keyword} is no DICOM keyword")
    return tag


def _uid(raw: Mapping[int, bytes], tag: int) -> str:
    value = raw.get(tag, b"").rstrip(b"\0 ")
    if not value:
        raise MissingUidError(tag)
    text = value.decode("ascii", errors="replace")
    if len(text) > LONGEST_UID or not UID_PATTERN.fullmatch(text):
        raise HeaderError(f"{shown(tag)} is not a valid UID")
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


WANTED: Final = frozenset(map(_tag, INDEXED))
SOP_CLASS_UID: Final = _tag("SOPClassUID")
SOP_INSTANCE_UID: Final = _tag("SOPInstanceUID")
INSTANCE_NUMBER: Final = _tag("InstanceNumber")
MANUFACTURER: Final = _tag("Manufacturer")
MODEL_NAME: Final = _tag("ManufacturerModelName")
CHARACTER_SET: Final = _tag("SpecificCharacterSet")
SHARED: Final = tuple(
    tag for tag in sorted(WANTED) if tag not in {SOP_INSTANCE_UID, INSTANCE_NUMBER}
)
"""What the instances of a series have in common."""
