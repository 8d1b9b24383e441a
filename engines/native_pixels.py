"""Native pixels of 16 bits, read straight to where they stay and changed there (PS3.5 8.1.1).

What scanners send: one copy of each word, from the file into the volume. All arithmetic is that of
16 bits, which is exact where the result fits them.
"""

from __future__ import annotations

import sys
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from engines.byte_range import ByteRange
from engines.headers import FrameHeader, PixelFormat
from engines.images import BoolArray, VoxelArray
from engines.plain_headers import Extent
from engines.refusals import Reason, SeriesRefusedError

Words: TypeAlias = npt.NDArray[np.uint16]
Stored: TypeAlias = npt.NDArray[np.signedinteger | np.unsignedinteger]

INT16: Final = np.iinfo(np.int16)
BITS: Final = 16
MASK: Final = 0xFFFF


class WordReader:
    """Reads frames of `rows` x `columns` words; keeps memory for one frame between them."""

    def __init__(self, rows: int, columns: int) -> None:
        self._shape = (rows, columns)
        self._words: Words | None = None
        self._values: npt.NDArray[np.float64] | None = None

    def read(
        self,
        stream: ByteRange,
        extent: Extent,
        header: FrameHeader,
        target: VoxelArray,
        valid: BoolArray,
    ) -> None:
        """Read one frame into `target` [row, column], and mark what is padding in `valid`.

        Args:
            stream: the instance's file.
            extent: its pixel data, long enough for every frame of the header.
            header: of the frame; an int16 target holds every value that it can give, or, with a
                slope of 1, clips it.
            target: int16 or float32, contiguous.
            valid: of the same shape; True before the call.

        Raises:
            SeriesRefusedError: the file has become shorter.
            OSError
        """
        whole = target.dtype == np.int16
        words = target.view(np.uint16) if whole else self._scratch_words()
        start = extent.offset + header.index * words.nbytes
        if stream.fill(words.data.cast("B"), start) < words.nbytes:
            raise too_short(max(0, stream.size - extent.offset), header.pixels)
        stored = cut_words(words, header.pixels)
        mark_padding(valid, stored, header.pixels.padding)
        slope, intercept = header.rescale or (1.0, 0.0)
        if whole:
            _rescale_whole(stored, header.pixels, int(slope), int(intercept))
            return
        values = self._scratch_values()
        np.multiply(stored, slope, out=values, dtype=np.float64)
        np.add(values, intercept, out=values)
        target[...] = values

    def _scratch_words(self) -> Words:
        if self._words is None:
            self._words = np.empty(self._shape, np.uint16)
        return self._words

    def _scratch_values(self) -> npt.NDArray[np.float64]:
        if self._values is None:
            self._values = np.empty(self._shape, np.float64)
        return self._values


def reads_words(form: PixelFormat) -> bool:
    """Say whether native little endian pixels of this format lie in memory as they do in files."""
    return form.bits_allocated == BITS and sys.byteorder == "little"


def too_short(found: int, form: PixelFormat) -> SeriesRefusedError:
    """Return the refusal of pixel data of `found` bytes."""
    return SeriesRefusedError(
        Reason.PIXELS_TOO_SHORT,
        f"the pixel data of an image has {found} bytes where its header needs"
        f" {frame_size(form) * form.frames}",
    )


def frame_size(form: PixelFormat) -> int:
    """Return the bytes of one native frame."""
    return form.rows * form.columns * form.bits_allocated // 8


def cut_words(words: Words, form: PixelFormat) -> Stored:
    """Cut Bits Stored out of words, in place; return them, as int16 where they have a sign.

    Args:
        words: uint16 [row, column], as they lie in the file.
        form: the pixel format; bits above High Bit and below it may hold anything (overlays).
    """
    spare = BITS - form.bits_stored
    if form.signed:
        signed = words.view(np.int16)
        if spare:
            np.left_shift(words, BITS - 1 - form.high_bit, out=words)
            np.right_shift(signed, spare, out=signed)
        return signed
    if spare:
        shift = form.high_bit + 1 - form.bits_stored
        if shift:
            np.right_shift(words, shift, out=words)
        np.bitwise_and(words, MASK >> spare, out=words)
    return words


def mark_padding(valid: BoolArray, stored: Stored, padding: tuple[int, int] | None) -> None:
    """Set `valid` to False where stored values are padding (PS3.3 C.7.5.1.1.2)."""
    if padding is None:
        return
    low, high = padding
    np.not_equal(stored, low, out=valid)
    if low != high:
        np.logical_or(stored < low, stored > high, out=valid)


def _rescale_whole(stored: Stored, form: PixelFormat, slope: int, intercept: int) -> None:
    """Rescale 16-bit values in place, into int16; only with a slope of 1 may they have to be cut.

    The sum modulo 2**16 is the sum, since that fits; so it does not matter that it wraps.
    """
    words = stored.view(np.uint16)
    if slope == 1:
        least = -(1 << (form.bits_stored - 1)) if form.signed else 0
        most = least + (1 << form.bits_stored) - 1
        low, high = INT16.min - intercept, INT16.max - intercept
        if least < low and stored.min() < low:  # to look is cheap, to cut is not
            np.maximum(stored, low, out=stored)
        if most > high and stored.max() > high:
            np.minimum(stored, high, out=stored)
    else:
        np.multiply(words, np.uint16(slope & MASK), out=words)
    if intercept:
        np.add(words, np.uint16(intercept & MASK), out=words)
