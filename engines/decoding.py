"""Compressed pixel data into stored values: the one place that calls a decoder.

Which decoders there are is pydicom's plugins' business; that they are handed only frames that are
there, and that claim the size of the header, is settled here (PS3.5 A.4).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.pixels.decoders.base import Decoder, get_decoder
from pydicom.pixels.processing import apply_color_lut
from pydicom.uid import UID

from engines.codestream import claimed_size
from engines.datasets import READ_ERRORS, quiet
from engines.headers import PixelFormat
from engines.refusals import Reason, SeriesRefusedError

Stored: TypeAlias = npt.NDArray[np.signedinteger | np.unsignedinteger]
Colours: TypeAlias = npt.NDArray[np.uint8]
SAMPLES: Final = 3
DECODE_ERRORS: Final = (*READ_ERRORS, RuntimeError)


def decoded_frames(dataset: Dataset, form: PixelFormat, indices: Sequence[int]) -> Iterator[Stored]:
    """Decode frames of encapsulated pixel data; yield stored values [row, column] of each.

    Args:
        dataset: with its pixel data.
        form: what its header says of them: grey scale, within the limit on bytes.
        indices: the frames wanted, from 0.

    Raises:
        SeriesRefusedError: no decoder for the transfer syntax, too few frames, a frame that claims
            or gives another size, a damaged one.
    """
    try:
        decoder = _decoder(form)
        with quiet():
            _check_claims(dataset, form)
            for array, _ in decoder.iter_array(dataset, indices=indices, raw=True):
                _check_shape(array, form)
                yield array
    except DECODE_ERRORS as error:
        raise SeriesRefusedError(
            Reason.PIXELS_UNREADABLE,
            f"the pixel data of an image cannot be decoded ({type(error).__name__}, transfer"
            f" syntax {form.transfer_syntax_uid})",
        ) from error


def decoded_colours(dataset: Dataset, form: PixelFormat, index: int) -> Colours:
    """Decode one frame in colours; return RGB uint8 [row, column, sample].

    Args:
        dataset: with its pixel data; compressed or not.
        form: what its header says of them: three samples, or a palette.
        index: the frame wanted, from 0.

    Raises:
        SeriesRefusedError: as `decoded_frames`; no colours that can be read.
    """
    try:
        decoder = _decoder(form)
        with quiet():
            if is_compressed(form.transfer_syntax_uid):
                _check_claims(dataset, form)
            found, _ = decoder.as_array(dataset, index=index)
            if form.photometric == "PALETTE COLOR":
                found = apply_color_lut(found, dataset)
    except DECODE_ERRORS as error:
        raise SeriesRefusedError(
            Reason.PIXELS_UNREADABLE,
            f"the pixel data of an image cannot be decoded ({type(error).__name__}, transfer"
            f" syntax {form.transfer_syntax_uid})",
        ) from error
    if found.shape != (form.rows, form.columns, SAMPLES) or found.dtype.kind != "u":
        raise SeriesRefusedError(
            Reason.PIXEL_FORMAT, f"a frame decodes to {found.dtype} {found.shape}: no colours"
        )
    bits = found.dtype.itemsize * 8 if form.photometric == "PALETTE COLOR" else form.bits_stored
    colours: Colours = (found >> max(0, bits - 8)).astype(np.uint8)
    return colours


def is_compressed(transfer_syntax_uid: str) -> bool:
    """Say whether pixel data are encapsulated in this transfer syntax.

    Raises:
        SeriesRefusedError: not known, so nobody can say.
    """
    try:
        with quiet():
            return bool(UID(transfer_syntax_uid).is_encapsulated)
    except ValueError as error:
        known = re.fullmatch(r"[0-9.]{1,64}", transfer_syntax_uid)
        raise _no_decoder(transfer_syntax_uid if known else "unknown") from error


def has_decoder(transfer_syntax_uid: str) -> bool:
    """Say whether pixel data in this transfer syntax can be read here."""
    return _found_decoder(transfer_syntax_uid) is not None


def _found_decoder(transfer_syntax_uid: str) -> Decoder | None:
    try:
        decoder = get_decoder(transfer_syntax_uid)
    except NotImplementedError:
        return None
    return decoder if decoder.is_available else None


def _decoder(form: PixelFormat) -> Decoder:
    decoder = _found_decoder(form.transfer_syntax_uid)
    if decoder is None:
        raise _no_decoder(form.transfer_syntax_uid)
    return decoder


def _no_decoder(transfer_syntax: str) -> SeriesRefusedError:
    return SeriesRefusedError(
        Reason.TRANSFER_SYNTAX, f"no decoder is installed for transfer syntax {transfer_syntax}"
    )


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


def _check_shape(stored: Stored, form: PixelFormat) -> None:
    if stored.shape != (form.rows, form.columns):
        raise SeriesRefusedError(
            Reason.PIXELS_UNREADABLE,
            f"a frame decodes to {stored.shape}, not to {form.rows} x {form.columns} pixels",
        )
