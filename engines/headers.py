"""What the header of one image says of each of its frames. Decodes no pixel.

Classic images have one frame; Enhanced multi-frame images are read through their per-frame and
shared functional groups (PS3.3 C.7.6.16.1).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from pydicom.dataset import Dataset
from pydicom.uid import JPEGBaseline8Bit, JPEGExtended12Bit

from engines.datasets import READ_ERRORS, kind_of, quiet, read_dataset
from engines.images import InstanceFile, SourceFrame, Vector
from engines.plain_headers import Extent, read_plain_header
from engines.refusals import Reason, SeriesRefusedError

ALWAYS_LOSSY: Final = frozenset(
    {
        str(JPEGBaseline8Bit),
        str(JPEGExtended12Bit),
        "1.2.840.10008.1.2.4.53",
        "1.2.840.10008.1.2.4.55",
    }
)
SECONDARY_CAPTURE: Final = "1.2.840.10008.5.1.4.1.1.7"
TILED_FULL: Final = "TILED_FULL"
"""Tiles of a slide, in order, without a functional group each: one header stands for all."""
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
    """One frame of one image, or all tiles of a slide.

    Positions and directions are in LPS, mm; absent things are None.
    `pixel_data` says where native pixels lie in the file; None: pydicom has to find them.
    """

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
    tabled: bool  # stored values become values by a table (PS3.3 C.11.1), not by a line
    lossy: bool
    burned_in: bool
    distinct: Mapping[str, str]
    explaining: Mapping[str, str]
    pixel_data: Extent | None


class _Attributes(Protocol):
    """Values by keyword: a data set of pydicom, or what was walked of a plain one."""

    def get(self, key: str, /) -> Any:  # noqa: ANN401 - as pydicom says
        """Return a value; None where the attribute is absent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Image:
    file: InstanceFile
    attributes: _Attributes
    pixels: PixelFormat
    pixel_data: Extent | None


def read_headers(file: InstanceFile, *, byte_limit: int) -> tuple[FrameHeader, ...]:
    """Read the frames of one file, in stored order.

    Raises:
        SeriesRefusedError: unreadable, larger than `byte_limit`, no pixel attributes, functional
            groups that do not match the number of frames, numbers that are not finite.
    """
    plain = read_plain_header(file, byte_limit=byte_limit)
    extent = None if plain is None else plain.pixel_data
    try:
        if plain is not None and plain.attributes is not None:
            syntax = plain.transfer_syntax_uid
            return tuple(_frames(plain.attributes, syntax, file, extent, byte_limit))
        dataset = read_dataset(file, byte_limit=byte_limit, with_pixels=False)
        with quiet():
            syntax = str(dataset.file_meta.get("TransferSyntaxUID", ""))
            return tuple(_frames(dataset, syntax, file, extent, byte_limit))
    except READ_ERRORS as error:
        raise SeriesRefusedError(
            Reason.UNREADABLE, f"an attribute of an image has no valid value ({kind_of(error)})"
        ) from error


def _frames(
    attributes: _Attributes,
    transfer_syntax_uid: str,
    file: InstanceFile,
    pixel_data: Extent | None,
    byte_limit: int,
) -> Iterator[FrameHeader]:
    pixels = pixel_format(attributes, transfer_syntax_uid)
    needed = pixels.rows * pixels.columns * pixels.frames * pixels.samples * 2
    if needed > byte_limit:
        raise SeriesRefusedError(
            Reason.TOO_LARGE,
            f"{pixels.frames} frames of {pixels.rows} x {pixels.columns} pixels need more than"
            f" {byte_limit >> 20} MiB",
        )
    image = _Image(file=file, attributes=attributes, pixels=pixels, pixel_data=pixel_data)
    per_frame = attributes.get("PerFrameFunctionalGroupsSequence")
    if not per_frame:
        if attributes.get("DimensionOrganizationType") == TILED_FULL:
            shared = attributes.get("SharedFunctionalGroupsSequence") or [Dataset()]
            yield _frame(image, _places(attributes, Dataset(), shared[0]), None)
            return
        if pixels.frames != 1:
            raise SeriesRefusedError(
                Reason.MISSING_GEOMETRY,
                f"an image has {pixels.frames} frames, but no functional group says where they lie",
            )
        yield _frame(image, [attributes], None)
        return
    if len(per_frame) != pixels.frames:
        raise SeriesRefusedError(
            Reason.INCOMPLETE,
            f"an image of {pixels.frames} frames describes {len(per_frame)} of them",
        )
    _check_concatenation(attributes)
    shared = attributes.get("SharedFunctionalGroupsSequence") or [Dataset()]
    for index, own in enumerate(per_frame):
        yield _frame(image, _places(attributes, own, shared[0]), index)


def _check_concatenation(attributes: _Attributes) -> None:
    total = attributes.get("InConcatenationTotalNumber")
    if attributes.get("ConcatenationUID") is not None and total not in (None, 1):
        raise SeriesRefusedError(
            Reason.INCOMPLETE, "an image is part of a concatenation, which is not put together here"
        )


def _places(attributes: _Attributes, own: Dataset, shared: Dataset) -> list[_Attributes]:
    """Return the data sets that may hold an attribute of a frame, the most specific first."""
    found: list[_Attributes] = []
    for name in GROUPS:
        for holder in (own, shared):
            group = holder.get(name)
            if group:
                found.append(group[0])
                break
    return [*found, attributes]


def _frame(image: _Image, places: Sequence[_Attributes], index: int | None) -> FrameHeader:
    """Read one frame; `index` is None for a single-frame image."""
    file, pixels, attributes = image.file, image.pixels, image.attributes
    image_type = _words(_first(places, "FrameType") or _first(places, "ImageType"))
    distinct = _keys(places, DISTINCT_KEYS)
    distinct["ImageType"] = "\\".join(image_type[:3])
    return FrameHeader(
        file=file,
        source=SourceFrame(
            sop_class_uid=file.sop_class_uid,
            sop_instance_uid=file.sop_instance_uid,
            series_instance_uid=str(attributes.get("SeriesInstanceUID") or ""),
            frame=None if index is None else index + 1,
        ),
        index=index or 0,
        pixels=pixels,
        modality=str(attributes.get("Modality") or ""),
        image_type=image_type,
        body_part=str(attributes.get("BodyPartExamined") or "").strip().upper(),
        frame_of_reference_uid=str(attributes.get("FrameOfReferenceUID") or ""),
        position=_vector(_numbers(places, "ImagePositionPatient", 3)),
        orientation=_numbers(places, "ImageOrientationPatient", 6),
        pixel_spacing=_spacing(_numbers(places, "PixelSpacing", 2)),
        slice_thickness=_thickness(_numbers(places, "SliceThickness", 1)),
        rescale=_rescale(places),
        rescale_type=str(_first(places, "RescaleType") or ""),
        tabled=bool(attributes.get("ModalityLUTSequence")),
        lossy=attributes.get("LossyImageCompression") == "01"
        or pixels.transfer_syntax_uid in ALWAYS_LOSSY,
        burned_in=attributes.get("BurnedInAnnotation") == "YES",
        distinct=distinct,
        explaining=_keys(places, EXPLAINING_KEYS),
        pixel_data=image.pixel_data,
    )


def pixel_format(attributes: _Attributes, transfer_syntax_uid: str) -> PixelFormat:
    """Read how the pixels of an image are stored.

    Raises:
        SeriesRefusedError: there are no pixel attributes.
    """
    names = ("Rows", "Columns", "BitsAllocated", "BitsStored", "PixelRepresentation")
    values = [attributes.get(name) for name in names]
    if not all(isinstance(value, int) for value in values) or not values[0] or not values[1]:
        raise SeriesRefusedError(
            Reason.NO_PIXELS, "an object of the series has no pixel attributes, so it is no image"
        )
    rows, columns, allocated, stored, representation = (int(value) for value in values)
    high_bit = attributes.get("HighBit")
    return PixelFormat(
        rows=rows,
        columns=columns,
        frames=int(attributes.get("NumberOfFrames") or 1),
        samples=int(attributes.get("SamplesPerPixel") or 1),
        photometric=str(attributes.get("PhotometricInterpretation") or ""),
        bits_allocated=allocated,
        bits_stored=stored,
        high_bit=stored - 1 if high_bit is None else int(high_bit),
        signed=representation == 1,
        padding=_padding(attributes, allocated, signed=representation == 1),
        transfer_syntax_uid=transfer_syntax_uid,
    )


def _padding(attributes: _Attributes, bits: int, *, signed: bool) -> tuple[int, int] | None:
    """Read the range of stored values that are padding (PS3.3 C.7.5.1.1.2).

    Some writers give a negative value with the unsigned value representation or the reverse; the
    bit pattern is what counts.
    """
    value = attributes.get("PixelPaddingValue")
    if not isinstance(value, int):
        return None
    limit = attributes.get("PixelPaddingRangeLimit")
    ends = [_as_stored(value, bits, signed=signed)]
    ends.append(_as_stored(limit, bits, signed=signed) if isinstance(limit, int) else ends[0])
    return min(ends), max(ends)


def _as_stored(value: int, bits: int, *, signed: bool) -> int:
    pattern = value & ((1 << bits) - 1)
    return pattern - (1 << bits) if signed and pattern >> (bits - 1) else pattern


def _first(places: Sequence[_Attributes], keyword: str) -> object:
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


def _keys(places: Sequence[_Attributes], names: Sequence[str]) -> dict[str, str]:
    return {name: "\\".join(_words(_first(places, name))) for name in names}


def _numbers(places: Sequence[_Attributes], keyword: str, count: int) -> tuple[float, ...] | None:
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


def _rescale(places: Sequence[_Attributes]) -> tuple[float, float] | None:
    slope = _numbers(places, "RescaleSlope", 1)
    intercept = _numbers(places, "RescaleIntercept", 1)
    if slope is None or intercept is None:
        return None
    if slope[0] == 0:
        raise SeriesRefusedError(Reason.INVALID_RESCALE, "the rescale slope is zero")
    return slope[0], intercept[0]
