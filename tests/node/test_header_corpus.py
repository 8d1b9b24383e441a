"""The header walk against a kept corpus of hostile headers, and what is made of them (T22).

Only the header error may come out, within bounded work, and what is read does not depend on how
much of the data set was at hand, or on what was read before. `make fuzz` tries 10,000 of them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from node.headers import UID_PATTERN, HeaderError, HeaderReader, IndexHeader, read_index_header
from tests.end_to_end.pdus import DEFLATED
from tests.node.hostile_headers import corpus, deflated, hostile_headers, inflated

CASES: Final = int(os.environ.get("FUZZ_CASES", "400"))
LONGEST_SECONDS: Final = 5.0  # of this thread's CPU: a bound on hanging, not a measurement
KEPT: Final = corpus()
INTERESTING: Final = (
    b"\xff\xff\xff\xff", b"\xff\xff", b"\0\0\0\0", b"\xfe\xff\xff\xff", b"\x00\x80", b"\x7f",
    b"\xfe\xff\x00\xe0", b"\xfe\xff\x0d\xe0", b"\xfe\xff\xdd\xe0", b"SQ", b"UN", b"UI", b"OB",
    b"\x1b$B", b"\x1b)I", b"\\", b"ISO 2022 IR 87", b"GB18030", b"\x08\x00\x05\x00CS",
)  # fmt: skip


pytestmark = pytest.mark.filterwarnings(  # pydicom's, about text that it replaces
    "ignore:Failed to decode byte string", "ignore:Found unknown escape sequence"
)


def outcome(read: Callable[[], IndexHeader]) -> IndexHeader | str:
    """Return what was read, or how it was refused; hold that it came soon."""
    began = time.thread_time()
    try:
        return read()
    except HeaderError as error:
        return str(error)
    finally:
        assert time.thread_time() - began < LONGEST_SECONDS


def read_in_parts(reader: HeaderReader, content: bytes, syntax: str, at_hand: int) -> IndexHeader:
    """Read as the listener does: with the first bytes at hand, the others on demand."""
    return reader.read(
        content[:at_hand],
        len(content),
        lambda start, length: content[start : start + length],
        syntax,
    )


def hold(content: bytes, syntax: str, at_hand: int) -> None:
    """Hold what is true of every header."""
    whole = outcome(lambda: read_index_header(content, syntax))
    reader = HeaderReader()
    for name in ("well-formed.explicit", "escape-cut.explicit"):
        other_syntax, other = KEPT[name]
        outcome(lambda c=other, s=other_syntax: read_in_parts(reader, c, s, len(c)))  # type: ignore[misc]
    assert outcome(lambda: read_in_parts(reader, content, syntax, at_hand)) == whole
    if isinstance(whole, IndexHeader):
        for uid in (whole.study_instance_uid, whole.series_instance_uid, whole.sop_instance_uid):
            assert len(uid) <= 64
            assert UID_PATTERN.fullmatch(uid)
        name = whole.study.patient_name + whole.manufacturer + whole.series.modality
        assert not any(ord(letter) < 32 or ord(letter) == 127 for letter in name)


def test_corpus_holds_every_header_that_is_made() -> None:
    made = hostile_headers()
    assert set(made) <= set(KEPT)
    for name, content in made.items():
        if not name.endswith(".deflated"):  # what a compressor makes of it is its own affair
            assert KEPT[name][1] == content, name


@pytest.mark.parametrize("name", KEPT)
def test_header_of_the_corpus_is_read_or_refused_soon(name: str) -> None:
    syntax, content = KEPT[name]
    for at_hand in (0, 8, 100, 4096, len(content)):
        hold(content, syntax, at_hand)


@pytest.mark.parametrize("name", [name for name in KEPT if name.startswith("well-formed")])
def test_well_formed_seeds_are_read(name: str) -> None:
    syntax, content = KEPT[name]
    assert read_index_header(content, syntax).study_instance_uid in {"1.2", "2.25.7001"}


@st.composite
def damaged(draw: st.DrawFn) -> tuple[bytes, str]:
    """Draw a header of the corpus, damaged in up to six places; deflated ones inside."""
    syntax, original = KEPT[draw(st.sampled_from(sorted(KEPT)))]
    inside = syntax == DEFLATED and draw(st.booleans())
    content = bytearray(inflated(original, 100_000) if inside else original[:100_000])
    for _ in range(draw(st.integers(0, 6))):
        damage(draw, content)
    return deflated(bytes(content)) if inside else bytes(content), syntax


def damage(draw: st.DrawFn, content: bytearray) -> None:
    """Change, insert, remove, repeat or cut something."""
    at = draw(st.integers(0, len(content)))
    kind = draw(st.sampled_from(["put", "insert", "remove", "repeat", "cut", "splice"]))
    if kind == "put":
        piece = draw(st.sampled_from(INTERESTING) | st.binary(min_size=1, max_size=4))
        content[at : at + len(piece)] = piece
    elif kind == "insert":
        content[at:at] = draw(st.sampled_from(INTERESTING) | st.binary(max_size=20))
    elif kind == "remove":
        del content[at : at + draw(st.integers(1, 40))]
    elif kind == "repeat":
        content[at:at] = content[at : at + draw(st.integers(1, 60))]
    elif kind == "cut":
        del content[at:]
    else:
        _, other = KEPT[draw(st.sampled_from(sorted(KEPT)))]
        start = draw(st.integers(0, min(len(other), 5000)))
        content[at:at] = other[start : start + 200]


@given(header=damaged(), at_hand=st.integers(0, 300) | st.integers(0, 100_000))
@settings(
    max_examples=CASES,
    deadline=None,
    derandomize="FUZZ_CASES" not in os.environ,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
def test_damaged_header_is_read_or_refused_whatever_is_at_hand(
    header: tuple[bytes, str], at_hand: int
) -> None:
    hold(*header, at_hand)
