"""The parsers of the door on the web, over whatever bytes: named errors, and nothing lost."""

from __future__ import annotations

from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from node.interfaces import CannotUnderstand
from node.listeners._related_parts import MediaTypeError, PartsError, RelatedParts, boundary_of
from node.listeners._stored_parts import read_file_meta


class Gathering:
    """Keeps what the parts hold."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.kinds: list[str] = []
        self.ended = 0

    def begin(self) -> None:
        self.parts.append(b"")

    def headers(self, content_type: str) -> None:
        self.kinds.append(content_type)

    def data(self, piece: memoryview) -> None:
        self.parts[-1] += piece

    def end(self) -> None:
        self.ended += 1


CONTENTS = st.lists(
    st.lists(st.sampled_from([b"\r\n", b"--", b"x", b"--x", b"\r\n--", b"\0", b"data"])).map(
        b"".join
    ),
    min_size=1,
    max_size=4,
)


@given(contents=CONTENTS, cuts=st.lists(st.integers(1, 40), min_size=1))
def test_parts_are_the_same_wherever_the_body_is_cut(
    contents: list[bytes], cuts: list[int]
) -> None:
    boundary = "b0undary"
    body = b"".join(
        b"--b0undary\r\nContent-Type: a/b\r\n\r\n" + content + b"\r\n" for content in contents
    )
    body += b"--b0undary--\r\n"
    sink = Gathering()
    parts = RelatedParts(boundary, sink)
    start = turn = 0
    while start < len(body):
        size = cuts[turn % len(cuts)]
        parts.take(body[start : start + size])
        start, turn = start + size, turn + 1
    parts.finish()
    assert sink.parts == contents
    assert sink.kinds == ["a/b"] * len(contents)
    assert sink.ended == len(contents)


@given(st.lists(st.binary(max_size=200)))
def test_whatever_comes_instead_of_a_body_is_refused_by_name(pieces: list[bytes]) -> None:
    """T22: no other error than the named ones."""
    parts = RelatedParts("x", Gathering())
    with suppress(PartsError):
        for piece in pieces:
            parts.take(piece)
        parts.finish()


@given(st.text(max_size=200))
def test_whatever_comes_instead_of_a_media_type_is_refused_by_name(text: str) -> None:
    for content_type in (text, f"multipart/related{text}", f"multipart/related; boundary={text}"):
        with suppress(MediaTypeError, PartsError):
            boundary_of(content_type, "application/dicom")


@given(st.binary(max_size=300), st.booleans())
def test_whatever_comes_instead_of_file_meta_is_refused_by_name(tail: bytes, group: bool) -> None:
    """T22."""
    head = bytes(128) + b"DICM" + (b"\x02\x00" if group else b"") + tail
    with suppress(CannotUnderstand):
        found = read_file_meta(head)
        assert found is None or found[1] <= len(head)
