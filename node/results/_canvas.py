"""Pictures for people: images with outlines, a band of words above and below, and pages of words.

Text is drawn with the font that the imaging library carries: the same pixels on every machine with
the same version of it. Characters that the font lacks become question marks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from node.interfaces import Rgb
from node.results._contours import Points

BLACK, WHITE, AMBER = (0, 0, 0), (255, 255, 255), (255, 204, 0)
SMALLEST: Final = 512
LARGEST: Final = 2048
"""Sides of an image on a picture, in pixels: smaller ones are blown up, larger ones shrunk."""
TEXT_SHARE: Final = 42
"""So many characters, one on another, are as high as the longer side is wide."""
TEXT_SIZES: Final = (13, 40)
MARGIN: Final = 6
LINE_SHARE: Final = 400
"""So many outlines, one beside another, are as wide as the image."""
INDENT: Final = "    "
HALF_A_PIXEL: Final = 0.5
_FONT_CHARACTERS: Final = "latin-1"


@dataclass(frozen=True, slots=True)
class Shape:
    """The outline of one finding and its colour; `contours` as in `_contours`."""

    contours: tuple[Points, ...]
    colour: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Line:
    """A line of words, with a square of colour before it where it explains an outline."""

    text: str
    colour: tuple[int, int, int] | None = None


@dataclass(frozen=True, slots=True)
class Layout:
    """Sizes that all pictures of a series share, in pixels: of the image, the bands, the text."""

    width: int
    height: int
    text: int
    above: int
    below: int

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the whole picture."""
        return self.width, self.above + self.height + self.below

    @property
    def pitch(self) -> int:
        """From one line of text to the next."""
        return _pitch(self.text)


def shown_size(rows: int, columns: int, aspect: float) -> tuple[int, int]:
    """Return width and height at which an image is shown, with square pixels.

    Args:
        rows: of the image.
        columns: of the image.
        aspect: height of one of its pixels, by its width.
    """
    width, height = columns * max(1.0, 1 / aspect), rows * max(1.0, aspect)
    scale = max(1.0, SMALLEST / min(width, height))
    scale = min(scale, LARGEST / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def text_size(width: int) -> int:
    """Return the size of text, in pixels, that can be read on pictures so wide."""
    least, most = TEXT_SIZES
    return min(most, max(least, width // TEXT_SHARE))


def layout_of(
    sizes: Sequence[tuple[int, int]], above: Sequence[str], below: Iterable[Sequence[Line]]
) -> Layout:
    """Make room for the largest image, the words above each, and the most words below one."""
    width, height = max(size[0] for size in sizes), max(size[1] for size in sizes)
    text = text_size(width)
    bare = Layout(width, height, text, 0, 0)
    top = sum(len(list(wrapped(line, text, width - 2 * MARGIN))) for line in above)
    bottom = max((len(list(_rows(lines, bare))) for lines in below), default=0)
    return Layout(
        width, height, text, top * bare.pitch + 2 * MARGIN, bottom * bare.pitch + 2 * MARGIN
    )


def picture(
    pixels: Rgb, size: tuple[int, int], shapes: Sequence[Shape], layout: Layout
) -> Image.Image:
    """Put an image into the middle of its place, as large as `size`, and outlines on it."""
    canvas = Image.new("RGB", layout.size, BLACK)
    shown = Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR)
    canvas.paste(shown, _corner(size, layout))
    draw = ImageDraw.Draw(canvas)
    line = max(2, layout.width // LINE_SHARE)
    matrix = (pixels.shape[0], pixels.shape[1])
    for shape in shapes:
        for contour in shape.contours:
            places = place(np.concatenate([contour, contour[:1]]), matrix, size, layout)
            draw.line([(x, y) for x, y in places.tolist()], fill=shape.colour, width=line)
    return canvas


def place(points: Points, matrix: tuple[int, int], size: tuple[int, int], layout: Layout) -> Points:
    """Return where points of an image lie on its picture: [point, (column, row)], in pixels.

    Args:
        points: with 0, 0 the top left corner of the image.
        matrix: rows and columns of the image.
        size: width and height at which it is shown.
        layout: of the picture, whose pixels are counted from their middle.
    """
    scale = np.array([size[0] / matrix[1], size[1] / matrix[0]])
    found: Points = points * scale + np.array(_corner(size, layout)) - HALF_A_PIXEL
    return found


def _corner(size: tuple[int, int], layout: Layout) -> tuple[int, int]:
    width, height = size
    return (layout.width - width) // 2, layout.above + (layout.height - height) // 2


def write_bands(
    canvas: Image.Image, layout: Layout, above: Sequence[str], below: Sequence[Line]
) -> None:
    """Write the words above in amber and those below in white."""
    draw = ImageDraw.Draw(canvas)
    lines = [row for text in above for row in wrapped(text, layout.text, _room(layout))]
    for number, row in enumerate(lines):
        at = (MARGIN, MARGIN + number * layout.pitch)
        draw.text(at, row, fill=AMBER, font=font_of(layout.text))
    top = layout.above + layout.height + MARGIN
    for number, line in enumerate(_rows(below, layout)):
        _write_row(draw, line, (MARGIN, top + number * layout.pitch), layout.text)


def page_count(lines: Sequence[str], heading: Sequence[str], size: tuple[int, int]) -> int:
    """Return how many pages of one size the words take."""
    return len(_page_rows(lines, heading, size)[1])


def page(lines: Sequence[str], heading: Sequence[str], size: tuple[int, int], number: int) -> Rgb:
    """Draw one of the pages of words, from 0, with the heading in amber."""
    top, each = _page_rows(lines, heading, size)
    canvas = Image.new("RGB", size, BLACK)
    draw = ImageDraw.Draw(canvas)
    text = text_size(size[0])
    coloured = [*((row, AMBER) for row in top), ("", WHITE)]
    coloured += [(row, WHITE) for row in each[number]]
    for count, (row, colour) in enumerate(coloured):
        at = (MARGIN, MARGIN + count * _pitch(text))
        draw.text(at, row, fill=colour, font=font_of(text))
    return pixels_of(canvas)


def pixels_of(drawn: Image.Image) -> Rgb:
    """Return a picture as an array."""
    return np.asarray(drawn, np.uint8)


def _page_rows(
    lines: Sequence[str], heading: Sequence[str], size: tuple[int, int]
) -> tuple[list[str], list[list[str]]]:
    """Return the rows of the heading, and the rows of each page below it."""
    width, height = size
    text = text_size(width)
    top = [row for line in heading for row in wrapped(line, text, width - 2 * MARGIN)]
    rows = [row for line in lines for row in wrapped(line, text, width - 2 * MARGIN)]
    each = max(1, (height - 2 * MARGIN) // _pitch(text) - len(top) - 1)
    return top, [rows[start : start + each] for start in range(0, max(1, len(rows)), each)]


def _pitch(text: int) -> int:
    return text + text // 3


def font_of(size: int) -> ImageFont.FreeTypeFont:
    """Return the library's own font."""
    found = ImageFont.load_default(size)
    if not isinstance(found, ImageFont.FreeTypeFont):
        raise TypeError("the imaging library was built without FreeType")
    return found


def wrapped(text: str, size: int, width: int) -> Iterator[str]:
    """Yield text in rows that fit a width in pixels; the second and later ones are set in."""
    font = font_of(size)
    blank, indent = font.getlength(" "), font.getlength(INDENT)
    row, used = "", 0.0
    for piece in _pieces(_writable(text).split(), font, width - indent):
        length = font.getlength(piece)
        if row and used + blank + length > width:
            yield row
            row, used = INDENT + piece, indent + length
        else:
            row = f"{row} {piece}" if row else piece
            used += (blank if used else 0.0) + length
    yield row


def _pieces(words: Iterable[str], font: ImageFont.FreeTypeFont, width: float) -> Iterator[str]:
    """Yield words, in pieces where one alone is wider than a row."""
    most = max(1, int(width / font.getlength("W")))
    for word in words:
        if len(word) <= most or font.getlength(word) <= width:
            yield word
        else:
            yield from (word[start : start + most] for start in range(0, len(word), most))


def _rows(lines: Sequence[Line], layout: Layout) -> Iterator[Line]:
    indent = layout.pitch
    for line in lines:
        room = _room(layout) - (indent if line.colour else 0)
        for number, row in enumerate(wrapped(line.text, layout.text, room)):
            yield Line(row, line.colour if not number else None)


def _room(layout: Layout) -> int:
    return layout.width - 2 * MARGIN


def _write_row(draw: ImageDraw.ImageDraw, line: Line, at: tuple[int, int], size: int) -> None:
    left, top = at
    if line.colour is not None:
        draw.rectangle((left, top + 2, left + size - 2, top + size), fill=line.colour)
        left += size + size // 3
    draw.text((left, top), line.text, fill=WHITE, font=font_of(size))


def _writable(text: str) -> str:
    return text.encode(_FONT_CHARACTERS, "replace").decode(_FONT_CHARACTERS)
