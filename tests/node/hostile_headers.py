"""Hostile headers, made byte by byte: the kept corpus of tests/corpus/headers and its maker.

`PYTHONPATH=. python tests/node/hostile_headers.py` writes what is missing there. What a fuzzer
finds is laid beside it by hand, as NAME.SYNTAX.bin. Nothing in it comes from a patient.
"""

from __future__ import annotations

import struct
import sys
import zlib
from pathlib import Path
from typing import Final

from tests.end_to_end.pdus import (
    CT_IMAGE_STORAGE,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    data_set,
    element,
)

CORPUS: Final = Path(__file__).parents[1] / "corpus" / "headers"
BIG_ENDIAN: Final = "1.2.840.10008.1.2.2"
SYNTAXES: Final = {
    "explicit": EXPLICIT,
    "implicit": IMPLICIT,
    "big": BIG_ENDIAN,
    "deflated": DEFLATED,
}
UNDEFINED: Final = 0xFFFFFFFF
CODED: Final = 0x00081032  # Procedure Code Sequence
ITEM: Final = struct.pack("<HHI", 0xFFFE, 0xE000, UNDEFINED)
ITEM_END: Final = struct.pack("<HHI", 0xFFFE, 0xE00D, 0)
SEQUENCE_END: Final = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
SEQUENCE: Final = struct.pack("<HH2sHI", 0x0008, 0x1032, b"SQ", 0, UNDEFINED)
UNKNOWN: Final = struct.pack("<HH2sHI", 0x0009, 0x1010, b"UN", 0, UNDEFINED)

UIDS: Final = element(0x00080016, "UI", CT_IMAGE_STORAGE) + element(0x00080018, "UI", "1.2.3")
TAIL: Final = element(0x0020000D, "UI", "1.2") + element(0x0020000E, "UI", "1.3")


def deflated(content: bytes) -> bytes:
    """Compress as the deflated transfer syntax wants it (PS3.5 A.5): no zlib header."""
    deflate = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    return deflate.compress(content) + deflate.flush()


def inflated(content: bytes, most: int = 1 << 20) -> bytes:
    """Undo it, as far as it goes."""
    try:
        return zlib.decompressobj(wbits=-zlib.MAX_WBITS).decompress(content, most)
    except zlib.error:
        return b""


def plain(tag: int, value: bytes, order: str) -> bytes:
    """Return an element in Implicit VR, little or big endian lengths."""
    value += bytes(len(value) % 2)
    return struct.pack(f"{order}HHI", tag >> 16, tag & 0xFFFF, len(value)) + value


def big(tag: int, vr: bytes, value: bytes) -> bytes:
    """Return an element in Explicit VR Big Endian."""
    value += bytes(len(value) % 2)
    return struct.pack(">HH2sH", tag >> 16, tag & 0xFFFF, vr, len(value)) + value


def named(charset: bytes, name: bytes) -> bytes:
    """Return a header with a character set and a patient name in it."""
    return element(0x00080005, "CS", charset) + UIDS + element(0x00100010, "PN", name) + TAIL


def well_formed() -> dict[str, bytes]:
    """Return headers that can be read, one in each syntax: seeds to be damaged."""
    sequence = (
        SEQUENCE + ITEM + element(0x00080100, "SH", "X") + SEQUENCE + ITEM + ITEM_END
        + SEQUENCE_END + ITEM_END + struct.pack("<HHI", 0xFFFE, 0xE000, 0) + SEQUENCE_END
    )  # fmt: skip
    numbered = {
        0x00080016: CT_IMAGE_STORAGE.encode(),
        0x00080018: b"1.2.3",
        0x00080060: b"CT",
        0x00100010: b"Made^Up",
        0x0020000D: b"1.2",
        0x0020000E: b"1.3",
    }
    unknown = UNKNOWN + ITEM + plain(0x00091011, b"x", "<") + ITEM_END + SEQUENCE_END
    return {
        "well-formed.explicit": UIDS + sequence + unknown + TAIL,
        "well-formed.implicit": b"".join(plain(t, v, "<") for t, v in numbered.items()),
        "well-formed.big": b"".join(
            big(t, b"UI" if v[:1] == b"1" else b"LO", v) for t, v in numbered.items()
        ),
        "well-formed.deflated": deflated(data_set("1.2.3")),
        "no-data.explicit": b"",
        "one-byte.explicit": b"\x08",
        "seven-bytes.implicit": bytes(7),
    }


def lengths() -> dict[str, bytes]:
    """Return headers whose lengths lie."""
    return {
        "uid-behind-the-end.explicit": UIDS + element(0x0020000D, "UI", "1.2", length=0xFFFF),
        "skipped-behind-the-end.explicit": UIDS + element(0x00091001, "OB", b"ab", length=1 << 31),
        "length-minus-two.explicit": UIDS + element(0x00091001, "OB", b"ab", length=0xFFFFFFFE),
        "undefined-in-text.implicit": struct.pack("<HHI", 0x0010, 0x0010, UNDEFINED) + TAIL,
        "odd-length.explicit": UIDS + element(0x00100020, "LO", b"abc", length=3) + TAIL,
        "long-form-cut.explicit": UIDS + struct.pack("<HH2sH", 0x0009, 0x1001, b"OB", 0),
        "wanted-is-a-sequence.explicit": UIDS
        + struct.pack("<HH2sHI", 0x10, 0x10, b"SQ", 0, UNDEFINED) + SEQUENCE_END + TAIL,
        "value-too-long.deflated": deflated(UIDS + element(0x00100020, "UT", b"x" * 70_000) + TAIL),
        "wrong-endian.big": UIDS + TAIL,
        "wrong-endian.explicit": big(0x00080018, b"UI", b"1.2.3"),
        "file-meta.explicit": element(0x00020010, "UI", EXPLICIT) + UIDS + TAIL,
        "preamble.explicit": b"\x7fELF".ljust(128, b"\x90") + b"DICM" + UIDS + TAIL,
    }  # fmt: skip


def nesting() -> dict[str, bytes]:
    """Return headers whose sequences do not end, or end where none began."""
    return {
        "nested.explicit": UIDS + (SEQUENCE + ITEM) * 200,
        "nested-to-the-limit.explicit": UIDS + (SEQUENCE + ITEM) * 49
        + (ITEM_END + SEQUENCE_END) * 49 + TAIL,
        "nested-in-unknown.explicit": UIDS + UNKNOWN
        + (ITEM + struct.pack("<HHI", 0x0009, 0x1010, UNDEFINED)) * 200,
        "nested-deep.deflated": deflated(UIDS + (SEQUENCE + ITEM) * 5000),
        "items-without-end.deflated": deflated(
            UIDS + SEQUENCE + struct.pack("<HHI", 0xFFFE, 0xE000, 0) * 120_000
        ),
        "item-end-alone.explicit": UIDS + ITEM_END + TAIL,
        "sequence-ends-twice.explicit": UIDS + SEQUENCE + SEQUENCE_END * 2 + TAIL,
        "element-in-sequence.explicit": UIDS + SEQUENCE + element(0x00080100, "SH", "X") + TAIL,
        "item-cut.explicit": UIDS + SEQUENCE + ITEM[:5],
        "item-longer-than-all.explicit": UIDS + SEQUENCE
        + struct.pack("<HHI", 0xFFFE, 0xE000, 1 << 30),
    }  # fmt: skip


def elements() -> dict[str, bytes]:
    """Return headers of too many, repeated, unsorted or meaningless elements."""
    return {
        "many.deflated": deflated(struct.pack("<HH2sH", 8, 1, b"SH", 0) * 100_001 + UIDS + TAIL),
        "long-of-small.deflated": deflated(
            element(0x00080001, "UT", b"x" * 1000) * 5000 + UIDS + TAIL
        ),
        "bomb.deflated": deflated(UIDS + element(0x00091001, "OB", bytes(8 << 20)) + TAIL),
        "deflated-cut.deflated": deflated(UIDS + TAIL)[:20],
        "zlib-header.deflated": zlib.compress(UIDS + TAIL),
        "repeated.explicit": UIDS * 3 + element(0x00080018, "UI", "1.9") + TAIL * 2,
        "unsorted.explicit": TAIL + UIDS,
        "no-vr.explicit": UIDS + struct.pack("<HH2sH", 0x0010, 0x0010, b"  ", 0) + TAIL,
        "vr-of-no-standard.explicit": UIDS + struct.pack("<HH2sH", 0x10, 0x10, b"ZZ", 0) + TAIL,
        "vr-in-lower-case.explicit": UIDS + struct.pack("<HH2sH", 0x10, 0x10, b"pn", 0) + TAIL,
        "pixels-first.explicit": element(0x7FE00010, "OW", b"ab") + UIDS + TAIL,
        "highest-tag.explicit": UIDS + struct.pack("<HH2sH", 0xFFFF, 0xFFFF, b"UN", 0),
    }


def values() -> dict[str, bytes]:
    """Return headers whose text is hostile: names, character sets, escapes, UIDs."""
    names = {
        "escape-cut.explicit": named(b"\\ISO 2022 IR 87", b"A^B=\x1b$"),
        "escape-unknown.explicit": named(b"\\ISO 2022 IR 87", b"A\x1b(Z\xff\x1b$)C\xfe"),
        "escapes-only.explicit": named(
            b"\\ISO 2022 IR 149\\ISO 2022 IR 58", b"\x1b$)C\x1b$)A" * 20
        ),
        "cut-in-two-bytes.explicit": named(b"ISO 2022 IR 6\\ISO 2022 IR 87", b"\x1b$B;"),
        "gb18030-cut.explicit": named(b"GB18030", b"A\x81\x30\x81"),
        "gbk-cut.explicit": named(b"GBK", b"\xc4"),
        "utf-8-overlong.explicit": named(b"ISO_IR 192", b"\xc0\xaf\xed\xa0\x80\xf8"),
        "character-set-repeated.explicit": named(b"ISO_IR 192\\" * 30, b"\xff"),
        "character-set-noise.explicit": named(bytes(range(128, 192)), b"\xff\xfe"),
        "character-set-alone-2022.explicit": named(b"ISO 2022 IR 13", b"\x1b)I\xd4\x1b(J\\"),
        "control-characters.explicit": named(b"", bytes(range(32)) + b"\x7f\x1b[31m\r\n{}"),
        "surrogates.explicit": named(b"ISO_IR 192", "\ufffe\u2028".encode() + b"\xed\xb2\x80"),
    }
    uids = [b"../../x", b"1." + b"2" * 63, b"1.2\0.3", b"1..2", b"", b"1.2\xff", b" 1.2", b"1.2\n"]
    return names | {
        f"uid-{number}.explicit": UIDS + element(0x0020000D, "UI", uid) + TAIL[-12:]
        for number, uid in enumerate(uids)
    }


def hostile_headers() -> dict[str, bytes]:
    """Return every header that is made here: NAME.SYNTAX -> bytes of a data set."""
    return well_formed() | lengths() | nesting() | elements() | values()


def corpus() -> dict[str, tuple[str, bytes]]:
    """Return what is kept: NAME.SYNTAX -> (transfer syntax UID, bytes of a data set)."""
    return {
        path.stem: (SYNTAXES[path.stem.rsplit(".", 1)[1]], path.read_bytes())
        for path in sorted(CORPUS.glob("*.bin"))
    }


def write(folder: Path = CORPUS) -> int:
    """Write the headers that are made here; return how many."""
    folder.mkdir(parents=True, exist_ok=True)
    made = hostile_headers()
    for name, content in made.items():
        (folder / f"{name}.bin").write_bytes(content)
    return len(made)


if __name__ == "__main__":
    sys.stdout.write(f"{write()} headers in {CORPUS}\n")
