"""A strict walk over the elements of a data set in memory (PS3.5 7), for data sets that are plain.

It reads what is encoded as the standard asks for, in ascending order, and nothing else: anything
unusual raises `UnusualError`, and the caller turns to pydicom, which knows what writers get wrong.
So wherever this walk reads elements, pydicom reads the same ones. Knows no pixels and no files.
"""

from __future__ import annotations

import struct
from collections.abc import Set
from typing import Final, TypeAlias

from pydicom.datadict import dictionary_VR

UNDEFINED: Final = 0xFFFFFFFF
ITEM: Final = 0xFFFEE000
ITEM_END: Final = 0xFFFEE00D
SEQUENCE_END: Final = 0xFFFEE0DD
DELIMITERS: Final = 0xFFFE
SPECIFIC_CHARACTER_SET: Final = 0x00080005
LONG_FORM: Final = frozenset(
    {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
)
"""Value representations with two reserved bytes and a 32-bit length (PS3.5 7.1.2)."""
SHORT_FORM: Final = frozenset(
    {b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FL", b"FD", b"IS", b"LO", b"LT", b"PN",
     b"SH", b"SL", b"SS", b"ST", b"TM", b"UI", b"UL", b"US"}
)  # fmt: skip
"""Those with a 16-bit length."""
DEEPEST: Final = 16
LATIN: Final = ("100", "101", "109", "110", "126", "127", "138", "144", "148", "166")
ALONE: Final = frozenset({"", "ISO_IR 6", "ISO_IR 192", "GB18030", "GBK"}) | {
    f"ISO_IR {number}" for number in LATIN
}
FIRST: Final = frozenset({"", "ISO 2022 IR 6", "ISO 2022 IR 100"})
FURTHER: Final = frozenset({"ISO 2022 IR 58", "ISO 2022 IR 87", "ISO 2022 IR 149"}) | {
    f"ISO 2022 IR {number}" for number in LATIN
}

RawValue: TypeAlias = tuple[bytes, bytes]
"""Value representation (empty in the implicit form) and value, as they are encoded."""

_EXPLICIT: Final = struct.Struct("<HH2sH").unpack_from
_IMPLICIT: Final = struct.Struct("<HHI").unpack_from
_LENGTH: Final = struct.Struct("<I").unpack_from


class UnusualError(Exception):
    """The bytes are not as plain as the walk asks for; they may still be readable."""


class ShortWindowError(Exception):
    """The walk has to see bytes up to `needed`, which lie behind those in memory."""

    def __init__(self, needed: int) -> None:
        super().__init__(f"{needed} bytes are needed")
        self.needed = needed


class ElementWalk:
    """Steps over the elements of one data set, little endian.

    `window` holds its first bytes, or all of them, and `end` says where it ends; positions are
    indices in the window.
    """

    def __init__(self, window: bytes, end: int, *, implicit: bool) -> None:
        self._window = window
        self._end = end
        self._limit = min(end, len(window))
        self._implicit = implicit

    def collect(
        self, at: int, wanted: Set[int], *, above: int, stop: int
    ) -> tuple[dict[int, RawValue], int]:
        """Return the wanted values, and where the first element with a tag from `stop` on lies.

        Args:
            at: where the first element lies.
            wanted: tags of the top level.
            above: the tags must be greater than this one, and than each other.
            stop: where the walk ends; the position is the end of the data set if there is none.

        Raises:
            UnusualError, ShortWindowError
        """
        window, limit, implicit = self._window, self._limit, self._implicit
        read, short = _EXPLICIT, SHORT_FORM
        found: dict[int, RawValue] = {}
        while at + 8 <= limit:
            group, element, vr, length = read(window, at)
            tag = group << 16 | element
            if tag <= above:
                raise UnusualError("tags that do not ascend")
            if tag >= stop:
                return found, at
            above = tag
            value = at + 8
            if implicit or vr not in short:
                vr, length, value = self._long(at, vr)
            if length == UNDEFINED:
                at = self._behind_undefined(tag, vr, value, 0)
            else:
                at = value + length
            if tag in wanted:
                self._need(at)
                found[tag] = vr, window[value:at]
        if at != self._end:
            raise self._lacking(at + 8)
        return found, at

    def value_of(self, at: int) -> tuple[bytes, int, int]:
        """Return value representation, length (maybe `UNDEFINED`) and position of a value.

        Raises:
            UnusualError, ShortWindowError
        """
        self._need(at + 8)
        vr: bytes = self._window[at + 4 : at + 6]
        if not self._implicit and vr in SHORT_FORM:
            return vr, int.from_bytes(self._window[at + 6 : at + 8], "little"), at + 8
        return self._long(at, vr)

    def _long(self, at: int, vr: bytes) -> tuple[bytes, int, int]:
        """Read the start of an element whose length has 32 bits."""
        if self._implicit:
            (length,) = _LENGTH(self._window, at + 4)
            return b"", length, at + 8
        if vr not in LONG_FORM:
            raise UnusualError("no known value representation")
        self._need(at + 12)
        (length,) = _LENGTH(self._window, at + 8)
        return vr, length, at + 12

    def _behind_undefined(self, tag: int, vr: bytes, at: int, depth: int) -> int:
        """Step over a value of undefined length, which has to be a sequence."""
        if depth > DEEPEST:
            raise UnusualError("sequences nested too deep")
        if not self._is_sequence(tag, vr, at):
            raise UnusualError("undefined length outside a sequence")
        while True:
            self._need(at + 8)
            group, element, length = _IMPLICIT(self._window, at)
            at += 8
            tag = group << 16 | element
            if tag == SEQUENCE_END:
                return at
            if tag != ITEM:
                raise UnusualError("no item where one has to be")
            at = self._behind_item(at, None if length == UNDEFINED else at + length, depth)

    def _is_sequence(self, tag: int, vr: bytes, at: int) -> bool:
        """Say whether a value of undefined length is made of items, as pydicom would find."""
        if not self._implicit:
            return vr == b"SQ"
        if tag >> 16 & 1:
            self._need(at + 4)
            group, element = struct.unpack_from("<HH", self._window, at)
            return bool((group << 16 | element) == ITEM)
        try:
            return dictionary_VR(tag) == "SQ"
        except KeyError:
            return False

    def _behind_item(self, at: int, end: int | None, depth: int) -> int:
        """Step over the elements of an item, to `end` or behind its delimiter."""
        while at != end:
            self._need(at + 8)
            group, element, vr, _ = _EXPLICIT(self._window, at)
            tag = group << 16 | element
            if tag == ITEM_END and end is None:
                return at + 8
            if group == DELIMITERS:
                raise UnusualError("a delimiter where none may be")
            vr, length, value = self.value_of(at)
            if length == UNDEFINED:
                at = self._behind_undefined(tag, vr, value, depth + 1)
            else:
                at = value + length
                if tag == SPECIFIC_CHARACTER_SET:
                    self._need(at)
                    check_character_set(vr, self._window[value:at])
            if end is not None and at > end:
                raise UnusualError("an element that is longer than its item")
        return at

    def _need(self, end: int) -> None:
        if end > self._limit:
            raise self._lacking(end)

    def _lacking(self, end: int) -> UnusualError | ShortWindowError:
        if end > self._end:
            return UnusualError("the data set ends inside an element")
        return ShortWindowError(end)


def check_character_set(vr: bytes, value: bytes) -> None:
    """Accept character sets in which the bytes of ASCII are ASCII (PS3.3 C.12.1.1.2).

    Raises:
        UnusualError: all others.
    """
    if vr not in (b"CS", b"") or not value.isascii():
        raise UnusualError("a character set that is not known")
    first, *further = value.decode("ascii").rstrip(" \0").split("\\")
    if not further and first in ALONE:
        return
    if not further or first not in FIRST or not FURTHER.issuperset(further):
        raise UnusualError("a character set that is not known")
