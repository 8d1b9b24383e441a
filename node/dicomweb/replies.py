"""Answers over the wire: JSON arrays and multipart bodies, made while they are sent."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from starlette.responses import Response, StreamingResponse

from node.dicomweb.attributes import Json

DICOM_JSON: Final = "application/dicom+json"
HEADERS: Final[Mapping[str, str]] = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Vary": "Accept, Origin",
}
MEDIA_TYPES: Final[Mapping[str, str]] = {
    "1.2.840.10008.1.2.4.50": "image/jpeg",
    "1.2.840.10008.1.2.4.51": "image/jpeg",
    "1.2.840.10008.1.2.4.57": "image/jpeg",
    "1.2.840.10008.1.2.4.70": "image/jpeg",
    "1.2.840.10008.1.2.4.80": "image/jls",
    "1.2.840.10008.1.2.4.81": "image/jls",
    "1.2.840.10008.1.2.4.90": "image/jp2",
    "1.2.840.10008.1.2.4.91": "image/jp2",
    "1.2.840.10008.1.2.4.92": "image/jpx",
    "1.2.840.10008.1.2.4.93": "image/jpx",
    "1.2.840.10008.1.2.4.110": "image/jxl",
    "1.2.840.10008.1.2.4.111": "image/jxl",
    "1.2.840.10008.1.2.4.112": "image/jxl",
    "1.2.840.10008.1.2.4.201": "image/jphc",
    "1.2.840.10008.1.2.4.202": "image/jphc",
    "1.2.840.10008.1.2.4.203": "image/jphc",
    "1.2.840.10008.1.2.5": "image/dicom-rle",
}
"""Of frames in a compressed transfer syntax (PS3.18 table 8.7.3-5); others are octet streams."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part of a multipart body."""

    content_type: str
    pieces: Iterator[bytes]
    address: str = ""


def problem(status: int, text: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return a refusal, in words."""
    return Response(
        json.dumps({"error": text}),
        status_code=status,
        media_type="application/json",
        headers={**HEADERS, **(headers or {})},
    )


def array(items: Iterable[Json], headers: Mapping[str, str] | None = None) -> Response:
    """Return data sets as one JSON array."""
    return StreamingResponse(
        _array(items), media_type=DICOM_JSON, headers={**HEADERS, **(headers or {})}
    )


def _array(items: Iterable[Json]) -> Iterator[bytes]:
    before = b"["
    for item in items:
        yield before + json.dumps(item, ensure_ascii=False, separators=(",", ":")).encode()
        before = b","
    yield b"[]" if before == b"[" else b"]"


def multipart(parts: Iterable[Part], kind: str) -> Response:
    """Return parts of one media type (PS3.18 8.6.1.2.1)."""
    boundary = uuid.uuid4().hex
    return StreamingResponse(
        _multipart(parts, boundary),
        media_type=f'multipart/related; type="{kind}"; boundary={boundary}',
        headers=dict(HEADERS),
    )


def _multipart(parts: Iterable[Part], boundary: str) -> Iterator[bytes]:
    for part in parts:
        location = f"Content-Location: {part.address}\r\n" if part.address else ""
        yield f"--{boundary}\r\nContent-Type: {part.content_type}\r\n{location}\r\n".encode()
        yield from part.pieces
        yield b"\r\n"
    yield f"--{boundary}--\r\n".encode()


def single(pieces: Iterable[bytes], kind: str, length: int | None = None) -> Response:
    """Return one body."""
    headers = dict(HEADERS)
    if length is not None:
        headers["Content-Length"] = str(length)
    return StreamingResponse(pieces, media_type=kind, headers=headers)
