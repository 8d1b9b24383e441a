"""A kept file is opened for what it is; any other is refused in words that are true of it."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from node.delivery._part10 import KeptFile, Transcoded, UnreadableError
from tests.factories import make_ct_series
from tests.node.delivery.objects import data_set, large_object


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_ct_series(tmp_path_factory.mktemp("ct"), slices=1, rows=64, columns=64)[0]


def content_of(kept: KeptFile | Transcoded, step: int) -> bytes:
    found = bytearray(kept.length)
    for start in range(0, kept.length, step):
        kept.read_into(memoryview(found)[start : start + step], start)
    return bytes(found)


def test_uids_and_bytes_are_those_of_the_file(file: Path) -> None:
    header = dcmread(file, stop_before_pixels=True)
    with KeptFile(file) as kept:
        assert kept.sop_class_uid == header.SOPClassUID
        assert kept.sop_instance_uid == header.SOPInstanceUID
        assert kept.transfer_syntax_uid == ExplicitVRLittleEndian
        assert content_of(kept, 1 << 20) == data_set(file)


@given(step=st.integers(1, 9000))
def test_any_windows_together_are_the_data_set(file: Path, step: int) -> None:
    with KeptFile(file) as kept:
        assert content_of(kept, max(step, 100)) == data_set(file)


def test_long_file_meta_information_is_read_whole(file: Path, tmp_path: Path) -> None:
    dataset = dcmread(file)
    dataset.file_meta.PrivateInformationCreatorUID = UID("1.2.3")
    dataset.file_meta.PrivateInformation = bytes(100_000)
    dataset.save_as(tmp_path / "long.dcm")
    with KeptFile(tmp_path / "long.dcm") as kept:
        assert kept.transfer_syntax_uid == ExplicitVRLittleEndian
        assert content_of(kept, 1 << 20) == data_set(file)


def without_prefix(content: bytes) -> bytes:
    return content[132:]


def meta_only(content: bytes) -> bytes:
    return content[: 144 + int.from_bytes(content[140:144], "little")]


def no_meta(content: bytes) -> bytes:
    return content[:132] + content[len(meta_only(content)) :]


def implicit_meta(content: bytes) -> bytes:
    return content[:132] + struct.pack("<HHI", 2, 0x10, 20) + b"1.2.840.10008.1.2.1\0" + content


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without_prefix, "is no DICOM file"),
        (lambda _: b"", "is no DICOM file"),
        (lambda content: content[:132], "has no data set"),
        (meta_only, "has no data set"),
        (lambda content: content[:200], "has no data set"),
        (no_meta, "no file meta information"),
        (implicit_meta, "no file meta information"),
    ],
)
def test_file_that_is_none_is_refused_in_true_words(
    change: object, words: str, file: Path, tmp_path: Path
) -> None:
    assert callable(change)
    path = tmp_path / "other.dcm"
    path.write_bytes(change(file.read_bytes()))
    with pytest.raises(UnreadableError, match=words):
        KeptFile(path)


def test_place_that_is_no_file_cannot_be_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for place in (tmp_path / "gone.dcm", tmp_path, tmp_path / "fifo"):
        with pytest.raises(UnreadableError, match="cannot be read"):
            KeptFile(place)


@given(st.binary(max_size=400))
def test_no_bytes_make_the_file_fail_in_an_unforeseen_way(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "noise.dcm"
    path.write_bytes(bytes(128) + b"DICM" + noise)
    for content in (noise, struct.pack("<HH2sH", 2, 0x10, b"UI", 4) + noise):
        path.write_bytes(bytes(128) + b"DICM" + content)
        try:
            kept = KeptFile(path)
        except UnreadableError:
            continue
        with kept:
            assert kept.length > 0


def test_file_that_becomes_shorter_is_noticed(tmp_path: Path) -> None:
    item = large_object(tmp_path / "large.dcm", 1 << 20)
    with KeptFile(item.path) as kept:
        os.truncate(item.path, 4096)
        with pytest.raises(UnreadableError, match="became shorter"):
            content_of(kept, 1 << 16)


@pytest.mark.parametrize(
    ("kept_as", "wanted"),
    [
        (ExplicitVRLittleEndian, ImplicitVRLittleEndian),
        (ImplicitVRLittleEndian, ExplicitVRLittleEndian),
    ],
)
def test_transcoding_keeps_every_element(
    kept_as: UID, wanted: UID, file: Path, tmp_path: Path
) -> None:
    original = dcmread(file)
    original.file_meta.TransferSyntaxUID = kept_as
    path = tmp_path / "kept.dcm"
    original.save_as(path, implicit_vr=kept_as.is_implicit_VR, little_endian=True)
    encoded = content_of(Transcoded(path, wanted), 1 << 20)
    assert encoded != data_set(path)
    original.file_meta.TransferSyntaxUID = wanted
    original.save_as(tmp_path / "wanted.dcm", implicit_vr=wanted.is_implicit_VR, little_endian=True)
    assert encoded == data_set(tmp_path / "wanted.dcm")


def test_data_set_that_pydicom_cannot_read_is_not_transcoded(file: Path, tmp_path: Path) -> None:
    path = tmp_path / "broken.dcm"
    path.write_bytes(meta_only(file.read_bytes()) + b"\x08\0\x40\x11SQ\0\0\xff\xff\xff\xffno item")
    with pytest.raises(UnreadableError, match="cannot be encoded as Implicit VR Little Endian"):
        Transcoded(path, ImplicitVRLittleEndian)
