"""Metadata, frames and pictures of kept instances, for the web. Sandbox only: untrusted bytes.

What lies in the file as it is asked for is answered by its place there, and read by the node.
"""

from __future__ import annotations

import base64
import io
import math
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import BinaryIO, Final, TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import JsonValue
from pydicom import dcmread
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.encaps import get_frame
from pydicom.pixels.utils import pixel_array
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from engines.byte_range import open_range
from node.field_values import PARSER_ERRORS
from node.messages import FileMessage, FramesRequest, MetadataRequest, PartRequest

Progress: TypeAlias = Callable[[str], None]
Json: TypeAlias = dict[str, JsonValue]

INLINE_BYTES: Final = 1024
MOST_INFLATED: Final = 512 << 20
MOST_ANSWER: Final = 256 << 20
PIXEL_DATA: Final = 0x7FE00010
CHARACTER_SET: Final = "00080005"
UNDEFINED: Final = 0xFFFFFFFF
BINARY: Final = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
LONG_FORM: Final = frozenset({b"OB", b"OW", b"UN"})
EXPLICIT_LITTLE: Final = "1.2.840.10008.1.2.1"
DECODE_ERRORS: Final = (*PARSER_ERRORS, RuntimeError, MemoryError)


class RetrievalError(Exception):
    """It cannot be given; `kind` says why, and the message names no value."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


# ---------------------------------------------------------------- metadata


def metadata_operation(
    request: Mapping[str, JsonValue], progress: Progress
) -> Mapping[str, JsonValue]:
    """Answer the DICOM JSON (PS3.18 F.2) of some files, all of it or some top-level tags.

    What is long and binary is named by `{bulkdata}/{path}`. A file that cannot be read is None.
    """
    wanted = MetadataRequest.model_validate(request)
    progress("reading metadata")
    answers: list[JsonValue] = []
    addresses = wanted.bulkdata or ("",) * len(wanted.files)
    for file, bulkdata in zip(wanted.files, addresses, strict=True):
        try:
            answers.append(_metadata(file, wanted.tags, bulkdata))
        except DECODE_ERRORS:
            answers.append(None)
    return {"files": answers}


def _metadata(file: FileMessage, tags: tuple[int, ...], bulkdata: str) -> Json:
    with _open(file) as stream:
        found = dcmread(stream, stop_before_pixels=True, specific_tags=list(tags) or None)
        pixels = None if tags else pixels_at(found, stream)
    encoded = _encoded(found, bulkdata)
    if CHARACTER_SET in encoded:
        encoded[CHARACTER_SET] = {"vr": "CS", "Value": ["ISO_IR 192"]}  # JSON is UTF-8
    if pixels is not None:
        encoded[f"{PIXEL_DATA:08X}"] = {
            "vr": "OW",
            "BulkDataURI": f"{bulkdata}/{PIXEL_DATA:08X}",
        }
    return encoded


def _encoded(dataset: Dataset, bulkdata: str) -> Json:
    """Return a data set as JSON; an element that is beyond help is left out."""
    found: Json = {}
    for tag in list(dataset.keys()):
        if tag.group <= 0x0002 or tag.element == 0:  # noqa: PLR2004 - file meta, group lengths
            continue
        try:
            found[f"{tag:08X}"] = _element(dataset[tag], f"{bulkdata}/{tag:08X}")
        except RecursionError:
            raise
        except DECODE_ERRORS:
            continue
    return found


def _element(element: DataElement, path: str) -> Json:
    if element.VR == "SQ":
        items = [_encoded(item, f"{path}/{at}") for at, item in enumerate(element.value or ())]
        return {"vr": "SQ", "Value": list(items)} if items else {"vr": "SQ"}
    if element.VR in BINARY and len(element.value or b"") > INLINE_BYTES:
        return {"vr": element.VR, "BulkDataURI": path}
    found: Json = element.to_json_dict(None, INLINE_BYTES)
    values = found.get("Value")
    if isinstance(values, list):
        found["Value"] = [_finite(value) for value in values]
    return found


def _finite(value: JsonValue) -> JsonValue:
    """JSON has no NaN and no infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


# ---------------------------------------------------------------- bulk data


def bulkdata_operation(
    request: Mapping[str, JsonValue], progress: Progress
) -> Mapping[str, JsonValue]:
    """Answer one long value, named by its path: tags, and items from 0 between them."""
    wanted = PartRequest.model_validate(request)
    progress("reading bulk data")
    try:
        with _open(wanted.file) as stream:
            found: Dataset = dcmread(stream, stop_before_pixels=True)
            value = _at(found, wanted.path.split("/"))
    except DECODE_ERRORS as error:
        raise RetrievalError("no_such_part", "there is no such bulk data") from error
    return {"part": _content(value)}


def _at(dataset: Dataset, path: list[str]) -> bytes:
    for tag, item in zip(path[:-1:2], path[1::2], strict=True):
        dataset = dataset[int(tag, 16)].value[int(item)]
    element = dataset[int(path[-1], 16)]
    if element.VR not in BINARY or not isinstance(element.value, bytes):
        raise ValueError("no bulk data")
    return element.value


# ---------------------------------------------------------------- frames


def frames_operation(
    request: Mapping[str, JsonValue], progress: Progress
) -> Mapping[str, JsonValue]:
    """Answer frames, from 1, as they are kept or uncompressed; without numbers all of them.

    `accepted` are the transfer syntaxes that may stay, `*` for any; others are decoded.
    """
    wanted = FramesRequest.model_validate(request)
    progress("reading frames")
    try:
        with _open(wanted.file) as stream:
            return _frames(stream, wanted)
    except DECODE_ERRORS as error:
        raise RetrievalError(
            "unreadable", f"the pixel data cannot be read: {type(error).__name__}"
        ) from error


def _frames(stream: BinaryIO, wanted: FramesRequest) -> Mapping[str, JsonValue]:
    header = dcmread(stream, stop_before_pixels=True)
    count = int(header.get("NumberOfFrames") or 1)
    numbers = wanted.numbers or tuple(range(1, count + 1))
    if any(not 1 <= number <= count for number in numbers):
        raise RetrievalError("no_such_part", f"there are {count} frames")
    syntax = UID(str(header.file_meta.TransferSyntaxUID))
    pixels = pixels_at(header, stream)
    if pixels is None:
        raise RetrievalError("no_such_part", "there is no pixel data")
    indices = [number - 1 for number in numbers]
    if syntax.is_compressed and syntax != DeflatedExplicitVRLittleEndian:
        if "*" in wanted.accepted or str(syntax) in wanted.accepted:
            return _answer(str(syntax), _encapsulated(header, stream, pixels[0], indices))
        return _answer(EXPLICIT_LITTLE, (_decoded(stream, index) for index in indices))
    if lies_in_bits(header):
        return _answer(
            EXPLICIT_LITTLE,
            (_packed(bit_frame(header, stream, pixels[0], index)) for index in indices),
        )
    places = _places(header, stream, pixels, indices)
    if places is not None:
        return _answer(EXPLICIT_LITTLE, iter(places))
    return _answer(EXPLICIT_LITTLE, (_decoded(stream, index) for index in indices))


def _answer(syntax: str, frames: Iterator[Json]) -> Mapping[str, JsonValue]:
    found: list[JsonValue] = []
    size = 0
    for frame in frames:
        size += len(str(frame.get("content", "")))
        if size > MOST_ANSWER:
            raise RetrievalError("too_large", "so many frames are not given at once")
        found.append(frame)
    return {"frames": found, "transfer_syntax": syntax}


def _places(
    header: Dataset, stream: BinaryIO, pixels: tuple[int, int], indices: list[int]
) -> list[Json] | None:
    """Return where native frames lie in the file; None: they must be decoded to be had."""
    bits = int(header.BitsAllocated) * int(header.get("SamplesPerPixel", 1))
    pixel_count = int(header.Rows) * int(header.Columns)
    syntax = header.file_meta.TransferSyntaxUID
    if syntax in {DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian} or not pixel_count:
        return None
    if header.get("PhotometricInterpretation") == "YBR_FULL_422":
        bits = int(header.BitsAllocated) * 2
    start, length = pixels
    size = pixel_count * bits // 8
    there = min(length, stream.seek(0, io.SEEK_END) - start)
    if (max(indices) + 1) * size > there:
        raise RetrievalError("no_such_part", "the pixel data is too short")
    return [{"offset": start + index * size, "length": size} for index in indices]


def _encapsulated(
    header: Dataset, stream: BinaryIO, start: int, indices: list[int]
) -> Iterator[Json]:
    count = int(header.get("NumberOfFrames") or 1)
    for index in indices:
        stream.seek(start)
        yield _content(get_frame(stream, index, number_of_frames=count))


def _decoded(stream: BinaryIO, index: int) -> Json:
    """Decode a frame to what Explicit VR Little Endian has: bits packed, words little endian."""
    stream.seek(0)
    header = dcmread(stream, stop_before_pixels=True)
    _hold_size(header)
    array = pixel_array(decodable(header, stream), index=index, raw=True)
    if int(header.BitsAllocated) == 1:
        return _packed(array)
    return _content(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())


def decodable(header: Dataset, stream: BinaryIO) -> BinaryIO | Dataset:
    """Return what a decoder reads: of a deflated data set all of it, as nothing lies in place."""
    stream.seek(0)
    if header.file_meta.TransferSyntaxUID == DeflatedExplicitVRLittleEndian:
        return dcmread(stream)
    return stream


def lies_in_bits(header: Dataset) -> bool:
    """Say whether frames are single bits in place, which may begin within a byte (PS3.5 8.1.1)."""
    places = {ExplicitVRLittleEndian, ImplicitVRLittleEndian}
    return int(header.BitsAllocated) == 1 and header.file_meta.TransferSyntaxUID in places


def bit_frame(header: Dataset, stream: BinaryIO, start: int, index: int) -> npt.NDArray[np.uint8]:
    """Return a frame of single bits, uint8 [row, column], 0 or 1; `start` is where the first lies.

    Raises:
        ValueError: the pixel data is too short.
    """
    rows, columns = int(header.Rows), int(header.Columns)
    first = index * rows * columns
    stream.seek(start + first // 8)
    data = stream.read((first % 8 + rows * columns + 7) // 8)
    bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
    return bits[first % 8 : first % 8 + rows * columns].reshape(rows, columns)


def _packed(bits: npt.NDArray[np.generic]) -> Json:
    return _content(np.packbits(bits.ravel() != 0, bitorder="little").tobytes())


def _hold_size(header: Dataset) -> None:
    bits = int(header.BitsAllocated) * int(header.get("SamplesPerPixel", 1))
    if int(header.Rows) * int(header.Columns) * bits // 8 > MOST_ANSWER // 2:
        raise RetrievalError("too_large", "the frame is too large to be decoded here")


# ---------------------------------------------------------------- within


def _content(value: bytes) -> Json:
    return {"content": base64.b64encode(value).decode("ascii")}


def _open(file: FileMessage) -> BinaryIO:
    return open_range(file.path, file.offset, file.length)


def pixels_at(header: FileDataset, stream: BinaryIO) -> tuple[int, int] | None:
    """Return where the value of Pixel Data starts in the file, and its length; None: there is none.

    The stream stands where the parser stopped. Of a deflated data set only that there is one.
    """
    syntax = header.file_meta.TransferSyntaxUID
    if syntax == DeflatedExplicitVRLittleEndian:
        return (0, 0) if "Rows" in header else None
    start = stream.tell()
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    head = stream.read(12)
    if len(head) < 8:  # noqa: PLR2004 - no element
        return None
    group, element = struct.unpack_from(f"{order}HH", head)
    if (group << 16 | element) != PIXEL_DATA:
        return None
    if head[4:6] in LONG_FORM and not syntax.is_implicit_VR:
        (length,) = struct.unpack_from(f"{order}I", head, 8)
        return start + 12, length
    (length,) = struct.unpack_from(f"{order}I", head, 4)
    return start + 8, length
