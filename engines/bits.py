"""Masks of one bit a voxel: in-plane morphology on an eighth of the bytes, 64 voxels at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from engines.images import BoolArray

Words = npt.NDArray[np.uint64]
Indices = npt.NDArray[np.intp]

WORD: Final = 64
LITTLE: Final = np.dtype("<u8")
"""Column c of a row is bit c % 64 of its word c // 64, whatever the machine."""
REACH: Final = WORD - 1
"""How far bits are shifted at a time: each row ends with a word of zeros that takes what leaves."""
AT_ONCE: Final = 256 << 10
"""Bytes that are changed at a time: they stay in the processor's cache."""


@dataclass(frozen=True, slots=True)
class BitMask:
    """A mask [slice, row, column]: `words` is uint64 [slice, row, word]; bits beyond are 0."""

    words: Words
    columns: int

    @classmethod
    def empty(cls, shape: Sequence[int]) -> BitMask:
        """Make a mask without a voxel."""
        slices, rows, columns = shape
        return cls(np.zeros((slices, rows, -(-columns // WORD) + 1), LITTLE), columns)

    @classmethod
    def of(cls, mask: BoolArray) -> BitMask:
        """Pack a mask, bool [slice, row, column]."""
        made = cls.empty(mask.shape)
        made.put(slice(None), mask)
        return made

    @property
    def shape(self) -> tuple[int, int, int]:
        """How many slices, rows and columns."""
        slices, rows, _ = self.words.shape
        return slices, rows, self.columns

    def __and__(self, other: BitMask) -> BitMask:
        """Return what both hold."""
        return BitMask(self.words & other.words, self.columns)

    def __invert__(self) -> BitMask:
        """Return what it does not hold."""
        return BitMask(~self.words & self._within(), self.columns)

    def put(self, part: slice, mask: BoolArray) -> None:
        """Pack some slices."""
        packed = np.packbits(mask, axis=-1, bitorder="little")
        self.words.view(np.uint8)[part, :, : packed.shape[-1]] = packed

    def unpacked(self, across: slice = slice(None)) -> BoolArray:
        """Return the mask, or some of its columns, as bool [slice, row, column]."""
        first, end, _ = across.indices(self.columns)
        octets = self.words.view(np.uint8)[..., first // 8 : -(-end // 8)]
        bits = np.unpackbits(octets, axis=-1, bitorder="little").view(np.bool_)
        return bits[..., first % 8 : first % 8 + end - first]

    def rows_and_columns(self) -> tuple[BoolArray, BoolArray]:
        """Say for each slice which rows [slice, row] and columns [slice, column] hold a voxel."""
        across = np.bitwise_or.reduce(self.words, axis=1)
        columns = np.unpackbits(across.view(np.uint8), axis=-1, bitorder="little")
        rows = np.bitwise_or.reduce(self.words, axis=2) != 0
        return rows, columns[:, : self.columns].view(np.bool_)

    def indices(self) -> Indices:
        """Return where the voxels are: flat indices into [slice, row, column], ascending."""
        flat = self.words.reshape(-1)
        filled = np.flatnonzero(flat)
        bits = np.unpackbits(flat[filled, None].view(np.uint8), axis=-1, bitorder="little")
        which, column = np.nonzero(bits)
        row, word = np.divmod(filled[which], self.words.shape[-1])
        found: Indices = row * self.columns + word * WORD + column
        return found

    def grown(self, rows: int, columns: int) -> BitMask:
        """Grow within each slice by that many pixels."""
        return self._changed(rows, columns, shrink=False)

    def shrunk(self, rows: int, columns: int) -> BitMask:
        """Shrink within each slice by that many pixels.

        What touches the edge of the image is not shrunk there: the body goes on beyond it.
        """
        return self._changed(rows, columns, shrink=True)

    def _changed(self, rows: int, columns: int, *, shrink: bool) -> BitMask:
        made = self.words.copy()
        within = self._within()
        step = max(1, AT_ONCE // max(1, made[:1].nbytes))
        for first in range(0, len(made), step):
            block = made[first : first + step]
            if shrink:
                np.invert(block, out=block)
                block &= within
            _grow_rows(block, rows)
            for done in range(0, columns, REACH):
                _grow_columns(block.reshape(-1), min(REACH, columns - done))
                block &= within
            if shrink:
                np.invert(block, out=block)
                block &= within
        return BitMask(made, self.columns)

    def _within(self) -> Words:
        """Return the words of a row that is full."""
        octets = np.zeros(self.words.shape[-1] * LITTLE.itemsize, np.uint8)
        full = np.packbits(np.ones(self.columns, np.bool_), bitorder="little")
        octets[: len(full)] = full
        return octets.view(LITTLE)


def _grow_rows(block: Words, reach: int) -> None:
    """Grow [slice, row, word] in place along its rows, in steps that double what is covered."""
    covered = 0
    while covered < min(reach, block.shape[1] - 1):
        step = min(covered + 1, reach - covered)
        before = block.copy()
        block[:, step:] |= before[:, :-step]
        block[:, :-step] |= before[:, step:]
        covered += step


def _grow_columns(flat: Words, reach: int) -> None:
    """Grow rows that lie behind each other in place, by no more than the word between them."""
    covered = 0
    while covered < reach:
        step = min(covered + 1, reach - covered)
        over = np.uint64(WORD - step)
        up, down = flat << np.uint64(step), flat >> np.uint64(step)
        up[1:] |= flat[:-1] >> over
        down[:-1] |= flat[1:] << over
        flat |= up
        flat |= down
        covered += step
