"""Pixels as a workstation shows them: after modality and VOI transformation (PS3.4 N.2)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

from engines.datasets import READ_ERRORS, kind_of, quiet, read_dataset
from engines.headers import FrameHeader
from engines.pixels import read_voxels
from engines.refusals import Reason, SeriesRefusedError

Picture = npt.NDArray[np.float32]
TOP = 255.0


def presented(frame: FrameHeader, *, byte_limit: int) -> Picture:
    """Return a single-frame grey image float32 [row, column], 0 (black) to 255 (white).

    The first VOI LUT or window of the image is applied (PS3.3 C.11.2); without any, its lowest and
    highest values are black and white. MONOCHROME1 is inverted. Padding is black.

    Raises:
        SeriesRefusedError: a multi-frame image, a transformation that cannot be read, and what
            `read_voxels` raises.
    """
    if frame.source.frame is not None or frame.pixels.frames > 1:
        raise SeriesRefusedError(
            Reason.PIXEL_FORMAT, "a multi-frame image: single images are what the engine reads"
        )
    header = read_dataset(frame.file, byte_limit=byte_limit, with_pixels=False)
    voxels, valid = read_voxels([frame], byte_limit=byte_limit)
    try:
        with quiet():
            picture = _shown(voxels[0], valid[0], header)
    except READ_ERRORS as error:
        raise SeriesRefusedError(
            Reason.UNREADABLE, f"the VOI LUT of an image has no valid value ({kind_of(error)})"
        ) from error
    if not np.isfinite(picture).all():
        raise SeriesRefusedError(Reason.INVALID_RESCALE, "an image has values that are not finite")
    if frame.pixels.photometric == "MONOCHROME1":
        picture = np.float32(TOP) - picture
    picture[~valid[0]] = 0
    return picture


def _shown(
    values: npt.NDArray[np.generic], valid: npt.NDArray[np.bool_], header: Dataset
) -> Picture:
    """Scale modality values to 0..255 by the image's own VOI transformation."""
    if header.get("VOILUTSequence"):
        table = header.VOILUTSequence[0]
        shown = apply_voi_lut(_whole(values), header)
        ends = (0.0, float((1 << int(table.LUTDescriptor[2])) - 1))
    elif header.get("WindowWidth") is not None and header.get("WindowCenter") is not None:
        shown = apply_voi_lut(values.astype(np.float64), header)
        ends = _ends(header)
    else:
        shown = values.astype(np.float64)
        part = shown[valid] if valid.any() else shown
        ends = (float(part.min()), float(part.max()))
    low, high = ends
    if high <= low:
        return np.zeros(values.shape, np.float32)
    scaled: Picture = ((shown - low) * (TOP / (high - low))).astype(np.float32)
    return np.clip(scaled, 0, np.float32(TOP))


def _ends(header: Dataset) -> tuple[float, float]:
    """Return the values of black and white in what the library makes of a window."""
    bits = int(header.BitsStored)
    low = float(-(1 << (bits - 1))) if header.PixelRepresentation == 1 else 0.0
    high = low + (1 << bits) - 1
    ends = apply_modality_lut(np.array([low, high]), header)
    return float(min(ends)), float(max(ends))


def _whole(values: npt.NDArray[np.generic]) -> npt.NDArray[np.int64]:
    """Return whole numbers: a VOI LUT is looked up by them."""
    found: npt.NDArray[np.int64] = np.rint(values.astype(np.float64)).astype(np.int64)
    return found
