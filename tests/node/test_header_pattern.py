from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from node.header_pattern import MOST_MISSES, HeaderPatterns
from node.header_walk import walk
from node.headers import WANTED

HEAD = 16 << 10
SYNTAXES = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)


def header(number: int, **changes: object) -> Dataset:
    """Return the header of one slice of a series, with a sequence and private elements."""
    dataset = Dataset()
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    dataset.SOPInstanceUID = f"1.2.3.{number}"
    dataset.StudyDate = "20261130"
    dataset.ContentTime = f"1200{number % 60:02d}.{number:06d}"
    dataset.Modality = "CT"
    dataset.Manufacturer = "MAKER"
    dataset.ReferencedStudySequence = [Dataset()]
    dataset.ReferencedStudySequence[0].ReferencedSOPInstanceUID = "1.2.9"
    dataset.PatientID = "P1"
    dataset.add_new(0x00091010, "LO", "private")
    dataset.StudyInstanceUID = "1.2.3"
    dataset.SeriesInstanceUID = "1.2.3.4"
    dataset.InstanceNumber = str(number)
    dataset.ImagePositionPatient = [0, 0, number]
    dataset.PixelData = bytes(64)
    for keyword, value in changes.items():
        setattr(dataset, keyword, value)
    return dataset


def encoded(
    dataset: Dataset, syntax: str = ExplicitVRLittleEndian, *, open_end: bool = False
) -> bytes:
    """Return a data set as it comes over the wire; `open_end`: sequences without a length."""
    buffer = DicomBytesIO()
    buffer.is_implicit_VR = syntax == ImplicitVRLittleEndian
    buffer.is_little_endian = syntax != ExplicitVRBigEndian
    for element in dataset:
        element.is_undefined_length = open_end and element.VR == "SQ"
    dataset["PixelData"].VR = "OW"
    write_dataset(buffer, dataset)
    return buffer.getvalue()


def walked(content: bytes, syntax: str) -> dict[int, bytes]:
    return walk(content[:HEAD], len(content), lambda a, n: content[a : a + n], syntax, WANTED)


def patterned(contents: Sequence[bytes], syntax: str) -> list[bool]:
    """Read headers one after the other as a listener does; say which ones needed no walk."""
    patterns = HeaderPatterns(WANTED)
    hits = []
    for content in contents:
        head = bytearray(content[:HEAD])
        found = patterns.read(head, syntax)
        hits.append(found is not None)
        if found is None:
            patterns.learn(head, syntax)
        else:
            assert found == walked(content, syntax)
    return hits


@pytest.mark.parametrize("open_end", [False, True])
@pytest.mark.parametrize("syntax", SYNTAXES)
def test_from_the_third_slice_on_no_walk_is_needed(syntax: str, *, open_end: bool) -> None:
    contents = [
        encoded(header(number), syntax, open_end=open_end) for number in (8, 9, 10, 11, 100)
    ]
    assert patterned(contents, syntax) == [False, False, True, True, True]


def test_another_series_is_walked_over_until_its_own_pattern_is_known() -> None:
    contents = [encoded(header(number)) for number in range(3)]
    contents += [encoded(header(number, SeriesInstanceUID="1.2.3.5")) for number in range(3, 6)]
    assert patterned(contents, ExplicitVRLittleEndian) == [False, False, True, False, True, True]


def test_a_sequence_that_changes_and_has_no_length_leaves_it_to_the_walk() -> None:
    contents = []
    for number in range(4):
        item = Dataset()
        item.ReferencedSOPInstanceUID = f"1.2.9.{number}"
        changed = header(number, ReferencedStudySequence=[item])
        contents.append(encoded(changed, open_end=True))
    assert patterned(contents, ExplicitVRLittleEndian) == [False] * 4


def test_other_encodings_are_left_to_the_walk() -> None:
    contents = [encoded(header(number), ExplicitVRBigEndian) for number in range(4)]
    assert patterned(contents, ExplicitVRBigEndian) == [False] * 4


def test_an_association_whose_headers_have_nothing_in_common_is_not_learnt_from_for_ever() -> None:
    patterns = HeaderPatterns(WANTED)
    for number in range(MOST_MISSES):
        assert patterns.read(b"", ExplicitVRLittleEndian) is None
        patterns.learn(encoded(header(number, PatientID=f"P{number}" * number)), "1.2")
    patterns.learn(encoded(header(1)), ExplicitVRLittleEndian)
    patterns.learn(encoded(header(2)), ExplicitVRLittleEndian)
    assert patterns.read(encoded(header(3)), ExplicitVRLittleEndian) is None


TEXT = st.text("ABC ", max_size=6)
CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "PatientID": TEXT,
        "Modality": st.sampled_from(["CT", "MR", ""]),
        "SeriesDescription": TEXT,
        "InstanceNumber": st.sampled_from(["1", "10", "100000", ""]),
        "ContentTime": st.sampled_from(["", "120000", "120000.5"]),
        "AccessionNumber": TEXT,
        "StudyID": TEXT,
    },
)


@given(
    st.lists(CHANGES, min_size=3, max_size=8),
    st.sampled_from(SYNTAXES),
    st.booleans(),
    st.data(),
)
@settings(max_examples=300, deadline=None)
def test_a_pattern_finds_what_a_walk_finds(
    changes: list[dict[str, object]],
    syntax: str,
    open_end: bool,
    data: st.DataObject,
) -> None:
    contents = [
        encoded(header(number, **change), syntax, open_end=open_end)
        for number, change in enumerate(changes)
    ]
    broken = bytearray(contents[-1])
    for _ in range(data.draw(st.integers(0, 3))):
        broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    patterned([*contents, bytes(broken)], syntax)
