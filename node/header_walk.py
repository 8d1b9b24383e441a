"""A bounded walk over the elements of a data set, in place: for bytes off the wire.

Top-level elements only, up to the last one that is wanted, within limits on bytes, elements and
nesting. Values are stepped over, not read.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence, Set
from typing import Final, NamedTuple, TypeAlias

from pydicom.datadict import keyword_for_tag
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
)

MOST_BYTES: Final = 4 << 20  # read, not skipped
MOST_ELEMENTS: Final = 100_000
DEEPEST: Final = 100
LONGEST_VALUE: Final = 64 << 10
UNDEFINED: Final = 0xFFFFFFFF
ITEM: Final = 0xFFFEE000
ITEM_END: Final = 0xFFFEE00D
SEQUENCE_END: Final = 0xFFFEE0DD
LONG_FORM: Final = frozenset(
    {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
)
"""Value representations with two reserved bytes and a 32-bit length (PS3.5 7.1.2)."""
SHORT_FORM: Final = frozenset(
    {b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FL", b"FD", b"IS", b"LO", b"LT", b"PN",
     b"SH", b"SL", b"SS", b"ST", b"TM", b"UI", b"UL", b"US"}
)  # fmt: skip
"""Those with a 16-bit length."""
WINDOW: Final = 4 << 10
"""How many bytes are read at once where the first ones do not suffice."""

ReadBytes: TypeAlias = Callable[[int, int], bytes]
"""(offset from the start of the data set, length) -> those bytes, fewer where the data set ends."""


class Element(NamedTuple):
    """Where an element lies in a data set: its start, its value, and what is behind it."""

    tag: int
    start: int
    value: int
    end: int


class HeaderError(Exception):
    """The header cannot be read; the message names the tag or the limit, and no value."""


def walk(
    head: bytes | bytearray,
    size: int,
    read_bytes: ReadBytes,
    transfer_syntax_uid: str,
    wanted: Set[int],
) -> dict[int, bytes]:
    """Return the raw values of the wanted tags.

    Args:
        head: the first bytes of the data set; where they do not suffice, `read_bytes` is asked.
        size: the length of the data set.
        read_bytes: reads any of its bytes.
        transfer_syntax_uid: how it is encoded.
        wanted: tags, none of them in a sequence.

    Raises:
        HeaderError: the bytes are no data set in this transfer syntax, end too soon, or exceed a
            limit.
    """
    if transfer_syntax_uid == DeflatedExplicitVRLittleEndian:
        head = _inflated(read_bytes(0, MOST_BYTES))
        size, read_bytes = len(head), lambda start, length: bytes(head[start : start + length])
    walker = _Walker(
        head,
        size,
        read_bytes,
        implicit=transfer_syntax_uid == ImplicitVRLittleEndian,
        little=transfer_syntax_uid != ExplicitVRBigEndian,
        wanted=wanted,
    )
    return walker.collect()


def elements_in(head: bytes, transfer_syntax_uid: str, last: int) -> Sequence[Element]:
    """Return the elements up to a tag; none where not all of them lie in these bytes.

    Args:
        head: the first bytes of a data set.
        transfer_syntax_uid: how it is encoded; not deflated.
        last: the tag after which no element is wanted.
    """
    walker = _Walker(
        head,
        len(head),
        lambda _start, _length: b"",
        implicit=transfer_syntax_uid == ImplicitVRLittleEndian,
        little=transfer_syntax_uid != ExplicitVRBigEndian,
        wanted={last},
    )
    try:
        return walker.elements()
    except HeaderError:
        return ()


def _inflated(data: bytes) -> bytes:
    """Return the first bytes of a deflated data set; never more than the limit."""
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        return inflate.decompress(data, MOST_BYTES)
    except zlib.error as error:
        raise HeaderError("the data set is not deflated as its transfer syntax says") from error


class _Walker:
    """Steps from element to element in a window of the data set; values are stepped over.

    Positions are offsets in the data set; the window holds the bytes from `_base` on.
    """

    def __init__(
        self,
        head: bytes | bytearray,
        size: int,
        read_bytes: ReadBytes,
        *,
        implicit: bool,
        little: bool,
        wanted: Set[int],
    ) -> None:
        self._wanted = wanted
        self._last = max(wanted)
        self._window = head
        self._base = 0
        self._end = size
        self._read_bytes = read_bytes
        self._fetched = 0
        self._implicit = implicit
        order = "<" if little else ">"
        self._short = struct.Struct(order + "HH2sH").unpack_from
        self._plain = struct.Struct(order + "HHI").unpack_from
        self._long = struct.Struct(order + "I").unpack_from
        self._elements = 0

    def collect(self) -> dict[int, bytes]:
        """Return the raw values of the wanted tags, up to the last of them."""
        found: dict[int, bytes] = {}
        position = 0
        while position < self._end:
            position = self._plain_elements(position, found)
            if position >= self._end:
                break
            tag, length, value = self._element(position, implicit=self._implicit)
            if tag > self._last:
                break
            position = self._behind(value, length)
            if tag in self._wanted and length != UNDEFINED:
                if length > LONGEST_VALUE:
                    raise HeaderError(f"{shown(tag)} is longer than {LONGEST_VALUE} bytes")
                start = self._at(value, length)
                found[tag] = bytes(self._window[start : start + length])
        return found

    def elements(self) -> list[Element]:
        """Return the elements up to the last that is wanted; another one stands behind them.

        Raises:
            HeaderError: they do not end so, or not all of them are there.
        """
        found: list[Element] = []
        position = 0
        while True:
            tag, length, value = self._element(position, implicit=self._implicit)
            if tag > self._last:
                return found
            start, position = position, self._behind(value, length)
            found.append(Element(tag, start, value, position))

    def _behind(self, value: int, length: int) -> int:
        """Step over the value of the element in hand."""
        if length != UNDEFINED:
            return self._over(value, length)
        unknown = not self._implicit and self._vr == b"UN"
        return self._behind_sequence(value, implicit=self._implicit or unknown)

    def _plain_elements(self, position: int, found: dict[int, bytes]) -> int:
        """Take the elements of short explicit form that lie whole in the window; nearly all do.

        Returns where something else stands, or too much, or what ends the walk.
        """
        if self._implicit:
            return position
        window, base, short = self._window, self._base, self._short
        wanted, last = self._wanted, self._last
        start, stop = position - base, min(len(window), self._end - base)
        elements = self._elements
        while 0 <= start <= stop - 8:
            group, element, vr, length = short(window, start)
            tag = group << 16 | element
            behind = start + 8 + length
            if vr not in SHORT_FORM or behind > stop or tag > last:
                break
            if elements >= MOST_ELEMENTS:
                break
            elements += 1
            if tag in wanted:
                found[tag] = bytes(window[start + 8 : behind])
            start = behind
        self._elements = elements
        return start + base

    def _at(self, position: int, length: int) -> int:
        """Return the index in the window of some bytes; read on where they are not in it."""
        start = position - self._base
        if start >= 0 and start + length <= len(self._window):
            return start
        if position + length > self._end:
            raise HeaderError("the data set ends inside an element")
        self._window = self._read_bytes(position, max(length, WINDOW))
        self._base = position
        self._fetched += len(self._window)
        if self._fetched > MOST_BYTES:
            raise HeaderError(f"the header is longer than {MOST_BYTES} bytes")
        if len(self._window) < length:
            raise HeaderError("the data set ends inside an element")
        return 0

    def _element(self, position: int, *, implicit: bool) -> tuple[int, int, int]:
        """Return tag and value length of the element there, and where its value starts."""
        self._elements += 1
        if self._elements > MOST_ELEMENTS:
            raise HeaderError(f"the header has more than {MOST_ELEMENTS} elements")
        start = self._at(position, 8)
        if implicit:
            group, element, length = self._plain(self._window, start)
            return group << 16 | element, length, position + 8
        group, element, vr, length = self._short(self._window, start)
        self._vr = vr
        if vr in SHORT_FORM:
            return group << 16 | element, length, position + 8
        if vr not in LONG_FORM:
            if not (vr.isalpha() and vr.isupper()):
                raise HeaderError("an element has no value representation: wrong transfer syntax?")
            return group << 16 | element, length, position + 8
        start = self._at(position, 12)
        (length,) = self._long(self._window, start + 8)
        return group << 16 | element, length, position + 12

    def _behind_sequence(self, position: int, *, implicit: bool) -> int:
        """Step over a value of undefined length: items, and sequences in them (PS3.5 7.5)."""
        stack = ["sequence"]
        while stack:
            if len(stack) > DEEPEST:
                raise HeaderError(f"sequences are nested deeper than {DEEPEST}")
            if stack[-1] == "sequence":
                position = self._in_sequence(position, stack)
            else:
                position = self._in_item(position, stack, implicit=implicit)
        return position

    def _in_sequence(self, position: int, stack: list[str]) -> int:
        tag, length, value = self._element(position, implicit=True)
        if tag == SEQUENCE_END:
            stack.pop()
        elif tag != ITEM:
            raise HeaderError(f"{shown(tag)} stands where an item was expected")
        elif length == UNDEFINED:
            stack.append("item")
        else:
            return self._over(value, length)
        return value

    def _in_item(self, position: int, stack: list[str], *, implicit: bool) -> int:
        start = self._at(position, 8)
        group, element, _ = self._plain(self._window, start)
        if group << 16 | element == ITEM_END:
            stack.pop()
            self._elements += 1
            return position + 8
        _, length, value = self._element(position, implicit=implicit)
        if length == UNDEFINED:
            stack.append("sequence")
            return value
        return self._over(value, length)

    def _over(self, value: int, length: int) -> int:
        if value + length > self._end:
            raise HeaderError("the data set ends inside an element")
        return value + length


def shown(tag: int) -> str:
    """Return a tag for people: `(0008,0018) SOPInstanceUID`."""
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X}) {keyword_for_tag(tag)}".rstrip()
