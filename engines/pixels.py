"""Stored pixels into values: length checks, decoding, bits, padding, rescale; in that order.

Native pixels of 16 bits, which scanners send, are read straight to where they stay and changed
there. All others pass through a copy for each frame.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian

from engines.byte_range import ByteRange
from engines.datasets import READ_ERRORS, kind_of, quiet, read_dataset
from engines.decoding import decoded_frames, is_compressed
from engines.headers import FrameHeader, PixelFormat
from engines.images import BoolArray, InstanceFile, VoxelArray
from engines.native_pixels import (
    INT16,
    Stored,
    WordReader,
    frame_size,
    mark_padding,
    reads_words,
    too_short,
)
from engines.plain_headers import Extent
from engines.refusals import Reason, SeriesRefusedError
from engines.sharing import share


def read_voxels(frames: Sequence[FrameHeader], *, byte_limit: int) -> tuple[VoxelArray, BoolArray]:
    """Decode frames into (voxels, valid), both [frame, row, column], in the order given.

    Voxels are int16 where every rescaled value is a whole number that fits, float32 otherwise
    (PS3.3 C.11.1.1.2). `valid` is False for padding, which is found before rescaling.

    Raises:
        SeriesRefusedError: formats that are not grey, pixel data that is short, damaged or without
            a decoder, a frame that claims another size.
    """
    form = frames[0].pixels
    whole = all(_stays_whole(frame) for frame in frames)
    shape = (len(frames), form.rows, form.columns)
    voxels: VoxelArray = np.empty(shape, np.int16) if whole else np.empty(shape, np.float32)
    valid = np.ones(shape, np.bool_)
    straight, others = _by_file(frames)

    def read_words(part: slice) -> None:
        words = WordReader(form.rows, form.columns)
        for file, extent, slots in straight[part]:
            with _opened(file, frames[slots[0]].pixels, extent) as stream:
                for slot in slots:
                    words.read(stream, extent, frames[slot], voxels[slot], valid[slot])

    share(len(straight), read_words)
    for file, extent, slots in others:
        headers = [frames[slot] for slot in slots]
        if extent is None:
            copies = _by_pydicom(file, headers, byte_limit)
        else:
            copies = _copies(file, headers, extent)
        for slot, header, stored in zip(slots, headers, copies, strict=True):
            mark_padding(valid[slot], stored, header.pixels.padding)
            _rescale_into(voxels[slot], stored, header.rescale or (1.0, 0.0))
    return voxels, valid


_Straight: TypeAlias = tuple[InstanceFile, Extent, list[int]]
"""A file, where its pixel data are, and the frames that come from it."""
_Copied: TypeAlias = tuple[InstanceFile, Extent | None, list[int]]
"""The same; its pixel data may have to be looked for."""


def _by_file(frames: Sequence[FrameHeader]) -> tuple[list[_Straight], list[_Copied]]:
    """Part the files whose words are read straight to where they stay from the others."""
    found: dict[InstanceFile, list[int]] = {}
    for slot, frame in enumerate(frames):
        found.setdefault(frame.file, []).append(slot)
    straight: list[_Straight] = []
    others: list[_Copied] = []
    for file, slots in found.items():
        first = frames[slots[0]]
        if first.pixel_data is not None and reads_words(first.pixels):
            straight.append((file, first.pixel_data, slots))
        else:
            others.append((file, first.pixel_data, slots))
    return straight, others


def _stays_whole(frame: FrameHeader) -> bool:
    """Say whether int16 can hold every rescaled value.

    CT counts as such although 16 unsigned bits reach beyond: what is above 32767 HU is clipped.
    """
    slope, intercept = frame.rescale or (1.0, 0.0)
    form = frame.pixels
    if form.bits_stored > INT16.bits or slope != int(slope) or intercept != int(intercept):
        return False
    low = -(1 << (form.bits_stored - 1)) if form.signed else 0
    high = low + (1 << form.bits_stored) - 1
    ends = (low * slope + intercept, high * slope + intercept)
    fits = INT16.min <= min(ends) and max(ends) <= INT16.max
    return fits or (frame.modality == "CT" and slope == 1 and abs(intercept) <= INT16.max)


def _rescale_into(target: VoxelArray, stored: Stored, rescale: tuple[float, float]) -> None:
    slope, intercept = rescale
    if target.dtype == np.int16:
        values = stored.astype(np.int32) * int(slope) + int(intercept)
        np.clip(values, INT16.min, INT16.max, out=values)
        target[...] = values
    else:
        target[...] = stored.astype(np.float64) * slope + intercept


@contextmanager
def _opened(file: InstanceFile, form: PixelFormat, extent: Extent) -> Iterator[ByteRange]:
    """Open a file whose native pixel data are where `extent` says, and long enough."""
    try:
        with file.open_unbuffered() as stream:
            _check_format(form)
            _check_length(extent.length, form)
            yield stream
    except OSError as error:
        raise SeriesRefusedError(
            Reason.UNREADABLE, f"an image is not a readable DICOM file ({kind_of(error)})"
        ) from error


def _copies(file: InstanceFile, headers: Sequence[FrameHeader], extent: Extent) -> Iterator[Stored]:
    """Yield the stored values [row, column] of native frames that lie where `extent` says."""
    form = headers[0].pixels
    with _opened(file, form, extent) as stream:
        size = frame_size(form)
        for header in headers:
            data = stream.read_at(extent.offset + header.index * size, size)
            if len(data) < size:
                raise too_short(max(0, stream.size - extent.offset), form)
            yield stored_values(_words(data, form, 1)[0], form)


def _by_pydicom(
    file: InstanceFile, headers: Sequence[FrameHeader], byte_limit: int
) -> Iterator[Stored]:
    """Yield the stored values [row, column] of frames of one file."""
    dataset = read_dataset(file, byte_limit=byte_limit, with_pixels=True)
    yield from stored_frames(dataset, headers[0].pixels, [header.index for header in headers])


def stored_frames(dataset: Dataset, form: PixelFormat, indices: Sequence[int]) -> Iterator[Stored]:
    """Yield the stored values [row, column] of grey frames of a data set, numbered from 0.

    Raises:
        SeriesRefusedError: not grey, no pixel data, short, damaged, or without a decoder.
    """
    _check_format(form)
    try:
        with quiet():
            data = dataset.get("PixelData")
    except READ_ERRORS as error:
        raise SeriesRefusedError(
            Reason.UNREADABLE, f"an attribute of an image has no valid value ({kind_of(error)})"
        ) from error
    if not data:
        raise SeriesRefusedError(Reason.NO_PIXELS, "an image has no pixel data")
    if is_compressed(form.transfer_syntax_uid):
        yield from decoded_frames(dataset, form, indices)
        return
    _check_length(len(data), form)
    words = _words(data, form, form.frames)
    for index in indices:
        yield stored_values(words[index], form)


def _check_length(found: int, form: PixelFormat) -> None:
    if not found:
        raise SeriesRefusedError(Reason.NO_PIXELS, "an image has no pixel data")
    if found < frame_size(form) * form.frames:
        raise too_short(found, form)


def _words(data: bytes, form: PixelFormat, frames: int) -> npt.NDArray[np.unsignedinteger]:
    """Return unsigned [frame, row, column], one word of Bits Allocated a pixel."""
    order = ">" if form.transfer_syntax_uid == ExplicitVRBigEndian else "<"
    kind = f"{order}u{form.bits_allocated // 8}"
    shape = (frames, form.rows, form.columns)
    return np.frombuffer(data, kind, math.prod(shape)).reshape(shape)


def _check_format(form: PixelFormat) -> None:
    grey = form.samples == 1 and form.photometric in ("MONOCHROME1", "MONOCHROME2")
    sound = form.bits_allocated in (8, 16, 32) and (
        1 <= form.bits_stored <= form.bits_allocated
        and form.bits_stored - 1 <= form.high_bit < form.bits_allocated
    )
    if not grey or not sound:
        raise SeriesRefusedError(
            Reason.PIXEL_FORMAT,
            f"{form.samples} samples a pixel, {form.bits_stored} of {form.bits_allocated} bits,"
            f" high bit {form.high_bit}: not a grey-scale image that can be read",
        )


def stored_values(words: npt.NDArray[np.unsignedinteger], form: PixelFormat) -> Stored:
    """Cut Bits Stored out of words as they lie in the file, and extend the sign (PS3.5 8.1.1).

    Args:
        words: unsigned [row, column], one word of Bits Allocated a pixel.
        form: the pixel format; bits above High Bit and below it may hold anything (overlays).
    """
    shift = form.high_bit + 1 - form.bits_stored
    values = words.astype(np.int64) >> shift & ((1 << form.bits_stored) - 1)
    if form.signed:
        sign = 1 << (form.bits_stored - 1)
        values = (values ^ sign) - sign
    return values
