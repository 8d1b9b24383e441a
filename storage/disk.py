"""The disk: its errors in this package's words, and what Python's library does not offer."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from storage.errors import OutOfResourcesError

KEEP_SIZE: Final = 0x01
PUNCH_HOLE: Final = 0x02
"""Modes of fallocate(2)."""

_libc = ctypes.CDLL(None, use_errno=True)


def resource_error(error: OSError) -> OutOfResourcesError:
    """Return what an error of the operating system means: full, over quota, read-only, failing."""
    name = errno.errorcode.get(error.errno or 0, type(error).__name__)
    return OutOfResourcesError(f"the object store cannot take data: {name}")


def sync_file(path: Path) -> None:
    """Make durable what was written to a file, by whoever it was.

    Raises:
        OutOfResourcesError: the disk fails.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise resource_error(error) from error


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def claim(descriptor: int) -> None:
    """Let other processes know, as long as this one holds a file open, that it is written to.

    The lock ends with its holder. Where the file system has none, retention leaves files whole.
    """
    with contextlib.suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)


def punch_holes(descriptor: int, holes: Iterable[tuple[int, int]]) -> bool:
    """Give the blocks of ranges (start, end) of a file back to the disk: zeros are read there then.

    Returns False where the file system cannot; the file is as it was.

    Raises:
        OSError
    """
    mode = ctypes.c_int(KEEP_SIZE | PUNCH_HOLE)
    for start, end in holes:
        ctypes.set_errno(0)
        failed = _libc.fallocate(
            descriptor, mode, ctypes.c_int64(start), ctypes.c_int64(end - start)
        )
        number = ctypes.get_errno()
        if failed and number in {errno.EOPNOTSUPP, errno.ENOSYS}:
            return False
        if failed:
            raise OSError(number, os.strerror(number))
    os.fdatasync(descriptor)
    return True


def behind(pieces: list[bytes | memoryview], done: int) -> list[bytes | memoryview]:
    """Return what is left of some pieces when their first bytes are written."""
    for index, piece in enumerate(pieces):
        if done < len(piece):
            return [memoryview(piece)[done:], *pieces[index + 1 :]]
        done -= len(piece)
    return []
