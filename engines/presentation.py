"""Pixels as a workstation shows them: after modality and VOI transformation (PS3.4 N.2)."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

from engines.datasets import READ_ERRORS, kind_of, quiet, read_dataset
from engines.decoding import Colours, decoded_colours
from engines.headers import TILED_FULL, FrameHeader, PixelFormat, pixel_format, read_headers
from engines.images import InstanceFile
from engines.native_pixels import mark_padding
from engines.pixels import read_voxels, stored_frames
from engines.refusals import Reason, SeriesRefusedError
from engines.slides import read_slide

Picture = npt.NDArray[np.float32]
TOP = 255.0
GREY: Final = ("MONOCHROME1", "MONOCHROME2")
FRAME_GROUPS: Final = (
    "PixelMeasuresSequence",
    "PlaneOrientationSequence",
    "PixelValueTransformationSequence",
    "FrameVOILUTSequence",
)
"""Functional groups that say how a frame is shown (PS3.3 C.7.6.16.2)."""
VOI: Final = ("VOILUTSequence", "WindowCenter", "WindowWidth")
PIXEL_DATA: Final = 0x7FE00010


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


def displayed(file: InstanceFile, frame: int | None, *, byte_limit: int) -> Colours:
    """Return a frame of any image as a workstation first shows it: RGB uint8 [row, column, sample].

    Grey ones as `presented`, by the functional groups of the frame where there are any; a window
    that is not valid is passed over. A slide is shown whole. `frame` counts from 1; None: the
    image has one, or is a slide.

    Raises:
        SeriesRefusedError: it cannot be decoded, or is none of these.
    """
    dataset = read_dataset(file, byte_limit=byte_limit, with_pixels=True)
    try:
        if dataset.get("DimensionOrganizationType") == TILED_FULL:
            (slide,) = read_headers(file, byte_limit=byte_limit)
            return read_slide(slide, byte_limit=byte_limit).colours
        form = pixel_format(dataset, str(dataset.file_meta.get("TransferSyntaxUID", "")))
        index = (frame or 1) - 1
        _check_size(form, index, byte_limit)
        if form.photometric not in GREY:
            return decoded_colours(dataset, form, index)
        with quiet():
            picture = _grey(dataset, form, index)
    except READ_ERRORS as error:
        raise SeriesRefusedError(
            Reason.UNREADABLE, f"an image cannot be shown ({kind_of(error)})"
        ) from error
    return np.repeat(np.rint(picture).astype(np.uint8)[..., np.newaxis], 3, axis=2)


def frame_attributes(dataset: Dataset, frame: int | None) -> Dataset:
    """Return what says how a frame is shown, in one place: that of its groups above the image's.

    Raises:
        IndexError: there is no such frame.
    """
    index = (frame or 1) - 1
    flat = Dataset({tag: dataset.get_item(tag) for tag in dataset.keys() if tag < PIXEL_DATA})  # noqa: SIM118 - iterating decodes
    implicit, little = dataset.original_encoding
    flat.set_original_encoding(implicit, little, dataset.original_character_set)
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence") or [Dataset()] * (index + 1)
    shared = (dataset.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    for name in FRAME_GROUPS:
        for groups in (per_frame[index], shared):
            if groups.get(name):
                flat.update(groups.get(name)[0])
                break
    return flat


def _check_size(form: PixelFormat, index: int, byte_limit: int) -> None:
    if index >= form.frames:
        raise SeriesRefusedError(
            Reason.INCOMPLETE, f"an image of {form.frames} frames has no frame {index + 1}"
        )
    if form.rows * form.columns * form.samples * 8 > byte_limit:
        raise SeriesRefusedError(
            Reason.TOO_LARGE,
            f"a frame of {form.rows} x {form.columns} pixels needs more than"
            f" {byte_limit >> 20} MiB",
        )


def _grey(dataset: Dataset, form: PixelFormat, index: int) -> Picture:
    (stored,) = stored_frames(dataset, form, [index])
    header = frame_attributes(dataset, index + 1)
    valid = np.ones(stored.shape, np.bool_)
    mark_padding(valid, stored, form.padding)
    values = np.asarray(apply_modality_lut(stored, header))
    if not np.isfinite(values).all():
        raise SeriesRefusedError(Reason.INVALID_RESCALE, "an image has values that are not finite")
    try:
        picture = _shown(values, valid, header)
    except READ_ERRORS:  # a window that is none: what the image holds, from black to white
        for keyword in VOI:
            header.pop(keyword, None)
        picture = _shown(values, valid, header)
    if form.photometric == "MONOCHROME1":
        picture = np.float32(TOP) - picture
    picture[~valid] = 0
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
