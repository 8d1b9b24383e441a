"""The disk: its errors in this package's words, and what Python's library does not offer."""

from __future__ import annotations

import ctypes
import errno
import os
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


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def punch_hole(path: Path, offset: int, length: int) -> None:
    """Give the blocks of a range back to the disk; what is read there is zeros from now on.

    Where the file system cannot, zeros are written in place.

    Raises:
        OSError
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        mode = ctypes.c_int(KEEP_SIZE | PUNCH_HOLE)
        failed = _libc.fallocate(descriptor, mode, ctypes.c_int64(offset), ctypes.c_int64(length))
        if failed and ctypes.get_errno() not in {errno.EOPNOTSUPP, errno.ENOSYS}:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        if failed:
            _write_zeros(descriptor, offset, length)
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)


def _write_zeros(descriptor: int, offset: int, length: int) -> None:
    zeros = bytes(1 << 20)
    for start in range(offset, offset + length, len(zeros)):
        os.pwrite(descriptor, zeros[: offset + length - start], start)
