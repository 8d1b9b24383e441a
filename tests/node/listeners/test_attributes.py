"""What is read of a procedure step's data set, and that a bomb costs no more than its length."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian

from node.listeners._attributes import (
    DEEPEST,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    MOST_BYTES,
    MOST_ELEMENTS,
    SYNTAXES,
    Attributes,
    AttributesError,
    Encoded,
    read_attributes,
)

STUDY, NAME = 0x0020000D, 0x00100010
REFERENCES, OTHER_REFERENCES = 0x00081115, 0x00081140
ITEM = struct.pack("<HHI", 0xFFFE, 0xE000, 0)
OPEN_ITEM = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
OPEN_SEQUENCE = struct.pack("<HH2sHI", 0x0008, 0x1115, b"SQ", 0, 0xFFFFFFFF)
END = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)


def read(content: bytes, syntax: str = EXPLICIT_LITTLE) -> Attributes:
    return read_attributes(Encoded(content, syntax), {STUDY}, {REFERENCES})


def encoded(dataset: Dataset, syntax: str, *, undefined: bool) -> bytes:
    for element in dataset:
        if element.VR == "SQ":
            element.is_undefined_length = undefined
            for item in element.value:
                item.is_undefined_length_sequence_item = undefined
    buffer = DicomBytesIO()
    buffer.is_implicit_VR, buffer.is_little_endian = syntax == IMPLICIT_LITTLE, True
    write_dataset(buffer, dataset)
    return buffer.getvalue()


@st.composite
def data_sets(draw: st.DrawFn, depth: int = 3) -> Dataset:
    """Draw a data set with wanted and unwanted values and sequences in any depth."""
    dataset = Dataset()
    if draw(st.booleans()):
        dataset.StudyInstanceUID = f"1.2.{draw(st.integers(0, 10**9))}"
    if draw(st.booleans()):
        dataset.PatientName = draw(st.text("ab^", max_size=9))
    if draw(st.booleans()):
        dataset.add_new(0x00091001, "UN", draw(st.binary(max_size=9)))
    for keyword in ("ReferencedSeriesSequence", "ReferencedImageSequence"):
        if depth and draw(st.booleans()):
            setattr(dataset, keyword, draw(st.lists(data_sets(depth - 1), max_size=3)))
    return dataset


def expected(dataset: Dataset) -> Attributes:
    found = Attributes()
    if "StudyInstanceUID" in dataset:
        uid = str(dataset.StudyInstanceUID).encode()
        found.values[STUDY] = uid + bytes(len(uid) % 2)
    if "ReferencedSeriesSequence" in dataset:
        found.sequences[REFERENCES] = tuple(map(expected, dataset.ReferencedSeriesSequence))
    return found


@settings(max_examples=300, deadline=None)
@given(data_sets(), st.sampled_from(SYNTAXES), st.booleans())
def test_what_is_wanted_is_found_however_it_is_encoded(
    dataset: Dataset, syntax: str, undefined: bool
) -> None:
    assert read(encoded(dataset, syntax, undefined=undefined), syntax) == expected(dataset)


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=300), st.sampled_from(SYNTAXES))
def test_random_bytes_are_read_or_refused(content: bytes, syntax: str) -> None:
    try:
        read(content, syntax)
    except AttributesError:
        return


@settings(max_examples=300, deadline=None)
@given(data_sets(), st.sampled_from(SYNTAXES), st.booleans(), st.data())
def test_a_data_set_that_is_cut_is_read_or_refused(
    dataset: Dataset, syntax: str, undefined: bool, data: st.DataObject
) -> None:
    whole = encoded(dataset, syntax, undefined=undefined)
    try:
        read(whole[: data.draw(st.integers(0, len(whole)))], syntax)
    except AttributesError:
        return


BOMBS = {
    "too long": (bytes(MOST_BYTES + 1), "longer"),
    "elements": (struct.pack("<HH2sH", 8, 1, b"SH", 0) * (MOST_ELEMENTS + 1), "more than"),
    "items": (OPEN_SEQUENCE + ITEM * (MOST_ELEMENTS + 1) + END, "more than"),
    "nesting": ((OPEN_SEQUENCE + OPEN_ITEM) * (DEEPEST + 1), "deeper"),
    "no end": (OPEN_SEQUENCE + OPEN_ITEM, "no end"),
    "no item": (OPEN_SEQUENCE + struct.pack("<HH2sH", 8, 1, b"SH", 0), "expected"),
    "length lies": (struct.pack("<HH2sH", 8, 1, b"SH", 60_000), "longer than what"),
    "no representation": (struct.pack("<HHI", 8, 1, 0), "wrong transfer syntax"),
    "cut": (b"\x08\x00\x01", "ends inside"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_for_what_it_is(name: str) -> None:
    content, reason = BOMBS[name]
    with pytest.raises(AttributesError, match=reason):
        read(content)


def test_nothing_is_inflated() -> None:
    with pytest.raises(AttributesError, match="transfer syntax"):
        read(b"", DeflatedExplicitVRLittleEndian)
