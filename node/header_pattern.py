"""The header of one instance as a pattern for the next: what stood still, and what changed.

The slices of a series have nearly all header bytes in common. Where the bytes between the elements
that change are those of the header before, the elements in them are too: their wanted values are
known, and only what changes is read. Anything else is a matter for `node.header_walk`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Final, TypeAlias

from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
)

from node.header_walk import (
    LONG_FORM,
    LONGEST_VALUE,
    SHORT_FORM,
    UNDEFINED,
    Element,
    elements_in,
)

EXPLICIT: Final = struct.Struct("<HH2sH")
IMPLICIT: Final = struct.Struct("<HHI")
LONG: Final = struct.Struct("<I")
MOST_CHANGING: Final = 40
MOST_MISSES: Final = 8
"""After so many walks one after the other, an association's headers have nothing in common."""
OTHER_ENCODINGS: Final = frozenset({DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian})

Values: TypeAlias = Mapping[int, bytes]
_Header: TypeAlias = tuple[bytes, Sequence[Element]]


class HeaderPatterns:
    """Reads the wanted values of headers that come one after the other."""

    def __init__(self, wanted: Set[int]) -> None:
        self._wanted = wanted
        self._last = max(wanted)
        self._pattern: _Pattern | None = None
        self._before: _Header | None = None
        self._syntax = ""
        self._misses = 0

    def read(self, head: bytes | bytearray, transfer_syntax_uid: str) -> Values | None:
        """Return what a walk over this data set would find; None where a walk is needed.

        Args:
            head: the first bytes of the data set.
            transfer_syntax_uid: how it is encoded.
        """
        if self._pattern is None or transfer_syntax_uid != self._syntax:
            return None
        found = self._pattern.read(head)
        if found is not None:
            self._misses = 0
        return found

    def learn(self, head: bytes | bytearray, transfer_syntax_uid: str) -> None:
        """Take a header that was walked over as an example for those that follow."""
        if self._misses >= MOST_MISSES or transfer_syntax_uid in OTHER_ENCODINGS:
            return
        self._misses += 1
        before = self._before if transfer_syntax_uid == self._syntax else None
        self._syntax, self._pattern = transfer_syntax_uid, None
        content = bytes(head[:LONGEST_VALUE])
        now = self._before = (content, elements_in(content, transfer_syntax_uid, self._last))
        if before is not None:
            implicit = transfer_syntax_uid == ImplicitVRLittleEndian
            self._pattern = _common(before, now, self._wanted, implicit=implicit)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pattern:
    """Bytes that stand still, each followed by an element that changes, and what stands behind."""

    values: dict[int, bytes]  # of the wanted elements that stand still
    runs: tuple[tuple[bytes, int, int, bool], ...]
    """Bytes; then the element: its tag, how many bytes stand before its value, if it is wanted."""
    rest: bytes
    last: int
    heading: Callable[[bytes | bytearray, int], tuple[int, int, int]]
    """(head, position) -> tag, where the value starts, its length."""

    def read(self, head: bytes | bytearray) -> Values | None:
        """Return the wanted values; None if this is not the same header."""
        found = self.values.copy()
        position, heading, end = 0, self.heading, min(len(head), LONGEST_VALUE)
        try:
            for still, tag, before, wanted in self.runs:
                if not head.startswith(still, position):
                    return None
                begin = position + len(still)
                there, start, length = heading(head, begin)
                position = start + length
                if there != tag or start - begin != before or position > end:
                    return None
                if wanted:
                    found[tag] = bytes(head[start:position])
            behind = heading(head, position + len(self.rest))[0]
        except struct.error:  # a heading that does not fit
            return None
        return found if head.startswith(self.rest, position) and behind > self.last else None


def _common(before: _Header, now: _Header, wanted: Set[int], *, implicit: bool) -> _Pattern | None:
    """Return what two headers have in common, if they have the same elements."""
    (first, ones), (second, others) = before, now
    tags = [element.tag for element in others]
    if not tags or len(set(tags)) < len(tags) or [element.tag for element in ones] != tags:
        return None
    heading = _implicit_heading if implicit else _explicit_heading
    values: dict[int, bytes] = {}
    runs: list[tuple[bytes, int, int, bool]] = []
    since = 0
    for one, other in zip(ones, others, strict=True):
        if first[one.start : one.end] == second[other.start : other.end]:
            if other.tag in wanted:
                values[other.tag] = second[other.value : other.end]
            continue
        if heading(second, other.start) != (other.tag, other.value, other.end - other.value):
            return None  # a sequence without a length
        still, before_value = second[since : other.start], other.value - other.start
        runs.append((still, other.tag, before_value, other.tag in wanted))
        since = other.end
    if len(runs) > MOST_CHANGING:
        return None
    return _Pattern(
        values=values,
        runs=tuple(runs),
        rest=second[since : others[-1].end],
        last=max(wanted),
        heading=heading,
    )


def _implicit_heading(head: bytes | bytearray, position: int) -> tuple[int, int, int]:
    group, element, length = IMPLICIT.unpack_from(head, position)
    return group << 16 | element, position + 8, length


def _explicit_heading(head: bytes | bytearray, position: int) -> tuple[int, int, int]:
    group, element, vr, length = EXPLICIT.unpack_from(head, position)
    if vr in SHORT_FORM:
        return group << 16 | element, position + 8, length
    if vr in LONG_FORM:
        return group << 16 | element, position + 12, LONG.unpack_from(head, position + 8)[0]
    return group << 16 | element, position + 8, UNDEFINED
