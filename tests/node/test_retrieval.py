"""Metadata, frames and pictures of files in every encoding, and of files that lie."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from pydantic import JsonValue
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from node.pictures import picture_operation
from node.retrieval import (
    RetrievalError,
    bulkdata_operation,
    frames_operation,
    metadata_operation,
)
from tests.factories import make_ct_series, make_enhanced_ct

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # the sandbox hears none


def quiet(_stage: str) -> None:
    return None


def ct(folder: Path, syntax: UID = ExplicitVRLittleEndian) -> Path:
    (file,) = make_ct_series(folder, slices=1, rows=8, columns=6)
    if syntax != ExplicitVRLittleEndian:
        dataset = dcmread(file)
        if syntax == ExplicitVRBigEndian:
            dataset.PixelData = dataset.pixel_array.astype(">i2").tobytes()
        dataset.file_meta.TransferSyntaxUID = syntax
        dcmwrite(
            file,
            dataset,
            implicit_vr=syntax.is_implicit_VR,
            little_endian=syntax.is_little_endian,
            force_encoding=True,
        )
    return file


def told(file: Path, **more: JsonValue) -> dict[str, Any]:
    answer = metadata_operation({"files": [{"path": str(file)}], **more}, quiet)
    return cast("list[dict[str, Any]]", answer["files"])[0]


def frame_bytes(file: Path, *numbers: int, accepted: tuple[str, ...] = ()) -> list[bytes]:
    request: dict[str, JsonValue] = {
        "file": {"path": str(file)},
        "numbers": list(numbers),
        "accepted": list(accepted),
    }
    frames = cast("list[Mapping[str, Any]]", frames_operation(request, quiet)["frames"])
    return [content(file, frame) for frame in frames]


def content(file: Path, part: Mapping[str, Any]) -> bytes:
    if "content" in part:
        return base64.b64decode(part["content"])
    start = part["offset"]
    return file.read_bytes()[start : start + part["length"]]


@pytest.mark.parametrize(
    "syntax",
    [
        ExplicitVRLittleEndian,
        ImplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
    ],
)
def test_a_frame_is_the_same_in_every_native_encoding(syntax: UID, tmp_path: Path) -> None:
    file = ct(tmp_path, syntax)
    [frame] = frame_bytes(file, 1)
    wanted = dcmread(file).pixel_array.astype("<i2")
    assert frame == wanted.tobytes()
    metadata = told(file)
    assert metadata["00280010"] == {"vr": "US", "Value": [8]}
    assert metadata["7FE00010"]["BulkDataURI"].endswith("/7FE00010")


def test_frames_of_a_multi_frame_image_are_found_where_they_lie(tmp_path: Path) -> None:
    file = make_enhanced_ct(tmp_path / "enhanced.dcm", slices=4, rows=8, columns=8)
    pixels = dcmread(file).pixel_array
    assert frame_bytes(file, 3, 1) == [pixels[2].tobytes(), pixels[0].tobytes()]
    assert b"".join(frame_bytes(file)) == pixels.tobytes()
    with pytest.raises(RetrievalError, match="4 frames"):
        frame_bytes(file, 5)


def test_frames_of_single_bits_begin_at_a_byte_each(tmp_path: Path) -> None:
    """Frames of 7 x 5 bits do not begin at bytes in the file (PS3.5 8.1.1)."""
    rng = np.random.default_rng(1)
    masks = rng.integers(0, 2, (3, 7, 5), dtype=np.uint8)
    dataset = dcmread(ct(tmp_path))
    dataset.NumberOfFrames = 3
    dataset.Rows, dataset.Columns = 7, 5
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 1, 1, 0
    dataset.PixelRepresentation = 0
    packed = np.packbits(masks.ravel(), bitorder="little").tobytes()
    dataset.PixelData = packed + bytes(len(packed) % 2)
    file = tmp_path / "bits.dcm"
    dataset.save_as(file)
    for number in (1, 2, 3):
        [frame] = frame_bytes(file, number)
        bits = np.unpackbits(np.frombuffer(frame, np.uint8), bitorder="little")[:35]
        assert np.array_equal(bits.reshape(7, 5), masks[number - 1])


def test_metadata_of_some_tags_has_no_others(tmp_path: Path) -> None:
    found = told(ct(tmp_path), tags=[0x00080060, 0x00200013, 0x7FE00010])
    assert set(found) - {"00080005"} == {"00080060", "00200013"}


def test_values_against_the_rules_are_told_as_they_are_and_what_is_beyond_help_left_out(
    tmp_path: Path,
) -> None:
    def modify(dataset: Dataset, _index: int) -> None:
        dataset.add_new(0x0008103E, "LO", "x" * 100)  # longer than 64
        dataset.add_new(0x00181152, "IS", "7")

    (file,) = make_ct_series(tmp_path, slices=1, rows=8, columns=8, modify=modify)
    data = file.read_bytes().replace(
        b"\x18\x00\x52\x11IS\x02\x007 ", b"\x18\x00\x52\x11IS\x02\x00z "
    )
    file.write_bytes(data)
    found = told(file)
    assert found["0008103E"]["Value"] == ["x" * 100]
    assert "00181152" not in found
    assert "00280010" in found


def test_a_file_that_cannot_be_read_is_none_among_the_others(tmp_path: Path) -> None:
    good = ct(tmp_path / "good")
    bad = tmp_path / "bad.dcm"
    bad.write_bytes(b"no DICOM file")
    missing = tmp_path / "missing.dcm"
    files: list[JsonValue] = [{"path": str(path)} for path in (bad, good, missing)]
    answers = metadata_operation({"files": files}, quiet)["files"]
    assert [answer is None for answer in cast("list[object]", answers)] == [True, False, True]


def test_an_instance_inside_a_pack_is_read_within_its_bytes(tmp_path: Path) -> None:
    file = ct(tmp_path)
    pack = tmp_path / "pack"
    data = file.read_bytes()
    pack.write_bytes(b"before" + data + b"behind" * 100)
    place: dict[str, JsonValue] = {"path": str(pack), "offset": 6, "length": len(data)}
    answer = frames_operation({"file": place, "numbers": [1]}, quiet)
    [part] = cast("list[Mapping[str, Any]]", answer["frames"])
    assert data[part["offset"] :][: part["length"]] == dcmread(file).PixelData


@pytest.mark.parametrize("path", ["00280010", "00091010", "x", "00081140/0/00080005", "7FE00010"])
def test_only_long_binary_values_are_bulk_data(path: str, tmp_path: Path) -> None:
    request: dict[str, JsonValue] = {"file": {"path": str(ct(tmp_path))}, "path": path}
    with pytest.raises(RetrievalError) as refused:
        bulkdata_operation(request, quiet)
    assert refused.value.kind == "no_such_part"


def test_a_frame_that_claims_to_be_huge_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    """T18: a dimension bomb."""
    dataset = dcmread(ct(tmp_path))
    dataset.Rows = dataset.Columns = 65535
    file = tmp_path / "huge.dcm"
    dataset.save_as(file)
    with pytest.raises(RetrievalError):
        frame_bytes(file, 1)
    with pytest.raises(RetrievalError, match="too large"):
        picture_operation({"file": {"path": str(file)}}, quiet)


def test_a_cut_file_is_refused(tmp_path: Path) -> None:
    file = ct(tmp_path)
    data = file.read_bytes()
    file.write_bytes(data[:-40])
    with pytest.raises(RetrievalError, match="too short"):
        frame_bytes(file, 1)
    with pytest.raises(RetrievalError) as refused:
        picture_operation({"file": {"path": str(file)}}, quiet)
    assert refused.value.kind == "not_renderable"
