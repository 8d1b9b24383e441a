"""Outlines and words as graphic annotations, in pixels of the image (PS3.3 C.10.5)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import numpy as np
from highdicom.color import CIELabColor
from pydicom.dataset import Dataset

from engines.findings import Segment
from engines.images import SourceFrame
from node.interfaces import ResultContext
from node.results import _explicit as explicit
from node.results import _identity as identity
from node.results._contours import Points
from node.results._grey_scale import GreyScale, numbers
from node.results._marks import Mark, Marks, found_of
from node.results._objects import PENDING, referenced
from node.results._sources import header_text
from node.results._text import clean

LAYER: Final = "AI"
LAYER_COLOUR: Final = (255, 204, 0)
PIXEL: Final = "PIXEL"
POINTS: Final = 8000
"""Of one polyline: its value has 16 bits of length (PS3.5 7.1.2)."""
SHARE: Final = 12
"""The statement has one in so many rows of the image, and words without an outline each."""
GRAPHIC_OBJECTS: Final = 0x00700009
NUMBER_OF_POINTS: Final = 0x00700021
GRAPHIC_DATA: Final = 0x00700022
AXES: Final = ("rows", "columns")


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnImage:
    """One image that is drawn on, with what says how it is shown."""

    frame: SourceFrame
    header: Dataset
    marks: Marks
    scale: GreyScale

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns."""
        return int(self.header.Rows), int(self.header.Columns)

    @property
    def in_colours(self) -> bool:
        """Whether it is shown in colours."""
        return "MONOCHROME" not in header_text(self.header, "PhotometricInterpretation")

    @property
    def alike(self) -> tuple[object, ...]:
        """What images of one presentation state have in common."""
        scale = self.scale
        return (
            self.frame.series_instance_uid,
            self.size,
            self.in_colours,
            scale.modality_table,
            scale.inverse,
            tuple(spacing_of(self.header)),
        )


def layer() -> Dataset:
    """Make the one layer, named as whose it is (PR-01)."""
    item = Dataset()
    item.GraphicLayer, item.GraphicLayerOrder = LAYER, 1
    item.GraphicLayerDescription = PENDING
    item.GraphicLayerRecommendedDisplayCIELabValue = _cielab(LAYER_COLOUR)
    return item


def annotation(context: ResultContext, image: DrawnImage, said: str) -> bytes:
    """Encode what is drawn on one image: the statement, then outlines and words."""
    item = Dataset()
    item.ReferencedImageSequence = [referenced(image.frame)]
    item.GraphicLayer = LAYER
    item.TextObjectSequence = [_statement(image, said)]
    shapes = b""
    for row, mark in enumerate(image.marks):
        contours = mark.contours()
        style = explicit.elements_of(_style(context, mark)) if contours else {}
        for contour in contours:
            shapes += b"".join(_polyline(style, piece) for piece in _pieces(contour))
        if mark.words:
            item.TextObjectSequence.append(_words(mark, _anchor(contours, image, row)))
    elements = explicit.elements_of(item)
    if shapes:
        elements[GRAPHIC_OBJECTS] = explicit.sequence(GRAPHIC_OBJECTS, shapes)
    return explicit.in_order(elements)


def _pieces(contour: Points) -> Iterator[Points]:
    """Yield the closed contour, in open pieces where it is longer than a value may be."""
    closed = np.concatenate([contour, contour[:1]])
    for start in range(0, len(closed) - 1, POINTS):
        yield closed[start : start + POINTS + 1]


def _style(context: ResultContext, mark: Mark) -> Dataset:
    """Say what all outlines of a finding have in common."""
    item = Dataset()
    item.GraphicAnnotationUnits, item.GraphicDimensions = PIXEL, len(AXES)
    item.GraphicType, item.GraphicFilled = "POLYLINE", "N"
    item.LineStyleSequence = [_line_style(mark.colour)]
    item.TrackingID, item.TrackingUID = tracking(context, mark)
    return item


def _polyline(style: explicit.Elements, points: Points) -> bytes:
    count = len(points).to_bytes(2, "little")
    drawn = {
        NUMBER_OF_POINTS: explicit.element(NUMBER_OF_POINTS, b"US", count),
        GRAPHIC_DATA: explicit.element(GRAPHIC_DATA, b"FL", points.astype("<f4").tobytes()),
    }
    return explicit.item(explicit.in_order({**style, **drawn}))


def _line_style(colour: tuple[int, int, int]) -> Dataset:
    """Draw in the colour of the finding (PS3.3 Table C.10-5b)."""
    style = Dataset()
    style.PatternOnColorCIELabValue = _cielab(colour)
    style.PatternOnOpacity = 1.0
    style.LineThickness = 1.0
    style.LineDashingStyle = "SOLID"
    style.ShadowStyle = "OFF"
    style.ShadowOffsetX = style.ShadowOffsetY = style.ShadowOpacity = 0.0
    style.ShadowColorCIELabValue = _cielab((0, 0, 0))
    return style


def tracking(context: ResultContext, mark: Mark) -> tuple[str, str]:
    """Name the finding as every other object does (OBJ-17)."""
    analysis, key = found_of(context), mark.finding.key
    return clean(f"{context.engine.name} {key}"), identity.tracking_uid(context, analysis, key)


def _statement(image: DrawnImage, said: str) -> Dataset:
    """Say over the top of the image whose result this is, and that nobody has seen it."""
    rows, columns = image.size
    item = Dataset()
    item.BoundingBoxAnnotationUnits = PIXEL
    item.UnformattedTextValue = said
    item.BoundingBoxTopLeftHandCorner = [0.0, 0.0]
    item.BoundingBoxBottomRightHandCorner = [float(columns), float(max(1, rows // SHARE))]
    item.BoundingBoxTextHorizontalJustification = "LEFT"
    return item


def _anchor(contours: Sequence[Points], image: DrawnImage, row: int) -> tuple[float, float]:
    """Return the top right of an outline; without any, a place below the statement."""
    if contours:
        points = np.concatenate(contours)
        return float(points[:, 0].max()), float(points[:, 1].min())
    rows, columns = image.size
    return columns / SHARE, min(float(rows), rows * (row + 2) / SHARE)


def _words(mark: Mark, anchor: tuple[float, float]) -> Dataset:
    item = Dataset()
    item.AnchorPointAnnotationUnits = PIXEL
    item.UnformattedTextValue = mark.words
    item.AnchorPoint = list(anchor)
    item.AnchorPointVisibility = "Y" if isinstance(mark.finding, Segment) else "N"
    return item


def spacing_of(header: Dataset) -> tuple[float, ...]:
    """Return the distance of rows and of columns in the patient, mm; empty where not known."""
    found = numbers(header, "PixelSpacing")
    return found if len(found) == len(AXES) and min(found) > 0 else ()


def aspect_of(header: Dataset) -> list[int]:
    """Return how high and how wide a pixel is, as whole numbers."""
    for keyword in ("ImagerPixelSpacing", "PixelAspectRatio"):
        found = numbers(header, keyword)
        if len(found) == len(AXES) and min(found) > 0:
            ratio = Fraction(found[0] / found[1]).limit_denominator(1000)
            return [max(1, ratio.numerator), ratio.denominator]
    return [1, 1]


def _cielab(colour: tuple[int, int, int]) -> list[int]:
    return list(CIELabColor.from_rgb(*colour).value)
