"""Run lengths of frames of labels: RLE Lossless (PS3.5 annex G), all runs of a frame at once."""

from __future__ import annotations

import struct
from typing import Final

import numpy as np
import numpy.typing as npt

LONGEST: Final = 128
HEADER: Final = struct.pack("<16L", 1, 64, *[0] * 14)
"""One segment, that begins behind the header (PS3.5 G.5)."""


def run_lengths(frame: npt.NDArray[np.uint8]) -> bytes:
    """Encode a frame, uint8 [row, column]: each row by itself, in runs of one value.

    Labels lie in long runs; a pixel that stands alone is a literal run of one octet.
    """
    flat = frame.reshape(-1)
    begins = np.empty(flat.size, np.bool_)
    begins[0] = True
    np.not_equal(flat[1:], flat[:-1], out=begins[1:])
    begins[:: frame.shape[1]] = True
    starts = np.flatnonzero(begins)
    lengths = np.diff(starts, append=flat.size)
    pieces = -(-lengths // LONGEST)
    sizes = np.full(int(pieces.sum()), LONGEST, np.int64)
    last = np.cumsum(pieces) - 1
    sizes[last] = lengths - (pieces - 1) * LONGEST
    pairs = np.empty((len(sizes), 2), np.uint8)
    pairs[:, 0] = np.where(sizes > 1, 257 - sizes, 0)
    pairs[:, 1] = np.repeat(flat[starts], pieces)
    return HEADER + pairs.tobytes()
