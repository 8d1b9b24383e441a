"""A kept DICOM file (PS3.10) as a sender needs it: the file meta information, then bytes.

The data set is read a window at a time and never parsed, so that memory does not grow with the
object. Only an object that a peer takes in another transfer syntax alone is parsed.
"""

from __future__ import annotations

import io
import os
import re
import struct
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol

from pydicom import dcmread, dcmwrite
from pydicom.uid import UID

from node.interfaces import Outgoing

PREAMBLE: Final = 132  # 128 bytes and "DICM"
FIRST_READ: Final = 4096
MOST_FILE_META: Final = 1 << 20
FILE_META_GROUP: Final = 0x0002
DIGITS: Final = re.compile(r"[0-9.]{1,64}")
NOT_NAMED: Final = "the object has no SOP Class, SOP Instance or Transfer Syntax UID"
SOP_CLASS_UID: Final = 0x0002
SOP_INSTANCE_UID: Final = 0x0003
TRANSFER_SYNTAX_UID: Final = 0x0010
LONG_LENGTH: Final = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"UC", b"UN"))
LONG_LENGTH_TEXT: Final = frozenset((b"UR", b"UT", b"SV", b"UV"))

_SHORT: Final = struct.Struct("<HH2sH")
_LONG: Final = struct.Struct("<I")


class UnreadableError(Exception):
    """The file cannot be sent; the message says what is wrong with it."""


class DataSet(Protocol):
    """The encoded bytes of a data set."""

    @property
    def length(self) -> int:
        """Their number."""

    def read_into(self, window: memoryview, start: int) -> None:
        """Fill a window with the bytes from `start` on.

        Raises:
            UnreadableError: they are no longer there.
        """


class KeptFile:
    """An open DICOM file. Whoever opens it closes it.

    Raises:
        UnreadableError: it cannot be opened, or is no DICOM file with a data set.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise UnreadableError(f"the file cannot be read: {type(error).__name__}") from error
        try:
            meta, self._offset = self._file_meta()
            self.length = os.fstat(self._descriptor).st_size - self._offset
        except OSError as error:
            self.close()
            raise UnreadableError(f"the file cannot be read: {type(error).__name__}") from error
        except UnreadableError:
            self.close()
            raise
        self.sop_class_uid = _text(meta.get(SOP_CLASS_UID))
        self.sop_instance_uid = _text(meta.get(SOP_INSTANCE_UID))
        self.transfer_syntax_uid = _text(meta.get(TRANSFER_SYNTAX_UID))

    def __enter__(self) -> KeptFile:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def read_into(self, window: memoryview, start: int) -> None:
        """Fill a window with the bytes of the data set from `start` on.

        Raises:
            UnreadableError: the file has become shorter, or cannot be read any more.
        """
        done = 0
        while done < len(window):
            try:
                count = os.preadv(self._descriptor, [window[done:]], self._offset + start + done)
            except OSError as error:
                raise UnreadableError(f"the file cannot be read: {error.strerror}") from error
            if count == 0:
                raise UnreadableError("the file became shorter while it was sent")
            done += count

    def _file_meta(self) -> tuple[dict[int, bytes], int]:
        """Return the values of the file meta information by element, and where it ends."""
        head = os.pread(self._descriptor, FIRST_READ, 0)
        if head[128:PREAMBLE] != b"DICM":
            raise UnreadableError("the file is no DICOM file: it does not say DICM")
        try:
            return parse_file_meta(head)
        except _CutShortError:
            pass
        try:
            return parse_file_meta(os.pread(self._descriptor, MOST_FILE_META, 0))
        except _CutShortError as error:
            raise UnreadableError("the file has no data set") from error


class _CutShortError(Exception):
    """The file meta information goes on beyond these bytes, or nothing comes after it."""


def parse_file_meta(head: bytes) -> tuple[dict[int, bytes], int]:
    """Walk the elements of group 0002, Explicit VR Little Endian (PS3.10 7.1).

    Raises:
        UnreadableError: there are none.
    """
    values: dict[int, bytes] = {}
    at = PREAMBLE
    while True:
        if len(head) - at < _SHORT.size:
            raise _CutShortError
        group, element, vr, length = _SHORT.unpack_from(head, at)
        if group != FILE_META_GROUP or not (vr.isalpha() and vr.isupper()):
            break
        at += _SHORT.size
        if vr in LONG_LENGTH or vr in LONG_LENGTH_TEXT:
            if len(head) - at < _LONG.size:
                raise _CutShortError
            (length,) = _LONG.unpack_from(head, at)
            at += _LONG.size
        values[element] = head[at : at + length]
        at += length
    if not values:
        raise UnreadableError("the file has no file meta information in Explicit VR Little Endian")
    return values, at


def _text(value: bytes | None) -> str:
    return (value or b"").decode("ascii", "replace").rstrip("\0 ")


class Transcoded:
    """A data set encoded anew by pydicom, in memory, as Implicit or Explicit VR Little Endian.

    Raises:
        UnreadableError: pydicom cannot read or encode it, for which it raises all kinds of errors.
    """

    def __init__(self, path: Path, transfer_syntax_uid: str) -> None:
        encoded = io.BytesIO()
        try:
            dataset = dcmread(path)
            for part in ("file_meta", "preamble"):
                with suppress(AttributeError):
                    delattr(dataset, part)
            implicit = UID(transfer_syntax_uid).is_implicit_VR
            dcmwrite(encoded, dataset, implicit_vr=implicit, little_endian=True)
        except Exception as error:
            raise UnreadableError(
                f"its data set cannot be encoded as {name_of(transfer_syntax_uid)}: "
                f"{type(error).__name__}"
            ) from error
        self._encoded = encoded.getvalue()
        self.length = len(self._encoded)

    def read_into(self, window: memoryview, start: int) -> None:
        """Fill a window with its bytes from `start` on."""
        window[:] = self._encoded[start : start + len(window)]


def name_of(transfer_syntax_uid: str) -> str:
    """Return the name of a transfer syntax (PS3.6), or the UID where it is unknown."""
    return str(UID(transfer_syntax_uid).name)


def is_named(item: Outgoing) -> bool:
    """Say whether the three UIDs that every way out needs are there."""
    uids = (item.sop_class_uid, item.sop_instance_uid, item.transfer_syntax_uid)
    return all(DIGITS.fullmatch(uid) for uid in uids)


def wrong_in(kept: KeptFile, item: Outgoing) -> str:
    """Say what forbids to send a file as the object that it is announced as, or ""."""
    if not is_named(item):
        return NOT_NAMED
    if not kept.transfer_syntax_uid:
        return "the file does not say its transfer syntax"
    if kept.transfer_syntax_uid != item.transfer_syntax_uid:
        return f"the file is in another transfer syntax, {name_of(kept.transfer_syntax_uid)}"
    for found, announced in (
        (kept.sop_class_uid, item.sop_class_uid),
        (kept.sop_instance_uid, item.sop_instance_uid),
    ):
        if found and found != announced:
            return "the file holds another object: its file meta information has other UIDs"
    return ""
