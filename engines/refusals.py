"""Why a series was not analysed: the coded reasons, and the error that carries one.

The codes belong to the private scheme 99WETREAD. A value never changes its meaning and is never
used again for another; new reasons get new values.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import ClassVar, Final

from engines.errors import EngineError
from engines.findings import Code, Refusal
from engines.images import SourceFrame

SCHEME: Final = "99WETREAD"


class Reason(StrEnum):
    """Code values (SH, at most 16 characters, PS3.5 6.2)."""

    EMPTY = "NO_IMAGES"
    UNREADABLE = "UNREADABLE"
    TOO_LARGE = "TOO_LARGE"
    NO_PIXELS = "NO_PIXEL_DATA"
    PIXELS_TOO_SHORT = "PIXELS_SHORT"
    PIXELS_UNREADABLE = "PIXELS_DAMAGED"
    PIXEL_FORMAT = "PIXEL_FORMAT"
    TRANSFER_SYNTAX = "NO_DECODER"
    ONLY_LOCALIZERS = "LOCALIZER_ONLY"
    ONLY_SECONDARY = "SECONDARY_ONLY"
    MISSING_GEOMETRY = "NO_GEOMETRY"
    INVALID_GEOMETRY = "BAD_GEOMETRY"
    INVALID_RESCALE = "BAD_RESCALE"
    SEVERAL_SERIES = "SEVERAL_SERIES"
    SEVERAL_VOLUMES = "SEVERAL_VOLUMES"
    INCOMPLETE = "INCOMPLETE"
    MIXED_ORIENTATION = "MIXED_PLANES"
    MIXED_MATRIX = "MIXED_MATRIX"
    MIXED_SPACING = "MIXED_SPACING"
    MIXED_FRAME_OF_REFERENCE = "MIXED_FRAME"
    DUPLICATE_POSITION = "SAME_POSITION"
    MISSING_SLICES = "MISSING_SLICES"
    UNEVEN_SPACING = "UNEVEN_SPACING"
    TILTED = "GANTRY_TILT"
    WRONG_MODALITY = "MODALITY"
    WRONG_SOP_CLASS = "SOP_CLASS"
    WRONG_IMAGE_TYPE = "IMAGE_TYPE"
    WRONG_UNIT = "NOT_CALIBRATED"
    WRONG_BODY_PART = "BODY_PART"
    WRONG_PHASE = "PHASE"
    WRONG_LATERALITY = "LATERALITY"
    WRONG_VIEW = "VIEW"
    WRONG_ATTRIBUTE = "ATTRIBUTE"
    WRONG_PLANE = "PLANE"
    LOSSY = "LOSSY"
    TOO_FEW_SLICES = "FEW_SLICES"
    TOO_MANY_SLICES = "MANY_SLICES"
    TOO_FEW_PHASES = "FEW_PHASES"
    SLICES_TOO_FAR_APART = "SLICE_DISTANCE"
    PIXELS_TOO_LARGE = "PIXEL_SIZE"
    PIXELS_TOO_SMALL = "PIXELS_FINE"
    MATRIX_TOO_SMALL = "SMALL_MATRIX"
    NO_BODY = "NO_BODY"
    IMPLAUSIBLE = "IMPLAUSIBLE"


MEANINGS: Final[Mapping[Reason, str]] = {
    Reason.EMPTY: "Series has no image",
    Reason.UNREADABLE: "Image cannot be read",
    Reason.TOO_LARGE: "Series larger than the engine accepts",
    Reason.NO_PIXELS: "Image without pixel data",
    Reason.PIXELS_TOO_SHORT: "Pixel data shorter than its header says",
    Reason.PIXELS_UNREADABLE: "Pixel data cannot be decoded",
    Reason.PIXEL_FORMAT: "Pixel format not supported",
    Reason.TRANSFER_SYNTAX: "No decoder for the transfer syntax",
    Reason.ONLY_LOCALIZERS: "Only localizer images",
    Reason.ONLY_SECONDARY: "Only secondary captures or screen saves",
    Reason.MISSING_GEOMETRY: "Image position, orientation or spacing missing",
    Reason.INVALID_GEOMETRY: "Image position, orientation or spacing not valid",
    Reason.INVALID_RESCALE: "Rescale slope or intercept missing or not valid",
    Reason.SEVERAL_SERIES: "Images of several series",
    Reason.SEVERAL_VOLUMES: "Series holds several volumes",
    Reason.INCOMPLETE: "Multi-frame image incomplete",
    Reason.MIXED_ORIENTATION: "Images of different orientation",
    Reason.MIXED_MATRIX: "Images of different size",
    Reason.MIXED_SPACING: "Images of different pixel spacing",
    Reason.MIXED_FRAME_OF_REFERENCE: "Images of different frame of reference",
    Reason.DUPLICATE_POSITION: "Several images at one position",
    Reason.MISSING_SLICES: "Slices missing",
    Reason.UNEVEN_SPACING: "Slices unevenly spaced",
    Reason.TILTED: "Gantry tilt or sheared stack",
    Reason.WRONG_MODALITY: "Modality not supported by the engine",
    Reason.WRONG_SOP_CLASS: "Kind of image not supported by the engine",
    Reason.WRONG_IMAGE_TYPE: "Image type not supported by the engine",
    Reason.WRONG_UNIT: "Pixel values not in the unit the engine needs",
    Reason.WRONG_BODY_PART: "Body part not supported by the engine",
    Reason.WRONG_PHASE: "Contrast phase not supported by the engine",
    Reason.WRONG_LATERALITY: "Side not supported by the engine",
    Reason.WRONG_VIEW: "View not supported by the engine",
    Reason.WRONG_ATTRIBUTE: "Attribute not as the engine needs it",
    Reason.WRONG_PLANE: "Plane not supported by the engine",
    Reason.LOSSY: "Lossy compressed images",
    Reason.TOO_FEW_SLICES: "Too few slices",
    Reason.TOO_MANY_SLICES: "Too many slices",
    Reason.TOO_FEW_PHASES: "Too few phases, or phases not told",
    Reason.SLICES_TOO_FAR_APART: "Slices too far apart",
    Reason.PIXELS_TOO_LARGE: "Pixels too large",
    Reason.PIXELS_TOO_SMALL: "Pixels too small",
    Reason.MATRIX_TOO_SMALL: "Images too small",
    Reason.NO_BODY: "No part of the body found in the images",
    Reason.IMPLAUSIBLE: "Result of the engine not plausible",
}


def reason_code(reason: Reason) -> Code:
    """Return the coded concept of a reason."""
    return Code(reason.value, SCHEME, MEANINGS[reason])


def refuse(reason: Reason, detail: str, sources: Iterable[SourceFrame] = ()) -> Refusal:
    """Make the outcome *not analysed*. `detail` is one sentence without patient data."""
    return Refusal(reason=reason_code(reason), detail=detail, sources=tuple(sources))


class SeriesRefusedError(EngineError):
    """The series cannot be made into what the engine needs. Becomes a `Refusal`, not a failure."""

    kind: ClassVar[str] = "refused"

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason.value}: {detail}")
        self.reason = reason
        self.detail = detail
