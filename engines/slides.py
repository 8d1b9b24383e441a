"""A tiled image of a slide as one matrix of colours (PS3.3 C.8.12.4, TILED_FULL)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.pixels.decoders.base import get_decoder

from engines.datasets import READ_ERRORS, quiet, read_dataset
from engines.headers import FrameHeader
from engines.images import SourceFrame
from engines.refusals import Reason, SeriesRefusedError

Colours = npt.NDArray[np.uint8]
COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT")
SAMPLES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Slide:
    """RGB uint8 [row, column, sample], the distance of pixels (rows, columns) in mm, its image.

    Place 0, 0 is the top left pixel of the total pixel matrix.
    """

    colours: Colours
    spacing: tuple[float, float]
    source: SourceFrame


def read_slide(frame: FrameHeader, *, byte_limit: int) -> Slide:
    """Decode the tiles of one image and put them together.

    Raises:
        SeriesRefusedError: not tiled in full in one plane and one optical path, no colours of 8
            bits, a distance of pixels that is not known, more than `byte_limit` bytes, pixel data
            that is short or damaged.
    """
    if frame.pixel_spacing is None:
        raise SeriesRefusedError(Reason.MISSING_GEOMETRY, "the slide has no pixel spacing")
    dataset = read_dataset(frame.file, byte_limit=byte_limit, with_pixels=True)
    try:
        with quiet():
            colours = _assembled(dataset, frame, byte_limit)
    except (*READ_ERRORS, RuntimeError) as error:
        raise SeriesRefusedError(
            Reason.PIXELS_UNREADABLE,
            f"the pixel data of a slide cannot be decoded ({type(error).__name__}, transfer syntax"
            f" {frame.pixels.transfer_syntax_uid})",
        ) from error
    return Slide(colours=colours, spacing=frame.pixel_spacing, source=frame.source)


def _assembled(dataset: Dataset, frame: FrameHeader, byte_limit: int) -> Colours:
    rows, columns = _size(dataset, byte_limit)
    form = frame.pixels
    _check_format(frame)
    down, across = -(-rows // form.rows), -(-columns // form.columns)
    if form.frames != down * across:
        raise SeriesRefusedError(
            Reason.INCOMPLETE,
            f"{form.frames} tiles; {down} x {across} make the slide in one plane and optical path",
        )
    matrix = np.zeros((down * form.rows, across * form.columns, SAMPLES), np.uint8)
    decoder = get_decoder(form.transfer_syntax_uid)
    count = 0
    for tile, _ in decoder.iter_array(dataset):
        if tile.shape != (form.rows, form.columns, SAMPLES) or tile.dtype != np.uint8:
            raise SeriesRefusedError(
                Reason.PIXELS_UNREADABLE, f"a tile decodes to {tile.dtype} {tile.shape}"
            )
        row, column = divmod(count, across)
        top, left = row * form.rows, column * form.columns
        matrix[top : top + form.rows, left : left + form.columns] = tile
        count += 1
    if count != form.frames:
        raise SeriesRefusedError(
            Reason.PIXELS_TOO_SHORT, f"a slide of {form.frames} tiles holds {count}"
        )
    return matrix[:rows, :columns]


def _size(dataset: Dataset, byte_limit: int) -> tuple[int, int]:
    """Return rows and columns of the total pixel matrix."""
    if dataset.get("DimensionOrganizationType") != "TILED_FULL":
        raise SeriesRefusedError(Reason.PIXEL_FORMAT, "the slide is not tiled in full")
    rows, columns = dataset.get("TotalPixelMatrixRows"), dataset.get("TotalPixelMatrixColumns")
    if not isinstance(rows, int) or not isinstance(columns, int) or min(rows, columns) < 1:
        raise SeriesRefusedError(Reason.MISSING_GEOMETRY, "the slide has no size")
    if rows * columns * SAMPLES > byte_limit:
        raise SeriesRefusedError(
            Reason.TOO_LARGE,
            f"a slide of {rows} x {columns} pixels needs more than {byte_limit >> 20} MiB",
        )
    return rows, columns


def _check_format(frame: FrameHeader) -> None:
    form = frame.pixels
    if (form.samples, form.bits_allocated, form.bits_stored) != (SAMPLES, 8, 8) or (
        form.photometric not in COLOURS
    ):
        raise SeriesRefusedError(
            Reason.PIXEL_FORMAT,
            f"{form.samples} samples of {form.bits_stored} bits: not a slide in colours",
        )
