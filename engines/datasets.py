"""Files by pydicom, within a limit on memory: the way that reads whatever can be read."""

from __future__ import annotations

import io
import logging
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, Final

import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.uid import DeflatedExplicitVRLittleEndian

from engines.images import InstanceFile
from engines.refusals import Reason, SeriesRefusedError

READ_ERRORS: Final = (
    InvalidDicomError, BytesLengthException, OSError, EOFError, ValueError, TypeError, KeyError,
    IndexError, AttributeError, NotImplementedError, OverflowError, RecursionError,
    struct.error, zlib.error,
)  # fmt: skip


def read_dataset(file: InstanceFile, *, byte_limit: int, with_pixels: bool) -> Dataset:
    """Parse one file within `byte_limit` bytes of memory.

    Raises:
        SeriesRefusedError: unreadable, or larger than the limit (a deflated data set: once
            inflated).
    """
    try:
        with file.open() as stream, quiet():
            _check_size(stream, byte_limit)
            stream.seek(0)
            return pydicom.dcmread(stream, stop_before_pixels=not with_pixels)
    except READ_ERRORS as error:
        raise SeriesRefusedError(
            Reason.UNREADABLE, f"an image is not a readable DICOM file ({kind_of(error)})"
        ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what pydicom has to say from terminal and log: it quotes values of the data set."""
    logger = logging.getLogger("pydicom")
    before = logger.disabled
    logger.disabled = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = before


def _check_size(stream: BinaryIO, byte_limit: int) -> None:
    size = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    pydicom.filereader.read_preamble(stream, False)
    meta = pydicom.filereader._read_file_meta_info(stream)
    if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
        start = 144 + int(meta.FileMetaInformationGroupLength)
        size = _inflated_size(stream, start, byte_limit)
    if size > byte_limit:
        raise SeriesRefusedError(
            Reason.TOO_LARGE, f"an image has more than {byte_limit >> 20} MiB of data"
        )


def _inflated_size(stream: BinaryIO, start: int, byte_limit: int) -> int:
    """Count what a deflated data set inflates to, keeping nothing and stopping past the limit."""
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    size, chunk = 0, 1 << 20
    stream.seek(start)
    data = stream.read(chunk)
    while data and size <= byte_limit and not inflate.eof:
        size += len(inflate.decompress(data, chunk))
        data = inflate.unconsumed_tail or stream.read(chunk)
    return size


def kind_of(error: BaseException) -> str:
    """Name an error without its words, which may quote the data set."""
    return type(error).__name__
