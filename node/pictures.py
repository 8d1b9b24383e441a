"""Frames as pictures that a browser shows. Sandbox only: decodes untrusted pixel data."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydantic import JsonValue
from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi_lut
from pydicom.pixels.utils import pixel_array

from engines.byte_range import open_range
from node.messages import PictureRequest
from node.retrieval import (
    DECODE_ERRORS,
    RetrievalError,
    bit_frame,
    decodable,
    lies_in_bits,
    pixels_at,
)

Pixels = npt.NDArray[Any]
MOST_PIXELS: Final = 64 << 20
QUALITY: Final = 90
COLOURS: Final = 3


def picture_operation(
    request: Mapping[str, JsonValue], progress: Callable[[str], None]
) -> Mapping[str, JsonValue]:
    """Answer a frame as PNG or JPEG: modality and VOI transformation, or the window asked for."""
    wanted = PictureRequest.model_validate(request)
    progress("rendering")
    try:
        with open_range(wanted.file.path, wanted.file.offset, wanted.file.length) as stream:
            picture = _picture(stream, wanted)
    except DECODE_ERRORS as error:
        raise RetrievalError(
            "not_renderable", f"the frame cannot be shown: {type(error).__name__}"
        ) from error
    if wanted.size is not None:
        picture.thumbnail(wanted.size)
    written = io.BytesIO()
    if wanted.jpeg:
        picture.save(written, "JPEG", quality=QUALITY)
    else:
        picture.save(written, "PNG", compress_level=1)
    return {"content": base64.b64encode(written.getvalue()).decode("ascii")}


def _picture(stream: BinaryIO, wanted: PictureRequest) -> Image.Image:
    header = dcmread(stream, stop_before_pixels=True)
    if "Rows" not in header or "Columns" not in header:
        raise RetrievalError("not_renderable", "it is no image")
    if int(header.Rows) * int(header.Columns) > MOST_PIXELS:
        raise RetrievalError("too_large", "the frame is too large to be shown here")
    if not 1 <= wanted.number <= int(header.get("NumberOfFrames") or 1):
        raise RetrievalError("no_such_part", "there is no such frame")
    pixels = _frame(header, stream, wanted.number - 1)
    if header.get("PhotometricInterpretation") == "PALETTE COLOR":
        pixels = apply_color_lut(pixels, header)
    if pixels.ndim == COLOURS:
        return Image.fromarray(_bytes(pixels))
    shown = _shown(pixels, header, wanted.window)
    if header.get("PhotometricInterpretation") == "MONOCHROME1":
        shown = 255 - shown
    return Image.fromarray(shown)


def _frame(header: FileDataset, stream: BinaryIO, index: int) -> Pixels:
    place = pixels_at(header, stream)
    if place is not None and lies_in_bits(header):
        return bit_frame(header, stream, place[0], index)
    return pixel_array(decodable(header, stream), index=index)


def _bytes(pixels: Pixels) -> npt.NDArray[np.uint8]:
    if pixels.dtype == np.uint8:
        return pixels
    top = np.iinfo(pixels.dtype).max
    return np.asarray(pixels.astype(np.float32) * (255.0 / top), dtype=np.uint8)


def _shown(
    pixels: Pixels, header: Dataset, window: tuple[float, float] | None
) -> npt.NDArray[np.uint8]:
    """Return 0 to 255 of a grey frame: the window asked for, else its own, else all of it."""
    values = apply_modality_lut(pixels, header)
    if window is not None:
        centre, width = window
        low, high = centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2
    elif "WindowWidth" in header and "VOILUTSequence" not in header:
        low, high = _own_window(header)
    else:
        values = apply_voi_lut(values, header)
        low, high = float(np.min(values)), float(np.max(values))
    scaled = (values.astype(np.float32) - low) * (255.0 / max(high - low, 1e-6))
    return np.asarray(np.clip(np.nan_to_num(scaled), 0, 255), dtype=np.uint8)


def _own_window(header: Dataset) -> tuple[float, float]:
    def first(value: object) -> float:
        return float(value[0] if isinstance(value, list | tuple) else value)  # type: ignore[arg-type]

    centre, width = first(header.WindowCenter), max(1.0, first(header.WindowWidth))
    return centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2
