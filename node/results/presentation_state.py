"""Findings drawn over the images as they are: a Grayscale or Color Softcopy Presentation State.

The image is not changed, and the reader can switch the layer off (PS3.3 A.33.1, A.33.2). Tiled
slides are not handled: their thousands of outlines are Microscopy Bulk Simple Annotations.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Final

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import ColorSoftcopyPresentationStateStorage as ColorState
from pydicom.uid import GrayscaleSoftcopyPresentationStateStorage as GreyState
from scipy import ndimage

from engines.findings import Analysis, ImageAnalysis, Outcome, Segment
from node.interfaces import PictureError, ResultContext, ResultError, ResultWriter
from node.results import _encoding as encoding
from node.results import _explicit as explicit
from node.results import _identity as identity
from node.results._colours import icc_profile
from node.results._contours import Points, mask_of
from node.results._graphics import (
    DrawnImage,
    annotation,
    aspect_of,
    layer,
    spacing_of,
    tracking,
)
from node.results._grey_scale import grey_scale, put_grey_scale, referenced_frames
from node.results._iod import require_attributes
from node.results._marks import (
    SMALL,
    Marker,
    chosen_images,
    found_of,
    marked_images,
    spread,
    statement,
)
from node.results._objects import complete_object, new_object, referenced
from node.results._sources import cleaned
from node.results._text import decimals

NAME: Final = "presentation_state"
SERIES_NUMBER: Final = 9006
CORNERS: Final = 250_000
"""So many are drawn in all, give or take: 2 MB."""
SAMPLES: Final = 8
"""Images by which it is judged how much there is to draw."""


class PresentationStateWriter(ResultWriter):
    """Writes outlines and words over the images with findings (PR-01)."""

    name: ClassVar[str] = NAME
    by_default: ClassVar[bool] = False

    def handles(self, outcome: Outcome) -> bool:
        """Take findings with a place on an image; of a slide, see the module."""
        if isinstance(outcome, Analysis):
            return any(segment.by_slice.any() for segment in outcome.findings)
        return isinstance(outcome, ImageAnalysis) and bool(outcome.findings)

    def write(self, context: ResultContext) -> tuple[Dataset, ...]:
        """Make one object for a series; several where its images differ in size or table."""
        with encoding.translated(self.name):
            drawn = _images(context)
            said = _statement(context, len(drawn))
            return tuple(
                _encode(context, index, images, said) for index, images in enumerate(_alike(drawn))
            )

    def check(self, path: Path, context: ResultContext) -> None:
        """Compare every outline with its mask, pixel for pixel, and every word."""
        with encoding.translated(self.name):
            _compare(dcmread(path), context)


def _images(context: ResultContext) -> list[DrawnImage]:
    marker = Marker(context)
    found = []
    for index in _chosen(marker):
        frame = marker.found.sources[index]
        try:
            header = context.images.header(frame)
        except PictureError as error:
            raise ResultError(f"{NAME}: {error}") from error
        marks = marker.on(index)
        found.append(DrawnImage(frame=frame, header=header, marks=marks, scale=grey_scale(header)))
    return found


def _chosen(marker: Marker) -> list[int]:
    """Return the images that are drawn on: all with findings, or as many as can be shown.

    How much there is to draw is judged by some of them.
    """
    marked = marked_images(marker.found)
    sample = spread(marked, SAMPLES)
    corners = [
        len(contour) for index in sample for mark in marker.on(index) for contour in mark.contours()
    ]
    each = max(1, sum(corners) // max(1, len(sample)))
    return chosen_images(marker.found, max(1, CORNERS // each))


def _alike(images: Sequence[DrawnImage]) -> list[list[DrawnImage]]:
    groups: dict[tuple[object, ...], list[DrawnImage]] = {}
    for image in images:
        groups.setdefault(image.alike, []).append(image)
    return list(groups.values())


def _encode(context: ResultContext, index: int, images: Sequence[DrawnImage], said: str) -> Dataset:
    place = encoding.Place(
        writer=NAME,
        series_instance_uid=identity.series_uid(context, NAME),
        series_number=SERIES_NUMBER,
        description=encoding.described(context, "outlines"),
        index=index,
    )
    first = images[0]
    dataset = new_object(context, place, ColorState if first.in_colours else GreyState, "PR")
    _identify(dataset, context, index)
    dataset.ReferencedSeriesSequence = [_series(images)]
    dataset.DisplayedAreaSelectionSequence = [_displayed_area(first)]
    dataset.GraphicLayerSequence = [layer()]
    if first.in_colours:
        profile = cleaned(first.header, "ICCProfile")
        dataset.ICCProfile = profile.value if profile and profile.value else icc_profile()
    else:
        put_grey_scale(
            dataset, [image.frame for image in images], [image.scale for image in images]
        )
    complete_object(dataset, context, place)
    dataset.PresentationCreationDate = dataset.ContentDate
    dataset.PresentationCreationTime = dataset.ContentTime
    del dataset.ContentDate, dataset.ContentTime  # VAL-04: this IOD has others
    drawn = b"".join(explicit.item(annotation(context, image, said)) for image in images)
    explicit.put_items(dataset, "GraphicAnnotationSequence", drawn)
    return dataset


def _identify(dataset: Dataset, context: ResultContext, index: int) -> None:
    """Name it (PS3.3 C.11.10); nobody drew it, so no creator is named."""
    dataset.ContentLabel = "AI_FINDINGS" if not index else f"AI_FINDINGS_{index + 1}"
    dataset.ContentDescription = encoding.described(context, "outlines")
    dataset.ContentCreatorName = ""


def _series(images: Sequence[DrawnImage]) -> Dataset:
    item = Dataset()
    item.SeriesInstanceUID = images[0].frame.series_instance_uid
    item.ReferencedImageSequence = list(referenced_frames(image.frame for image in images))
    return item


def _displayed_area(image: DrawnImage) -> Dataset:
    """Show the whole image, with pixels of its own shape (PS3.3 C.10.4)."""
    rows, columns = image.size
    item = Dataset()
    item.DisplayedAreaTopLeftHandCorner = [1, 1]
    item.DisplayedAreaBottomRightHandCorner = [columns, rows]
    item.PresentationSizeMode = "SCALE TO FIT"
    spacing = spacing_of(image.header)
    if spacing:
        item.PresentationPixelSpacing = decimals(spacing)
    else:
        item.PresentationPixelAspectRatio = aspect_of(image.header)
    return item


def _statement(context: ResultContext, drawn: int) -> str:
    """Say that nobody has seen it, and on how many of the images it is, where not on all."""
    marked = len(marked_images(found_of(context)))
    if drawn == marked:
        return statement(context)
    return f"{statement(context)} Outlines on {drawn} of {marked} images with findings."


def _compare(written: Dataset, context: ResultContext) -> None:
    require_attributes(written, walked=("GraphicAnnotationSequence",))
    every = _images(context)
    by_uid = {
        identity.instance_uid(context, NAME, index): images
        for index, images in enumerate(_alike(every))
    }
    images = by_uid.get(str(written.SOPInstanceUID), [])
    drawn = written.GraphicAnnotationSequence
    _require(len(drawn) == len(images), "the images that are drawn on differ")
    for item, image in zip(drawn, images, strict=True):
        (named,) = item.ReferencedImageSequence
        _require(named == referenced(image.frame), "it draws on another image")
        _compare_words(item, image, _statement(context, len(every)))
        _compare_outlines(item, image, context)


def _compare_words(item: Dataset, image: DrawnImage, said: str) -> None:
    texts = [str(text.UnformattedTextValue) for text in item.TextObjectSequence]
    wanted = [said, *(mark.words for mark in image.marks if mark.words)]
    _require(texts == wanted, "its words differ")


def _compare_outlines(item: Dataset, image: DrawnImage, context: ResultContext) -> None:
    """Compare what outlines enclose with the masks: specks may differ, and nothing else."""
    by_uid: dict[str, list[Points]] = {}
    for shape in item.get("GraphicObjectSequence", ()):
        points = np.array(shape.GraphicData, np.float64).reshape(-1, 2)
        by_uid.setdefault(str(shape.TrackingUID), []).append(points)
    for mark in image.marks:
        if isinstance(mark.finding, Segment):
            pieces = by_uid.pop(tracking(context, mark)[1], [])
            other = mask_of(pieces, image.size) != mark.finding.plane(mark.index)
            largest = np.bincount(ndimage.label(other)[0].ravel())[1:].max(initial=0)
            fault = f"the outline of {mark.finding.key} is not that of its mask"
            _require(bool(pieces) and largest < SMALL, fault)
    _require(not by_uid, "it draws what is no finding")


def _require(holds: bool, fault: str) -> None:
    if not holds:
        raise ResultError(f"{NAME}: {fault}")
