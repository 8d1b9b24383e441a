"""The parts of a multipart/related body as they come (RFC 2046, RFC 2387), within limits."""

from __future__ import annotations

import re
from typing import Final, Protocol

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError

MOST_HEADERS: Final = 16
MOST_HEADER_BYTES: Final = 4096
PARAMETER: Final = re.compile(r';\s*([A-Za-z0-9-]+)\s*=\s*("([^"\\]{0,256})"|[^\s;"]{1,256})\s*')
BOUNDARY: Final = re.compile(r"[A-Za-z0-9'()+_,./:=? -]{0,69}[A-Za-z0-9'()+_,./:=?-]")


class MediaTypeError(Exception):
    """The body is of another media type than is taken here."""


class PartsError(Exception):
    """The body is not what its Content-Type says; the message says why."""


class PartSink(Protocol):
    """Takes parts. What its methods raise ends the parsing."""

    def begin(self) -> None:
        """Start a part; its headers follow."""

    def headers(self, content_type: str) -> None:
        """Take its media type; the headers are over."""

    def data(self, piece: memoryview) -> None:
        """Take bytes of it."""

    def end(self) -> None:
        """End it."""


def boundary_of(content_type: str, wanted: str) -> str:
    """Return the boundary of `multipart/related; type=...`.

    Raises:
        MediaTypeError: it is not that, or its parts are of another type than `wanted`.
        PartsError: it has no boundary, or none that may be one (RFC 2046 5.1.1).
    """
    kind, semicolon, rest = content_type.partition(";")
    if kind.strip().lower() != "multipart/related":
        raise MediaTypeError("the body must be multipart/related")
    found = {
        match.group(1).lower(): match.group(3) if match.group(3) is not None else match.group(2)
        for match in PARAMETER.finditer(semicolon + rest)
    }
    if found.get("type", wanted).lower() != wanted:
        raise MediaTypeError(f"its parts must be {wanted}")
    boundary = found.get("boundary", "")
    if not BOUNDARY.fullmatch(boundary):
        raise PartsError("Content-Type names no boundary, or none that may be one")
    return boundary


class RelatedParts:
    """Takes a body piece by piece, and hands its parts on."""

    def __init__(self, boundary: str, sink: PartSink) -> None:
        self._sink = sink
        self._field = bytearray()
        self._value = bytearray()
        self._content_type = ""
        self._ended = False
        self._parser = MultipartParser(
            boundary.encode("ascii"),
            {
                "on_part_begin": self._begin,
                "on_header_field": self._header_field,
                "on_header_value": self._header_value,
                "on_header_end": self._header_end,
                "on_headers_finished": lambda: sink.headers(self._content_type),
                "on_part_data": self._data,
                "on_part_end": sink.end,
                "on_end": self._end,
            },
            max_header_count=MOST_HEADERS,
            max_header_size=MOST_HEADER_BYTES,
        )

    def take(self, data: bytes) -> None:
        """Take the next bytes of the body.

        Raises:
            PartsError
        """
        if self._ended:
            return  # what stands behind the last boundary means nothing (RFC 2046 5.1.1)
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise PartsError("the body is no multipart body with this boundary") from error

    def finish(self) -> None:
        """Say that the body is over.

        Raises:
            PartsError: its last boundary did not come.
        """
        if not self._ended:
            raise PartsError("the body ends before its last boundary")

    def _begin(self) -> None:
        self._content_type = ""
        self._sink.begin()

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._field.lower() == b"content-type":
            self._content_type = self._value.decode("latin-1").strip()
        self._field.clear()
        self._value.clear()

    def _data(self, data: bytes, start: int, end: int) -> None:
        self._sink.data(memoryview(data)[start:end])

    def _end(self) -> None:
        self._ended = True
