"""What secondary captures show: a card with the result in words, then images with outlines.

Planned without decoding an image, and drawn picture by picture: the check of one file draws one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, TypeAlias

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from engines.findings import Classification, Outcome, Refusal
from engines.images import SourceFrame
from node.interfaces import PictureError, ResultContext, ResultError, ResultWriter, Rgb
from node.results import _canvas as canvas
from node.results import _wording as wording
from node.results._contours import Points
from node.results._grey_scale import numbers
from node.results._marks import Marker, Marks, chosen_images, marked_images, statement

PICTURES: Final = 24
"""So many images are shown at most; of more, those where findings are largest and a choice."""
CARD_SIZE: Final = (768, 768)
"""Of the card, where there is no picture beside it."""
PLANE: Final = 2
CARD: Final = "Summary"
_Place: TypeAlias = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Planned:
    """One picture to be drawn: a page of the card, or an image with marks."""

    title: str
    page: int = 0
    frame: SourceFrame | None = None
    header: Dataset | None = None
    marks: Marks = ()
    size: tuple[int, int] = CARD_SIZE

    @property
    def spacing(self) -> float | None:
        """From one pixel of the picture to the next, in mm of the patient; None: not known."""
        found = () if self.header is None else numbers(self.header, "PixelSpacing")
        if self.header is None or len(found) != PLANE or min(found) <= 0:
            return None
        return found[1] * matrix_of(self.header)[1] / self.size[0]


class Plan:
    """The pictures of an outcome, in order; all have one size."""

    pictures: tuple[Planned, ...]

    def __init__(self, context: ResultContext) -> None:
        """Choose the images, word the card, and make room for all of it.

        Raises:
            ResultError: findings cannot be told apart, or there is no header at all.
        """
        if not context.sources:
            raise ResultError("no header could be read: whose study is not known")
        self._context = context
        self._above = (statement(context),)
        self._notes: tuple[str, ...] = ()
        images = () if isinstance(context.outcome, Refusal) else tuple(self._images())
        self._layout = canvas.layout_of(
            [image.size for image in images] or [CARD_SIZE],
            [*self._above, max((image.title for image in images), key=len, default="")],
            [_legend(image.marks) for image in images],
        )
        self._cards = canvas.page_count(self._words(), self._above, self._layout.size)
        pages = tuple(Planned(CARD, page=page) for page in range(self._cards))
        self.pictures = (*pages, *images)

    def draw(self, index: int) -> Rgb:
        """Draw one picture: RGB uint8 [row, column, sample]."""
        planned = self.pictures[index]
        if planned.frame is None:
            return canvas.page(self._words(), self._above, self._layout.size, planned.page)
        above = [*self._above, planned.title]
        try:
            pixels = self._context.images.shown(planned.frame)
        except PictureError as error:
            return canvas.page([f"Not shown: {error}."], above, self._layout.size, 0)
        shapes = [canvas.Shape(mark.contours(), mark.colour) for mark in planned.marks]
        drawn = canvas.picture(pixels, planned.size, shapes, self._layout)
        canvas.write_bands(drawn, self._layout, above, _legend(planned.marks))
        return canvas.pixels_of(drawn)

    def corners(self, index: int) -> npt.NDArray[np.int64]:
        """Return where outlines have their corners on a picture: int64 [corner, (column, row)]."""
        planned = self.pictures[index]
        if planned.header is None:
            return np.empty((0, PLANE), np.int64)
        contours = [contour for mark in planned.marks for contour in mark.contours()]
        points: Points = np.concatenate([*contours, np.empty((0, PLANE))])
        places = canvas.place(points, matrix_of(planned.header), planned.size, self._layout)
        return np.rint(places).astype(np.int64)

    def _images(self) -> Iterator[Planned]:
        """Plan the images with findings, and note what is left out."""
        marker = Marker(self._context)
        marked = marked_images(marker.found)
        chosen = chosen_images(marker.found, PICTURES)
        if len(chosen) < len(marked):
            self._notes = (f"Pictures: {len(chosen)} of {len(marked)} images with findings.",)
        for index in chosen:
            frame = marker.found.sources[index]
            name = wording.image_name(index, marker.found, self._context)
            try:
                header = self._context.images.header(frame)
            except PictureError as error:
                self._notes = (*self._notes, f"Not shown: {name}: {error}.")
                continue
            yield Planned(
                title=f"{name[0].upper()}{name[1:]} - {wording.when(self._context)}",
                frame=frame,
                header=header,
                marks=marker.on(index),
                size=canvas.shown_size(*matrix_of(header), aspect_of(header)),
            )

    def _words(self) -> Sequence[str]:
        """Say all of it in words: the result, its limits, engine, version, digest, when."""
        return [*told(self._context), *self._notes]


def told(context: ResultContext) -> list[str]:
    """Word a result in full: which of the three it is, its values, its limits, by what and when."""
    outcome = context.outcome
    if isinstance(outcome, Refusal):
        found = wording.reason(outcome)
    else:
        found = wording.findings(outcome, context)
    return [*wording.summary(context), *found, *wording.procedure(context)]


class Plans:
    """Keeps the last plan: a result is written and then checked file by file."""

    def __init__(self) -> None:
        """Keep none yet."""
        self._context: ResultContext | None = None
        self._plan: Plan | None = None

    def of(self, context: ResultContext) -> Plan:
        """Return the plan of a context; that of the same context is made once."""
        if self._plan is None or self._context is not context:
            self._context, self._plan = context, Plan(context)
        return self._plan


class PictureWriter(ResultWriter):
    """A writer of the card in words and the pictures, whatever object it puts them into."""

    by_default: ClassVar[bool] = False

    def __init__(self) -> None:
        self._plans = Plans()

    def handles(self, outcome: Outcome) -> bool:  # noqa: ARG002  # it carries every outcome
        """Take every outcome: the card says findings, nothing found, or why not analysed."""
        return True


def matrix_of(header: Dataset) -> tuple[int, int]:
    """Return rows and columns of what is shown of an image; of a slide, the whole of it."""
    if header.get("TotalPixelMatrixRows"):
        return int(header.TotalPixelMatrixRows), int(header.TotalPixelMatrixColumns)
    return int(header.Rows), int(header.Columns)


def aspect_of(header: Dataset) -> float:
    """Return the height of a pixel, by its width; 1 where nothing says."""
    for keyword in ("PixelSpacing", "ImagerPixelSpacing", "PixelAspectRatio"):
        found = numbers(header, keyword)
        if len(found) == PLANE and min(found) > 0:
            return found[0] / found[1]
    return 1.0


def compare_picture(drawn: Rgb, plan: Plan, index: int) -> None:
    """Draw a picture again, and look for its outlines where they have to be.

    Raises:
        ResultError: naming the difference.
    """
    if not np.array_equal(drawn, plan.draw(index)):
        raise ResultError(f"picture {index + 1}: its pixels are not those that were drawn")
    if not _coloured_at(drawn, plan.corners(index), plan.pictures[index].marks):
        raise ResultError(f"picture {index + 1}: an outline is not where its mask is")


def _coloured_at(drawn: Rgb, corners: npt.NDArray[np.int64], marks: Marks) -> bool:
    """Say whether a picture has a colour of the marks at, or beside, every one of the places."""
    if not len(corners):
        return True
    colours = np.array([mark.colour for mark in marks], np.uint8)
    reach = np.array([(x, y) for x in (-1, 0, 1) for y in (-1, 0, 1)])
    places = corners[:, np.newaxis] + reach
    rows, columns = drawn.shape[:2]
    near = drawn[places[..., 1].clip(0, rows - 1), places[..., 0].clip(0, columns - 1)]
    found = (near[:, :, np.newaxis] == colours).all(axis=-1).any(axis=(1, 2))
    return bool(found.all())


def _legend(marks: Marks) -> list[canvas.Line]:
    """Word what is on an image, each finding in its colour where it has an outline."""
    return [
        canvas.Line(
            mark.words or mark.finding.label,
            None if isinstance(mark.finding, Classification) else mark.colour,
        )
        for mark in marks
    ]
