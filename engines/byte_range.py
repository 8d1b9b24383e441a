"""A part of a file as a file of its own: an instance lies in a pack beside others."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Self, cast

if TYPE_CHECKING:
    from typing_extensions import Buffer


class ByteRange:
    """Bytes [offset, offset + length) of a file; nothing outside them can be read.

    Positions count from `offset`. `size` is what there is: less than `length` where the file ends.
    """

    def __init__(self, path: Path, offset: int = 0, length: int | None = None) -> None:
        """Open the file; `length` None: to its end.

        Raises:
            OSError: the file cannot be opened.
        """
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        size = os.fstat(self._descriptor).st_size - offset
        self._offset = offset
        self.size = max(0, size if length is None else min(length, size))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def read_at(self, position: int, count: int) -> bytes:
        """Return the bytes from `position` on, at most `count`, fewer where the range ends.

        Raises:
            OSError
        """
        room = max(0, min(count, self.size - position))
        return os.pread(self._descriptor, room, self._offset + position)

    def fill(self, target: memoryview, position: int) -> int:
        """Read the bytes from `position` on into all of `target`; return how many there were.

        Args:
            target: writable bytes, contiguous.
            position: of the first byte, from the start of the range.

        Raises:
            OSError
        """
        room, done = max(0, min(len(target), self.size - position)), 0
        while done < room:
            start = self._offset + position + done
            count = os.preadv(self._descriptor, [target[done:room]], start)
            if not count:
                break
            done += count
        return done

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


class _Stream(io.RawIOBase):
    """The same bytes with a position, for parsers that want a file."""

    def __init__(self, path: Path, offset: int, length: int | None) -> None:
        self.name = str(path)
        self._bytes = ByteRange(path, offset, length)
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._bytes.size}[whence]
        if base + offset < 0:
            raise ValueError("a position before the first byte")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Buffer, /) -> int:
        count = self._bytes.fill(memoryview(buffer).cast("B"), self._position)
        self._position += count
        return count

    def close(self) -> None:
        if not self.closed:
            self._bytes.close()
        super().close()


def open_range(path: Path, offset: int = 0, length: int | None = None) -> BinaryIO:
    """Open bytes [offset, offset + length) of a file for reading; None: to its end.

    Raises:
        OSError: the file cannot be opened.
    """
    return cast("BinaryIO", io.BufferedReader(_Stream(path, offset, length), 1 << 16))
