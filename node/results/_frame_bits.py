"""The pixels of a BINARY segmentation: one bit each (PS3.5 8.1.1, A.4)."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from engines.findings import Segment
from engines.sharing import share
from node.results._frame_runs import Run, runs_of

OCTET: Final = 8
Octets: TypeAlias = npt.NDArray[np.uint8]


def packed_bits(segments: Sequence[Segment], frames: Sequence[tuple[int, int]]) -> BytesIO:
    """Pack frames behind each other without a gap: each a segment, from 1, and a slice, from 0.

    Returns:
        A stream of an even number of octets: written to a file without a copy of them all.
    """
    if not frames:
        return BytesIO()
    frame_pixels = segments[0].labels[0].size
    size = -(-len(frames) * frame_pixels // OCTET)
    stream = BytesIO()
    stream.seek(size + size % 2 - 1)
    stream.write(b"\0")
    stream.seek(0)
    runs = runs_of(frames)
    with stream.getbuffer() as view:
        packed = np.frombuffer(view, np.uint8)
        if frame_pixels % OCTET:
            _pack_across(packed[:size], segments, runs)
        else:
            _pack_runs(packed, segments, runs, frame_pixels // OCTET)
        del packed  # it holds the view
    return stream


def _pack_runs(
    target: Octets, segments: Sequence[Segment], runs: Sequence[Run], frame_octets: int
) -> None:
    """Pack frames that are whole octets."""

    def pack(part: slice) -> None:
        for run in runs[part]:
            at, end = run.first * frame_octets, run.end * frame_octets
            target[at:end] = np.packbits(run.pixels(segments), bitorder="little")

    share(len(runs), pack)


def _pack_across(target: Octets, segments: Sequence[Segment], runs: Sequence[Run]) -> None:
    """Pack frames that end within an octet."""
    at, left = 0, np.zeros(0, np.bool_)
    for run in runs:
        bits = np.concatenate([left, run.pixels(segments).reshape(-1)])
        whole = bits.size // OCTET
        target[at : at + whole] = np.packbits(bits[: whole * OCTET], bitorder="little")
        at, left = at + whole, bits[whole * OCTET :]
    target[at:] = np.packbits(left, bitorder="little")
