"""A plain PDF of words and pictures (ISO 32000-1), the same bytes every time.

Words are in Courier, which every reader has, and stay words: they can be searched and copied.
Characters that its encoding lacks become question marks.
"""

from __future__ import annotations

import textwrap
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from node.interfaces import Rgb

PAGE: Final = (595, 842)
"""A4, in points."""
MARGIN: Final = 48
TEXT: Final = 10
PITCH: Final = 13
CHARACTERS: Final = int((PAGE[0] - 2 * MARGIN) / (0.6 * TEXT))
LINES: Final = (PAGE[1] - 2 * MARGIN) // PITCH - 2
CATALOGUE, PAGES, FONT = 1, 2, 3
_HEADER: Final = b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n"
_ESCAPED: Final = str.maketrans({"\\": "\\\\", "(": "\\(", ")": "\\)"})


@dataclass(slots=True)
class _File:
    """Objects by number, in the order in which they are written."""

    objects: list[bytes] = field(default_factory=list)

    def add(self, content: bytes) -> int:
        """Take an object; return its number."""
        self.objects.append(content)
        return len(self.objects)

    def written(self) -> bytes:
        """Return the file, with the table of where its objects are."""
        data = bytearray(_HEADER)
        places = []
        for number, content in enumerate(self.objects, 1):
            places.append(len(data))
            data += b"%d 0 obj\n%b\nendobj\n" % (number, content)
        start, count = len(data), len(places) + 1
        data += b"xref\n0 %d\n0000000000 65535 f \n" % count
        data += b"".join(b"%010d 00000 n \n" % place for place in places)
        data += b"trailer\n<< /Size %d /Root %d 0 R >>\n" % (count, CATALOGUE)
        return bytes(data + b"startxref\n%d\n%%%%EOF\n" % start)


def pdf_of(heading: str, lines: Sequence[str], pictures: Sequence[Rgb]) -> bytes:
    """Return a PDF: pages of words, each under the heading, and a page for each picture."""
    file = _File([b"<< /Type /Catalog /Pages %d 0 R >>" % PAGES, b"", b""])
    file.objects[FONT - 1] = (
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Courier /Encoding /WinAnsiEncoding >>"
    )
    top = textwrap.wrap(heading, CHARACTERS)
    rows = [row for line in lines for row in _wrapped(line)]
    each = max(1, LINES - len(top) - 1)
    pages = [
        _page(file, _words([*top, "", *rows[start : start + each]]), None)
        for start in range(0, max(1, len(rows)), each)
    ]
    pages += [_page(file, _words(top) + _placed(pixels, len(top)), pixels) for pixels in pictures]
    kids = b" ".join(b"%d 0 R" % page for page in pages)
    file.objects[PAGES - 1] = b"<< /Type /Pages /Kids [%b] /Count %d >>" % (kids, len(pages))
    return file.written()


def _page(file: _File, content: bytes, pixels: Rgb | None) -> int:
    stream = file.add(_stream(b"", content))
    drawn = b""
    if pixels is not None:
        drawn = b" /XObject << /Picture %d 0 R >>" % file.add(_image(pixels))
    return file.add(
        b"<< /Type /Page /Parent %d 0 R /MediaBox [0 0 %d %d] /Contents %d 0 R"
        b" /Resources << /Font << /Words %d 0 R >>%b >> >>" % (PAGES, *PAGE, stream, FONT, drawn)
    )


def _words(rows: Sequence[str]) -> bytes:
    """Write rows from the top of a page down."""
    shown = b"".join(
        b"(%b) Tj T*\n" % row.translate(_ESCAPED).encode("cp1252", "replace") for row in rows
    )
    place = (TEXT, PITCH, MARGIN, PAGE[1] - MARGIN - TEXT)
    return b"BT /Words %d Tf %d TL %d %d Td\n%bET\n" % (*place, shown)


def _placed(pixels: Rgb, rows: int) -> bytes:
    """Draw the picture of a page below so many rows, as large as it fits."""
    height, width = pixels.shape[:2]
    room = (PAGE[0] - 2 * MARGIN, PAGE[1] - 2 * MARGIN - (rows + 1) * PITCH)
    scale = min(room[0] / width, room[1] / height)
    across, down = int(width * scale), int(height * scale)
    bottom = MARGIN + room[1] - down
    return b"q %d 0 0 %d %d %d cm /Picture Do Q\n" % (across, down, MARGIN, bottom)


def _image(pixels: Rgb) -> bytes:
    head = (
        b" /Type /XObject /Subtype /Image /Width %d /Height %d /ColorSpace /DeviceRGB"
        b" /BitsPerComponent 8 /Filter /FlateDecode" % (pixels.shape[1], pixels.shape[0])
    )
    return _stream(head, zlib.compress(pixels.tobytes()))


def _stream(head: bytes, data: bytes) -> bytes:
    return b"<<%b /Length %d >>\nstream\n%b\nendstream" % (head, len(data), data)


def _wrapped(line: str) -> Iterator[str]:
    yield from textwrap.wrap(line, CHARACTERS, subsequent_indent="    ") or [""]
