"""Stored pixels into values: length checks, decoding, bits, padding, rescale; in that order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID

from engines.codestream import claimed_size
from engines.headers import READ_ERRORS, FrameHeader, PixelFormat, quiet, read_dataset
from engines.images import BoolArray, InstanceFile, VoxelArray
from engines.refusals import Reason, SeriesRefusedError

Stored: TypeAlias = npt.NDArray[np.signedinteger | np.unsignedinteger]
DECODE_ERRORS: Final = (*READ_ERRORS, RuntimeError)
INT16: Final = np.iinfo(np.int16)


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
    for file, members in _by_file(frames).items():
        for index, stored in _decoded(file, [frames[i] for i in members], byte_limit):
            slot = members[index]
            header = frames[slot]
            if header.pixels.padding is not None:
                low, high = header.pixels.padding
                valid[slot] = (stored < low) | (stored > high)
            _rescale_into(voxels[slot], stored, header.rescale or (1.0, 0.0))
    return voxels, valid


def _by_file(frames: Sequence[FrameHeader]) -> dict[InstanceFile, list[int]]:
    found: dict[InstanceFile, list[int]] = {}
    for slot, frame in enumerate(frames):
        found.setdefault(frame.file, []).append(slot)
    return found


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


def _decoded(
    file: InstanceFile, headers: Sequence[FrameHeader], byte_limit: int
) -> Iterator[tuple[int, Stored]]:
    """Yield (index into `headers`, stored values [row, column]) of the frames of one file."""
    dataset = read_dataset(file, byte_limit=byte_limit, with_pixels=True)
    form = headers[0].pixels
    _check_format(form)
    if "PixelData" not in dataset or not dataset.PixelData:
        raise SeriesRefusedError(Reason.NO_PIXELS, "an image has no pixel data")
    indices = [header.index for header in headers]
    encapsulated = UID(form.transfer_syntax_uid).is_encapsulated
    frames = _decompressed if encapsulated else _native
    try:
        with quiet():
            for at, stored in enumerate(frames(dataset, form, indices)):
                _check_shape(stored, form)
                yield at, stored
    except DECODE_ERRORS as error:
        raise SeriesRefusedError(
            Reason.PIXELS_UNREADABLE,
            f"the pixel data of an image cannot be decoded ({type(error).__name__}, transfer"
            f" syntax {form.transfer_syntax_uid})",
        ) from error


def _check_shape(stored: Stored, form: PixelFormat) -> None:
    if stored.shape != (form.rows, form.columns):
        raise SeriesRefusedError(
            Reason.PIXELS_UNREADABLE,
            f"a frame decodes to {stored.shape}, not to {form.rows} x {form.columns} pixels",
        )


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


def _decompressed(dataset: Dataset, form: PixelFormat, indices: Sequence[int]) -> Iterator[Stored]:
    syntax = UID(form.transfer_syntax_uid)
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        decoder = None
    if decoder is None or not decoder.is_available:
        raise SeriesRefusedError(
            Reason.TRANSFER_SYNTAX, f"no decoder is installed for transfer syntax {syntax}"
        )
    _check_claims(dataset, form)
    for array, _ in decoder.iter_array(dataset, indices=indices, raw=True):
        yield array


def _check_claims(dataset: Dataset, form: PixelFormat) -> None:
    """Refuse frames that are not there, or that claim another size than the header."""
    found = 0
    for frame in generate_frames(dataset.PixelData, number_of_frames=form.frames):
        claim = claimed_size(bytes(frame))
        if claim is not None and claim != (form.rows, form.columns):
            raise SeriesRefusedError(
                Reason.PIXELS_UNREADABLE,
                f"a frame claims {claim[0]} x {claim[1]} pixels, its header {form.rows} x"
                f" {form.columns}",
            )
        found += 1
    if found < form.frames:
        raise SeriesRefusedError(
            Reason.PIXELS_TOO_SHORT, f"an image of {form.frames} frames holds {found}"
        )


def _native(dataset: Dataset, form: PixelFormat, indices: Sequence[int]) -> Iterator[Stored]:
    size = form.rows * form.columns * form.bits_allocated // 8
    data = dataset.PixelData
    if len(data) < size * form.frames:
        raise SeriesRefusedError(
            Reason.PIXELS_TOO_SHORT,
            f"the pixel data of an image has {len(data)} bytes where its header needs"
            f" {size * form.frames}",
        )
    order = "<" if UID(form.transfer_syntax_uid).is_little_endian else ">"
    words = np.frombuffer(
        data, f"{order}u{form.bits_allocated // 8}", form.rows * form.columns * form.frames
    ).reshape(form.frames, form.rows, form.columns)
    for index in indices:
        yield stored_values(words[index], form)


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
