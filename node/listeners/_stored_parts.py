"""Parts that are DICOM files (PS3.10), each into the intake as it comes; and what is answered."""

from __future__ import annotations

import json
import re
import struct
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

from node.interfaces import CannotUnderstand, IngestError, Intake, OutOfResources
from node.listeners._transfer_syntaxes import TRANSFER_SYNTAXES

PREAMBLE: Final = 132  # 128 bytes and "DICM"
MOST_FILE_META: Final = 64 << 10
GROUP: Final = 0x0002
SOP_CLASS: Final = 0x0002
SOP_INSTANCE: Final = 0x0003
TRANSFER_SYNTAX: Final = 0x0010
LONG_FORM: Final = frozenset({b"OB", b"OW", b"UN", b"UT", b"SQ", b"UC", b"UR", b"OD", b"OF", b"OL"})
SHORT: Final = struct.Struct("<HH2sH")
LONG: Final = struct.Struct("<I")
DICOM: Final = "application/dicom"
PROCESSING_FAILURE: Final = 0x0110
OUT_OF_RESOURCES: Final = 0xA700
STORAGE_CLASSES: Final = "1.2.840.10008.5.1.4.1.1."
LONGEST_HEADING: Final = 12  # of an element: tag, VR, length
UID_PATTERN: Final = re.compile(r"[0-9.]{1,64}")


class TooManyError(Exception):
    """There are more parts than are taken at once."""


@dataclass(slots=True)
class Outcome:
    """What became of the parts: references kept, references refused with the reason, others."""

    stored: list[tuple[str, str]] = field(default_factory=list)
    failed: list[tuple[str, str, int]] = field(default_factory=list)
    nameless: list[int] = field(default_factory=list)

    def status(self) -> HTTPStatus:
        """Return the status of the whole (PS3.18 table 10.5.3-1)."""
        reasons = [reason for _, _, reason in self.failed] + self.nameless
        if not reasons:
            return HTTPStatus.OK
        if self.stored:
            return HTTPStatus.ACCEPTED
        if all(reason == OUT_OF_RESOURCES for reason in reasons):
            return HTTPStatus.SERVICE_UNAVAILABLE
        return HTTPStatus.CONFLICT

    def content(self) -> bytes:
        """Return the answer's data set in JSON (PS3.18 table I.2-1)."""
        found: dict[str, object] = {"00081190": {"vr": "UR"}}
        if self.failed:
            items = [
                {**_reference(*names), "00081197": {"vr": "US", "Value": [reason]}}
                for *names, reason in self.failed
            ]
            found["00081198"] = {"vr": "SQ", "Value": items}
        if self.stored:
            kept = [{**_reference(*names), "00081190": {"vr": "UR"}} for names in self.stored]
            found["00081199"] = {"vr": "SQ", "Value": kept}
        if self.nameless:
            others = [{"00081197": {"vr": "US", "Value": [reason]}} for reason in self.nameless]
            found["0008119A"] = {"vr": "SQ", "Value": others}
        return json.dumps(found, separators=(",", ":")).encode()


def _reference(sop_class_uid: str, sop_instance_uid: str) -> dict[str, object]:
    return {
        "00081150": {"vr": "UI", "Value": [sop_class_uid]},
        "00081155": {"vr": "UI", "Value": [sop_instance_uid]},
    }


class StoredParts:
    """Takes the parts of one request; a part that is refused stops no other."""

    def __init__(self, intake: Intake, most_parts: int) -> None:
        self.outcome = Outcome()
        self._intake = intake
        self._left = most_parts
        self._head = bytearray()
        self._names = ("", "", "")  # SOP class, SOP instance, transfer syntax
        self._in_part = False
        self._taking = False  # the intake has begun with this part
        self._reason: int | None = None  # this part is refused: the rest of it is passed over

    def begin(self) -> None:
        """Start a part.

        Raises:
            TooManyError
        """
        if self._left <= 0:
            raise TooManyError
        self._left -= 1
        self._head.clear()
        self._names = ("", "", "")
        self._taking, self._reason, self._in_part = False, None, True

    def headers(self, content_type: str) -> None:
        """Hold that it is a DICOM file."""
        kind = content_type.partition(";")[0].strip().lower()
        if kind not in {"", DICOM}:
            self._refuse(CannotUnderstand(f"the part is not {DICOM}"))

    def data(self, piece: memoryview) -> None:
        """Take bytes of it: file meta is parsed, the data set goes on as it is."""
        if self._reason is not None:
            return
        try:
            if self._taking:
                self._intake.write([piece])
            else:
                self._look(piece)
        except IngestError as error:
            self._refuse(error)

    def end(self) -> None:
        """End the part: when this returns it is durable, or known to be refused."""
        if self._reason is None:
            try:
                if not self._taking:
                    raise CannotUnderstand("the part ends within its file meta information")
                self._intake.finish()
            except IngestError as error:
                self._refuse(error)
            else:
                self.outcome.stored.append(self._names[:2])
        if self._reason is not None:
            self._tell(self._reason)
        self._taking = self._in_part = False

    def cut(self) -> None:
        """Give up what was begun: the body ended within a part."""
        if self._taking and self._reason is None:
            self._intake.abandon()
        if self._in_part:
            self._tell(self._reason or PROCESSING_FAILURE)
        self._taking = self._in_part = False

    # ------------------------------------------------------------ within

    def _refuse(self, error: IngestError) -> None:
        self._reason = error.status
        if isinstance(error, OutOfResources):
            self._reason = OUT_OF_RESOURCES

    def _tell(self, reason: int) -> None:
        sop_class_uid, sop_instance_uid, _ = self._names
        if sop_instance_uid:
            self.outcome.failed.append((sop_class_uid, sop_instance_uid, reason))
        else:
            self.outcome.nameless.append(reason)

    def _look(self, piece: memoryview) -> None:
        """Gather the file meta information; once it is whole, start the instance."""
        room = MOST_FILE_META - len(self._head)
        self._head += piece[:room]
        found = read_file_meta(self._head)
        if found is None:
            if len(self._head) >= MOST_FILE_META:
                raise CannotUnderstand("the file meta information has no end")
            return
        names, behind = found
        if all(UID_PATTERN.fullmatch(name) for name in names[:2]):
            self._names = names
        _hold_supported(*names)
        self._intake.begin(*names)
        self._taking = True
        self._intake.write([memoryview(bytes(self._head[behind:])), piece[room:]])


class ClassNotSupported(IngestError):
    """It is of no storage SOP class."""

    status = 0x0122


class SyntaxNotSupported(IngestError):
    """Its transfer syntax is none that is accepted here."""

    status = 0xC122


def _hold_supported(sop_class_uid: str, _sop_instance_uid: str, transfer_syntax_uid: str) -> None:
    if UID_PATTERN.fullmatch(sop_class_uid) and not sop_class_uid.startswith(STORAGE_CLASSES):
        raise ClassNotSupported("no storage SOP class of the standard")
    if transfer_syntax_uid not in TRANSFER_SYNTAXES:
        raise SyntaxNotSupported("another transfer syntax than those accepted")


def read_file_meta(head: bytes | bytearray) -> tuple[tuple[str, str, str], int] | None:
    """Return SOP class, SOP instance and transfer syntax, and where the data set starts.

    None: it goes on behind these bytes.

    Raises:
        CannotUnderstand: this is no DICOM file (PS3.10 7.1).
    """
    if len(head) < PREAMBLE:
        return None
    if head[128:PREAMBLE] != b"DICM":
        raise CannotUnderstand("the part is no DICOM file: it does not say DICM")
    found = _elements(head)
    if found is None:
        return None
    values, at = found
    names = tuple(_text(values.get(key, b"")) for key in (SOP_CLASS, SOP_INSTANCE, TRANSFER_SYNTAX))
    if not all(names):
        raise CannotUnderstand("the file meta information lacks a UID")
    return (names[0], names[1], names[2]), at


def _elements(head: bytes | bytearray) -> tuple[dict[int, bytes], int] | None:
    """Return the values of group 0002 by element, and where it ends; None: further on."""
    values: dict[int, bytes] = {}
    at = PREAMBLE
    while True:
        if len(head) - at < LONGEST_HEADING:
            return None
        group, element, vr, length = SHORT.unpack_from(head, at)
        if group != GROUP:
            return values, at
        at += SHORT.size
        if vr in LONG_FORM:
            (length,) = LONG.unpack_from(head, at)
            at += LONG.size
        if at + length > MOST_FILE_META:
            raise CannotUnderstand("the file meta information is too long")
        values[element] = bytes(head[at : at + length])
        at += length


def _text(value: bytes) -> str:
    return value.decode("ascii", "replace").rstrip("\0 ")
