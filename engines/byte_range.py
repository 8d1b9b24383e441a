"""A part of a file as a file of its own: an instance lies in a pack beside others."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

if TYPE_CHECKING:
    from typing_extensions import Buffer


class _Range(io.RawIOBase):
    """Bytes [offset, offset + length) of a file; nothing outside them can be read."""

    def __init__(self, path: Path, offset: int, length: int | None) -> None:
        self.name = str(path)
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        size = max(0, os.fstat(self._descriptor).st_size - offset)
        self._offset = offset
        self._length = size if length is None else min(length, size)
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._length}[whence]
        if base + offset < 0:
            raise ValueError("a position before the first byte")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Buffer, /) -> int:
        view = memoryview(buffer).cast("B")
        room = max(0, min(len(view), self._length - self._position))
        count = os.preadv(self._descriptor, [view[:room]], self._offset + self._position)
        self._position += count
        return count

    def close(self) -> None:
        if not self.closed:
            os.close(self._descriptor)
        super().close()


def open_range(path: Path, offset: int = 0, length: int | None = None) -> BinaryIO:
    """Open bytes [offset, offset + length) of a file for reading; None: to its end.

    Raises:
        OSError: the file cannot be opened.
    """
    return cast("BinaryIO", io.BufferedReader(_Range(path, offset, length), 1 << 16))
