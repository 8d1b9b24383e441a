"""What the header of one image says of each of its frames. Knows pydicom, decodes no pixel.

Classic images have one frame; Enhanced multi-frame images are read through their per-frame and
shared functional groups (PS3.3 C.7.6.16.1).
"""

from __future__ import annotations

import io
import logging
import math
import struct
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, Final

import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEGBaseline8Bit, JPEGExtended12Bit

from engines.images import InstanceFile, SourceFrame, Vector
from engines.refusals import Reason, SeriesRefusedError

READ_ERRORS: Final = (
    InvalidDicomError, BytesLengthException, OSError, EOFError, ValueError, TypeError, KeyError,
    IndexError, AttributeError, NotImplementedError, OverflowError, RecursionError,
    struct.error, zlib.error,
)  # fmt: skip
ALWAYS_LOSSY: Final = frozenset(
    {
        str(JPEGBaseline8Bit),
        str(JPEGExtended12Bit),
        "1.2.840.10008.1.2.4.53",
        "1.2.840.10008.1.2.4.55",
    }
)
SECONDARY_CAPTURE: Final = "1.2.840.10008.5.1.4.1.1.7"
DISTINCT_KEYS: Final = (
    "EchoTime",
    "EchoNumbers",
    "EffectiveEchoTime",
    "TemporalPositionIdentifier",
    "TemporalPositionIndex",
    "DiffusionBValue",
    "ConvolutionKernel",
    "StackID",
)
"""Attributes that tell volumes of one series apart wherever they differ (GEO-08)."""
EXPLAINING_KEYS: Final = (
    "AcquisitionNumber",
    "TriggerTime",
    "NominalCardiacTriggerDelayTime",
    "ContrastBolusAgent",
    "FrameType",
    "ImageType",
)
"""Attributes that may differ within one volume, but explain several images at one position."""
GROUPS: Final = (
    "PlanePositionSequence",
    "PlaneOrientationSequence",
    "PixelMeasuresSequence",
    "PixelValueTransformationSequence",
    "FrameContentSequence",
    "MREchoSequence",
    "MRDiffusionSequence",
    "CardiacSynchronizationSequence",
    "CTReconstructionSequence",
    "CTImageFrameTypeSequence",
    "MRImageFrameTypeSequence",
    "ContrastBolusUsageSequence",
)
"""Functional groups that are looked at, in this order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelFormat:
    """How pixels are stored (PS3.3 C.7.6.3). `padding` is a range of stored values."""

    rows: int
    columns: int
    frames: int
    samples: int
    photometric: str
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    padding: tuple[int, int] | None
    transfer_syntax_uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameHeader:
    """One frame of one image. Positions and directions are in LPS, mm; absent things are None."""

    file: InstanceFile
    source: SourceFrame
    index: int  # of the frame within its file, from 0
    pixels: PixelFormat
    modality: str
    image_type: tuple[str, ...]
    body_part: str
    frame_of_reference_uid: str
    position: Vector | None
    orientation: tuple[float, ...] | None
    pixel_spacing: tuple[float, float] | None
    slice_thickness: float | None
    rescale: tuple[float, float] | None  # slope, intercept
    rescale_type: str
    lossy: bool
    burned_in: bool
    distinct: Mapping[str, str]
    explaining: Mapping[str, str]


def read_headers(file: InstanceFile, *, byte_limit: int) -> tuple[FrameHeader, ...]:
    """Read the frames of one file, in stored order.

    Raises:
        SeriesRefusedError: unreadable, larger than `byte_limit`, no pixel attributes, functional
            groups that do not match the number of frames, numbers that are not finite.
    """
    dataset = read_dataset(file, byte_limit=byte_limit, with_pixels=False)
    try:
        with quiet():
            return tuple(_frames(dataset, file, byte_limit))
    except READ_ERRORS as error:
        raise SeriesRefusedError(
            Reason.UNREADABLE, f"an attribute of an image has no valid value ({_kind(error)})"
        ) from error


def read_dataset(file: InstanceFile, *, byte_limit: int, with_pixels: bool) -> Dataset:
    """Parse one file within `byte_limit` bytes of memory.

    Raises:
        SeriesRefusedError: unreadable, or larger than the limit (a deflated data set: once
            inflated).
    """
    try:
        with file.open() as stream, quiet():
            _check_size(stream, byte_limit)
            stream.seek(0)
            return pydicom.dcmread(stream, stop_before_pixels=not with_pixels)
    except READ_ERRORS as error:
        raise SeriesRefusedError(
            Reason.UNREADABLE, f"an image is not a readable DICOM file ({_kind(error)})"
        ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what pydicom has to say from terminal and log: it quotes values of the data set."""
    logger = logging.getLogger("pydicom")
    before = logger.disabled
    logger.disabled = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = before


def _check_size(stream: BinaryIO, byte_limit: int) -> None:
    size = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    pydicom.filereader.read_preamble(stream, False)
    meta = pydicom.filereader._read_file_meta_info(stream)
    if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
        start = 144 + int(meta.FileMetaInformationGroupLength)
        size = _inflated_size(stream, start, byte_limit)
    if size > byte_limit:
        raise SeriesRefusedError(
            Reason.TOO_LARGE, f"an image has more than {byte_limit >> 20} MiB of data"
        )


def _inflated_size(stream: BinaryIO, start: int, byte_limit: int) -> int:
    """Count what a deflated data set inflates to, keeping nothing and stopping past the limit."""
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    size, chunk = 0, 1 << 20
    stream.seek(start)
    data = stream.read(chunk)
    while data and size <= byte_limit and not inflate.eof:
        size += len(inflate.decompress(data, chunk))
        data = inflate.unconsumed_tail or stream.read(chunk)
    return size


def _kind(error: BaseException) -> str:
    """Name an error without its words, which may quote the data set."""
    return type(error).__name__


def _frames(dataset: Dataset, file: InstanceFile, byte_limit: int) -> Iterator[FrameHeader]:
    pixels = _pixel_format(dataset)
    needed = pixels.rows * pixels.columns * pixels.frames * pixels.samples * 2
    if needed > byte_limit:
        raise SeriesRefusedError(
            Reason.TOO_LARGE,
            f"{pixels.frames} frames of {pixels.rows} x {pixels.columns} pixels need more than"
            f" {byte_limit >> 20} MiB",
        )
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence")
    if not per_frame:
        if pixels.frames != 1:
            raise SeriesRefusedError(
                Reason.MISSING_GEOMETRY,
                f"an image has {pixels.frames} frames, but no functional group says where they lie",
            )
        yield _frame(dataset, [dataset], file, pixels, None)
        return
    if len(per_frame) != pixels.frames:
        raise SeriesRefusedError(
            Reason.INCOMPLETE,
            f"an image of {pixels.frames} frames describes {len(per_frame)} of them",
        )
    _check_concatenation(dataset)
    shared = dataset.get("SharedFunctionalGroupsSequence") or [Dataset()]
    for index, own in enumerate(per_frame):
        yield _frame(dataset, _places(dataset, own, shared[0]), file, pixels, index)


def _check_concatenation(dataset: Dataset) -> None:
    total = dataset.get("InConcatenationTotalNumber")
    if "ConcatenationUID" in dataset and total not in (None, 1):
        raise SeriesRefusedError(
            Reason.INCOMPLETE, "an image is part of a concatenation, which is not put together here"
        )


def _places(dataset: Dataset, own: Dataset, shared: Dataset) -> list[Dataset]:
    """Return the data sets that may hold an attribute of a frame, the most specific first."""
    found = []
    for name in GROUPS:
        for holder in (own, shared):
            group = holder.get(name)
            if group:
                found.append(group[0])
                break
    return [*found, dataset]


def _frame(
    dataset: Dataset,
    places: Sequence[Dataset],
    file: InstanceFile,
    pixels: PixelFormat,
    index: int | None,
) -> FrameHeader:
    """Read one frame; `index` is None for a single-frame image."""
    image_type = _words(_first(places, "FrameType") or _first(places, "ImageType"))
    distinct = _keys(places, DISTINCT_KEYS)
    distinct["ImageType"] = "\\".join(image_type[:3])
    return FrameHeader(
        file=file,
        source=SourceFrame(
            sop_class_uid=file.sop_class_uid,
            sop_instance_uid=file.sop_instance_uid,
            series_instance_uid=str(dataset.get("SeriesInstanceUID", "")),
            frame=None if index is None else index + 1,
        ),
        index=index or 0,
        pixels=pixels,
        modality=str(dataset.get("Modality", "")),
        image_type=image_type,
        body_part=str(dataset.get("BodyPartExamined") or "").strip().upper(),
        frame_of_reference_uid=str(dataset.get("FrameOfReferenceUID") or ""),
        position=_vector(_numbers(places, "ImagePositionPatient", 3)),
        orientation=_numbers(places, "ImageOrientationPatient", 6),
        pixel_spacing=_spacing(_numbers(places, "PixelSpacing", 2)),
        slice_thickness=_thickness(_numbers(places, "SliceThickness", 1)),
        rescale=_rescale(places),
        rescale_type=str(_first(places, "RescaleType") or ""),
        lossy=dataset.get("LossyImageCompression") == "01"
        or pixels.transfer_syntax_uid in ALWAYS_LOSSY,
        burned_in=dataset.get("BurnedInAnnotation") == "YES",
        distinct=distinct,
        explaining=_keys(places, EXPLAINING_KEYS),
    )


def _pixel_format(dataset: Dataset) -> PixelFormat:
    names = ("Rows", "Columns", "BitsAllocated", "BitsStored", "PixelRepresentation")
    values = [dataset.get(name) for name in names]
    if not all(isinstance(value, int) for value in values) or not values[0] or not values[1]:
        raise SeriesRefusedError(
            Reason.NO_PIXELS, "an object of the series has no pixel attributes, so it is no image"
        )
    rows, columns, allocated, stored, representation = (int(value) for value in values)
    high_bit = dataset.get("HighBit")
    return PixelFormat(
        rows=rows,
        columns=columns,
        frames=int(dataset.get("NumberOfFrames") or 1),
        samples=int(dataset.get("SamplesPerPixel") or 1),
        photometric=str(dataset.get("PhotometricInterpretation") or ""),
        bits_allocated=allocated,
        bits_stored=stored,
        high_bit=stored - 1 if high_bit is None else int(high_bit),
        signed=representation == 1,
        padding=_padding(dataset, allocated, signed=representation == 1),
        transfer_syntax_uid=str(dataset.file_meta.get("TransferSyntaxUID", "")),
    )


def _padding(dataset: Dataset, bits: int, *, signed: bool) -> tuple[int, int] | None:
    """Read the range of stored values that are padding (PS3.3 C.7.5.1.1.2).

    Some writers give a negative value with the unsigned value representation or the reverse; the
    bit pattern is what counts.
    """
    value = dataset.get("PixelPaddingValue")
    if not isinstance(value, int):
        return None
    limit = dataset.get("PixelPaddingRangeLimit")
    ends = [_as_stored(value, bits, signed=signed)]
    ends.append(_as_stored(limit, bits, signed=signed) if isinstance(limit, int) else ends[0])
    return min(ends), max(ends)


def _as_stored(value: int, bits: int, *, signed: bool) -> int:
    pattern = value & ((1 << bits) - 1)
    return pattern - (1 << bits) if signed and pattern >> (bits - 1) else pattern


def _first(places: Sequence[Dataset], keyword: str) -> object:
    for place in places:
        value: object = place.get(keyword)
        if value is not None and value != "":
            return value
    return None


def _words(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    items = [value] if isinstance(value, str) or not isinstance(value, Sequence) else value
    return tuple(str(item).strip() for item in items)


def _keys(places: Sequence[Dataset], names: Sequence[str]) -> dict[str, str]:
    return {name: "\\".join(_words(_first(places, name))) for name in names}


def _numbers(places: Sequence[Dataset], keyword: str, count: int) -> tuple[float, ...] | None:
    """Return finite numbers, or None where the attribute is absent or empty.

    Raises:
        SeriesRefusedError: another count, or a number that is not finite.
    """
    value = _first(places, keyword)
    if value is None or (isinstance(value, Sequence) and not len(value)):
        return None
    numbers = tuple(float(item) for item in _words(value))
    if len(numbers) != count or not all(math.isfinite(number) for number in numbers):
        raise SeriesRefusedError(
            Reason.INVALID_RESCALE if keyword.startswith("Rescale") else Reason.INVALID_GEOMETRY,
            f"{keyword} does not hold {count} finite numbers",
        )
    return numbers


def _vector(numbers: tuple[float, ...] | None) -> Vector | None:
    return None if numbers is None else (numbers[0], numbers[1], numbers[2])


def _spacing(numbers: tuple[float, ...] | None) -> tuple[float, float] | None:
    if numbers is None:
        return None
    if min(numbers) <= 0:
        raise SeriesRefusedError(
            Reason.INVALID_GEOMETRY,
            f"pixel spacing is {numbers[0]:g} x {numbers[1]:g} mm, not above zero",
        )
    return numbers[0], numbers[1]


def _thickness(numbers: tuple[float, ...] | None) -> float | None:
    return numbers[0] if numbers is not None and numbers[0] > 0 else None


def _rescale(places: Sequence[Dataset]) -> tuple[float, float] | None:
    slope = _numbers(places, "RescaleSlope", 1)
    intercept = _numbers(places, "RescaleIntercept", 1)
    if slope is None or intercept is None:
        return None
    if slope[0] == 0:
        raise SeriesRefusedError(Reason.INVALID_RESCALE, "the rescale slope is zero")
    return slope[0], intercept[0]
