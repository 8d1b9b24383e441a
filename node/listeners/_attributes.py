"""A bounded reading of the data set of an N-CREATE or N-SET: a few elements, the rest passed over.

Bytes off the wire: what is asked for is copied out, the rest is stepped over, within limits on
elements and nesting. Nothing is inflated, and no value is decoded.
"""

from __future__ import annotations

import struct
from collections.abc import Set
from dataclasses import dataclass, field
from typing import Final

IMPLICIT_LITTLE: Final = "1.2.840.10008.1.2"
EXPLICIT_LITTLE: Final = "1.2.840.10008.1.2.1"
SYNTAXES: Final = (EXPLICIT_LITTLE, IMPLICIT_LITTLE)
"""What can be read: the others are deflated or retired, and every SCU has to offer the second."""

MOST_BYTES: Final = 2 << 20
MOST_ELEMENTS: Final = 100_000
DEEPEST: Final = 16
UNDEFINED: Final = 0xFFFFFFFF
ITEM: Final = 0xFFFEE000
ITEM_END: Final = 0xFFFEE00D
SEQUENCE_END: Final = 0xFFFEE0DD
LONG_FORM: Final = frozenset(
    {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
)
"""Value representations with two reserved bytes and a 32-bit length (PS3.5 7.1.2)."""
PLAIN: Final = struct.Struct("<HHI")
EXPLICIT: Final = struct.Struct("<HH2sH")
LONG: Final = struct.Struct("<I")


class AttributesError(Exception):
    """The data set cannot be read; the message names no value of it."""


@dataclass(frozen=True, slots=True)
class Attributes:
    """What was asked for of a data set, or of an item: raw values and sequences, by tag."""

    values: dict[int, bytes] = field(default_factory=dict)
    sequences: dict[int, tuple[Attributes, ...]] = field(default_factory=dict)


NOTHING: Final = Attributes()  # every empty item


@dataclass(frozen=True, slots=True)
class Encoded:
    """A data set as it came."""

    content: bytes
    transfer_syntax_uid: str


def read_attributes(encoded: Encoded, values: Set[int], sequences: Set[int]) -> Attributes:
    """Return the elements with these tags, wherever they stand in these sequences.

    Raises:
        AttributesError: it is no data set in this transfer syntax, or exceeds a limit.
    """
    content, syntax = encoded.content, encoded.transfer_syntax_uid
    if syntax not in SYNTAXES:
        raise AttributesError("the transfer syntax is not one that is read here")
    if len(content) > MOST_BYTES:
        raise AttributesError(f"the data set is longer than {MOST_BYTES} bytes")
    reader = _Reader(content, values, sequences)
    try:
        found, _ = reader.data_set(0, len(content), 0, implicit=syntax == IMPLICIT_LITTLE)
    except struct.error as error:
        raise AttributesError("the data set ends inside an element") from error
    return found


class _Reader:
    """Descends into sequences; `implicit` says how the elements there are encoded."""

    def __init__(self, content: bytes, values: Set[int], sequences: Set[int]) -> None:
        self._content = content
        self._values = values
        self._sequences = sequences
        self._elements = 0

    def data_set(
        self, position: int, end: int, depth: int, *, implicit: bool, item: bool = False
    ) -> tuple[Attributes, int]:
        """Read elements up to `end`, or in an item of undefined length to its delimiter."""
        found = Attributes()
        while position < end:
            tag, vr, length, position = self._element(position, implicit=implicit)
            if tag == ITEM_END and item:
                return found, position
            if length == UNDEFINED or tag in self._sequences:
                inner = implicit or vr == b"UN"  # PS3.5 6.2.2, note on UN of undefined length
                stop = end if length == UNDEFINED else self._over(position, length, end)
                items, position = self._items(
                    position, stop, depth + 1, implicit=inner, delimited=length == UNDEFINED
                )
                if tag in self._sequences:
                    found.sequences[tag] = items
                continue
            behind = self._over(position, length, end)
            if tag in self._values:
                found.values[tag] = self._content[position:behind]
            position = behind
        if item:
            raise AttributesError("an item has no end")
        return found, position

    def _items(
        self, position: int, end: int, depth: int, *, implicit: bool, delimited: bool
    ) -> tuple[tuple[Attributes, ...], int]:
        """Read the items of a sequence (PS3.5 7.5); return where it ends."""
        if depth > DEEPEST:
            raise AttributesError(f"sequences are nested deeper than {DEEPEST}")
        items: list[Attributes] = []
        while position < end:
            tag, _, length, position = self._element(position, implicit=True)
            if tag == SEQUENCE_END and delimited:
                return tuple(items), position
            if tag != ITEM:
                raise AttributesError("something else stands where an item was expected")
            if not length:
                items.append(NOTHING)
                continue
            undefined = length == UNDEFINED
            stop = end if undefined else self._over(position, length, end)
            item, position = self.data_set(position, stop, depth, implicit=implicit, item=undefined)
            items.append(item)
        if delimited:
            raise AttributesError("a sequence has no end")
        return tuple(items), position

    def _element(self, position: int, *, implicit: bool) -> tuple[int, bytes, int, int]:
        """Return tag, value representation and length, and where the value starts."""
        self._elements += 1
        if self._elements > MOST_ELEMENTS:
            raise AttributesError(f"the data set has more than {MOST_ELEMENTS} elements")
        group, element, length = PLAIN.unpack_from(self._content, position)
        tag = group << 16 | element
        if implicit or group == ITEM >> 16:
            return tag, b"", length, position + 8
        _, _, vr, length = EXPLICIT.unpack_from(self._content, position)
        if not (vr.isalpha() and vr.isupper()):
            raise AttributesError("an element has no value representation: wrong transfer syntax?")
        if vr not in LONG_FORM:
            return tag, vr, length, position + 8
        (length,) = LONG.unpack_from(self._content, position + 8)
        return tag, vr, length, position + 12

    @staticmethod
    def _over(position: int, length: int, end: int) -> int:
        if position + length > end:
            raise AttributesError("an element is longer than what it stands in")
        return position + length
