"""The bounded walk over headers: agrees with pydicom on files, and survives anything else."""

from __future__ import annotations

import struct
import time
import zlib
from pathlib import Path

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import config, dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from node.headers import HeaderError, HeaderReader, IndexHeader, read_index_header

PLAIN = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian)
SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


def encoded(dataset: Dataset, syntax: str) -> bytes:
    """Encode a data set, without preamble and file meta, in one of the plain syntaxes."""
    buffer = DicomBytesIO()
    buffer.is_implicit_VR = syntax == ImplicitVRLittleEndian
    buffer.is_little_endian = syntax != ExplicitVRBigEndian
    write_dataset(buffer, dataset)
    return buffer.getvalue()


def sample() -> Dataset:
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    dataset.SOPInstanceUID = "1.2.3.4.5"
    dataset.StudyDate = "20260102"
    dataset.Modality = "CT"
    dataset.PatientName = "Müller^Jürgen"
    dataset.PatientID = "P1"
    item = Dataset()
    item.CodeValue = "X"
    item.ProcedureCodeSequence = [Dataset()]
    dataset.ProcedureCodeSequence = [item, Dataset()]
    dataset["ProcedureCodeSequence"].is_undefined_length = True
    item.is_undefined_length_sequence_item = True
    dataset.StudyInstanceUID = "1.2.3"
    dataset.SeriesInstanceUID = "1.2.3.4"
    dataset.InstanceNumber = 7
    return dataset


def read(content: bytes, syntax: str = ExplicitVRLittleEndian) -> IndexHeader:
    return read_index_header(content, syntax)


@pytest.mark.parametrize("syntax", PLAIN)
def test_header_is_read_in_every_plain_syntax(syntax: str) -> None:
    header = read(encoded(sample(), syntax), syntax)
    assert header.study_instance_uid == "1.2.3"
    assert header.series_instance_uid == "1.2.3.4"
    assert header.study.patient_name == "Müller^Jürgen"
    assert (header.series.modality, header.instance_number) == ("CT", "7")


def test_header_is_read_through_the_deflated_syntax() -> None:
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    content = deflate.compress(encoded(sample(), ExplicitVRLittleEndian)) + deflate.flush()
    assert read(content, DeflatedExplicitVRLittleEndian).study_instance_uid == "1.2.3"


def test_deflated_bomb_is_read_no_further_than_the_limit() -> None:
    deflate = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    start = encoded(sample(), ExplicitVRLittleEndian)[:-30]
    padding = struct.pack("<HH2sHI", 0x0009, 0x1001, b"OB", 0, 1 << 30)
    bomb = deflate.compress(start + padding) + deflate.compress(bytes(50 << 20)) + deflate.flush()
    with pytest.raises(HeaderError):
        read(bomb, DeflatedExplicitVRLittleEndian)


def _real_files() -> list[Path]:
    files = sorted((Path(pydicom.__file__).parent / "data" / "test_files").rglob("*.dcm"))
    if SHARED.is_dir():
        files += sorted(SHARED.glob("*/*.dcm"))
    return files


@pytest.mark.filterwarnings("ignore")
def test_walk_agrees_with_pydicom_on_every_file_that_both_can_read() -> None:
    agreed = 0
    for path in _real_files():
        try:
            expected = dcmread(path, stop_before_pixels=True)
            syntax = str(expected.file_meta.TransferSyntaxUID)
            start = 144 + int(expected.file_meta.FileMetaInformationGroupLength)
            with path.open("rb") as file:
                file.seek(start)
                header = read_index_header(file.read(), syntax)
        except (HeaderError, InvalidDicomError, AttributeError):
            continue
        assert header.sop_instance_uid == expected.SOPInstanceUID, path
        assert header.study_instance_uid == expected.StudyInstanceUID, path
        assert header.series.modality == str(expected.get("Modality", "") or "").strip(), path
        agreed += 1
    assert agreed > 30


@pytest.mark.filterwarnings("ignore:Invalid value", "ignore:The value length")
@pytest.mark.parametrize(
    "uid",
    [
        "../../tmp/x",
        "/etc/x",
        "1..2",
        "1.02",
        "1.2.",
        ".1.2",
        "1" * 65,
        "1.2\0.3",
        "1.2 .3",
        "a.b",
        "",
    ],
)
def test_malformed_uid_is_refused_and_its_tag_named(uid: str) -> None:
    dataset = sample()
    with config.disable_value_validation():
        dataset.StudyInstanceUID = uid
        content = encoded(dataset, ExplicitVRLittleEndian)
    with pytest.raises(HeaderError, match=r"\(0020,000D\) StudyInstanceUID"):
        read(content)


def test_missing_uid_is_named() -> None:
    dataset = sample()
    del dataset.SeriesInstanceUID
    with pytest.raises(HeaderError, match="SeriesInstanceUID is missing"):
        read(encoded(dataset, ExplicitVRLittleEndian))


@pytest.mark.parametrize(
    ("charset", "raw", "expected"),
    [
        (b"ISO_IR 144", bytes([0xBB, 0xEE, 0xDA]), "\u041b\u044e\u043a"),
        (b"\\ISO 2022 IR 87", b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B", "山田^太郎"),
        (b"ISO_IR 192", "Ω".encode(), "Ω"),
        (b"NO SUCH SET", b"plain", "plain"),
        (b"ISO_IR 192", b"\xff\xfe", "\ufffd\ufffd"),
    ],
)
def test_names_are_decoded_and_bad_ones_do_no_harm(
    charset: bytes, raw: bytes, expected: str
) -> None:
    def element(tag: int, vr: bytes, value: bytes) -> bytes:
        value += b" " * (len(value) % 2)
        return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, len(value)) + value

    content = (
        element(0x00080005, b"CS", charset)
        + element(0x00080016, b"UI", b"1.2\0")
        + element(0x00080018, b"UI", b"1.3\0")
        + element(0x00100010, b"PN", raw)
        + element(0x0020000D, b"UI", b"1.4\0")
        + element(0x0020000E, b"UI", b"1.5\0")
    )
    assert expected in read(content).study.patient_name


def test_control_characters_cannot_forge_a_log_line() -> None:
    dataset = sample()
    with config.disable_value_validation():
        dataset.StudyDescription = "a\r\nb\x1b[31mc"
        header = read(encoded(dataset, ExplicitVRLittleEndian))
    assert not any(ord(letter) < 32 for letter in header.study.study_description)


def test_nesting_without_end_and_a_million_elements_are_cut_quickly() -> None:
    nested = struct.pack("<HH2sHI", 0x0008, 0x1032, b"SQ", 0, 0xFFFFFFFF)
    nested += struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    many = b"".join(struct.pack("<HH2sH", 0x0008, 0x0001, b"SH", 0) for _ in range(1_000_000))
    began = time.monotonic()
    for content in (nested * 5000, many):
        with pytest.raises(HeaderError):
            read(content)
    assert time.monotonic() - began < 20  # a bound on hanging, not a measurement


@given(st.binary(max_size=2000), st.sampled_from([*PLAIN, DeflatedExplicitVRLittleEndian]))
@settings(max_examples=300, deadline=None)
def test_random_bytes_raise_nothing_but_the_header_error(content: bytes, syntax: str) -> None:
    with pytest.raises(HeaderError):
        read(content, syntax)


@given(st.data(), st.sampled_from(PLAIN))
@settings(max_examples=300, deadline=None)
def test_damaged_headers_are_read_or_refused(data: st.DataObject, syntax: str) -> None:
    content = bytearray(encoded(sample(), syntax))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content)))
    try:
        header = read(bytes(content[:cut]), syntax)
    except HeaderError:
        return
    assert header.study_instance_uid


class Counted:
    """A data set behind a reader that counts what it is asked for."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.asked = 0

    def __call__(self, start: int, length: int) -> bytes:
        self.asked += length
        return self.content[start : start + length]


@given(st.integers(0, 600), st.sampled_from(PLAIN))
@settings(max_examples=100, deadline=None)
def test_header_is_the_same_however_much_of_it_is_at_hand(head: int, syntax: str) -> None:
    content = encoded(sample(), syntax)
    whole = read(content, syntax)
    assert HeaderReader().read(content[:head], len(content), Counted(content), syntax) == whole


def test_large_values_before_the_last_wanted_tag_are_stepped_over() -> None:
    dataset = sample()
    block = dataset.private_block(0x0009, "wetread test", create=True)
    block.add_new(0x01, "OB", bytes(50 << 20))
    content = Counted(encoded(dataset, ExplicitVRLittleEndian))
    header = HeaderReader().read(
        content.content[:1000], len(content.content), content, ExplicitVRLittleEndian
    )
    assert header.study_instance_uid == "1.2.3"
    assert content.asked < 1 << 20


def test_what_a_series_shares_is_taken_over_and_what_differs_is_not() -> None:
    first, second, third = sample(), sample(), sample()
    second.SOPInstanceUID, second.InstanceNumber = "1.2.3.4.6", 8
    third.PatientName = "Other^One"
    reader = HeaderReader()
    headers = []
    for dataset in (first, second, third):
        content = encoded(dataset, ExplicitVRLittleEndian)
        headers.append(reader.read(content, len(content), Counted(content), ExplicitVRLittleEndian))
        assert headers[-1] == read(content, ExplicitVRLittleEndian)
    assert headers[0].study is headers[1].study
    assert headers[1].instance_number == "8"
    assert headers[2].study.patient_name == "Other^One"


def test_a_header_that_was_refused_leaves_nothing_for_the_next_one() -> None:
    bad, good = sample(), sample()
    del bad.SeriesInstanceUID
    bad.PatientID = "P2"
    reader = HeaderReader()
    contents = [encoded(item, ExplicitVRLittleEndian) for item in (bad, good)]
    with pytest.raises(HeaderError, match="SeriesInstanceUID"):
        reader.read(contents[0], len(contents[0]), Counted(contents[0]), ExplicitVRLittleEndian)
    header = reader.read(
        contents[1], len(contents[1]), Counted(contents[1]), ExplicitVRLittleEndian
    )
    assert header.study.patient_id == "P1"
