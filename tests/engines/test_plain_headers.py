"""What is read fast is what pydicom reads: the same volumes, and the same refusals."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Final

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.datadict import dictionary_VR

from engines.plain_headers import KEYWORDS, read_plain_header
from tests.engines.both_ways import (
    LIMIT,
    USUAL,
    by_pydicom,
    described,
    element,
    image,
    outcome,
    tag_of,
)
from tests.engines.encoding import (
    EXPLICIT,
    IMPLICIT,
    ITEM,
    ITEM_END,
    SEQUENCE_END,
    Element,
    Item,
    dicom_file,
    encoded,
    even,
)

AMBIGUOUS: Final = "US or SS"

ODD_TEXTS: Final = st.sampled_from(
    [b"", b" ", b"\0", b"CT ", b" CT", rb"A\B", rb"A \ B", rb"\A", "Kopf-Schädel".encode("latin-1"),
     b"YES", b"01", b"LOCALIZER", b"A\x1b$B", b"A\nB", b"A\0B", b"ISO_IR 192", b"ISO_IR 13",
     rb"\ISO 2022 IR 87", rb"ISO 2022 IR 13\ISO 2022 IR 87", b"GB18030", b"no such set", b"1.2.x"]
) | st.binary(max_size=8)  # fmt: skip
ODD_NUMBERS: Final = st.sampled_from(
    [b"", b" ", b"0", b"1", b"2", b" 3 ", b"-1", b"+1", b"-0.5", b".5", b"5.", b"1e3", b"1e999",
     b"1_0", b"nan", b"inf", b"1,5", b"0x1", rb"1\2", rb"1\\2", rb"1\ 2 ", b"1\0", b"00012", b"1.0",
     b"99999999999", b"0.1234567890123456789", rb"1\0\0\0\1\0", rb"0\1\0\0\0\-1"]
)  # fmt: skip
OTHER_VR: Final = st.sampled_from([b"UN", b"LO", b"US", b"OB", b"SQ", b"XX", b"\0\0", b"DS"])


@st.composite
def leaves(draw: st.DrawFn) -> Element:
    tag = draw(st.sampled_from([0x00080005, 0x00081150, 0x00091001, 0x00100010, 0x00280030]))
    value = draw(st.sampled_from([b"", b"ISO_IR 100", b"1.2.3 ", b"abc", b"12345678"]))
    return Element(
        tag=tag, vr=draw(st.sampled_from([b"LO", b"UI", b"OB", b"UN", b"CS"])), value=value
    )


def sequences(inner: st.SearchStrategy[Element]) -> st.SearchStrategy[Element]:
    items = st.builds(
        Item, elements=st.lists(inner, max_size=2).map(tuple), undefined=st.booleans()
    )
    return st.builds(
        Element,
        tag=st.sampled_from([0x00081140, 0x00091010, 0x00189004, 0x00400260, 0x52009230]),
        vr=st.sampled_from([b"SQ", b"SQ", b"SQ", b"UN"]),
        items=st.lists(items, max_size=2).map(tuple),
        undefined=st.booleans(),
    )


FURTHER: Final = st.recursive(leaves(), sequences, max_leaves=4) | st.builds(
    Element,
    tag=st.sampled_from([0x00080000, 0x00090010, 0x00291010, 0x7FE00001, 0x52009230, 0x00280030]),
    vr=st.sampled_from([b"OB", b"UN", b"LO", b"UL"]),
    value=st.sampled_from([b"", bytes(4), bytes(20_000)]),
)


@st.composite
def attributes(draw: st.DrawFn) -> dict[int, Element]:
    """Usual attributes, of which a few are absent, odd, or of another value representation."""
    found = {}
    odd = draw(st.sets(st.sampled_from(sorted(KEYWORDS)), max_size=2))
    for keyword in USUAL.keys() | odd:
        tag = tag_of(keyword)
        vr = dictionary_VR(tag).partition(" ")[0].encode()
        value: bytes | None = USUAL.get(keyword, b"")
        if keyword in odd:
            value = draw(st.none() | (ODD_NUMBERS if vr in (b"DS", b"IS") else ODD_TEXTS))
            vr = draw(st.just(vr) | OTHER_VR)
        if value is not None:
            found[tag] = Element(tag=tag, vr=vr, value=even(value))
    return found


@st.composite
def pixel_formats(draw: st.DrawFn) -> dict[int, Element]:
    allocated = draw(st.sampled_from([16] * 8 + [8, 32, 12]))
    stored = draw(st.sampled_from([allocated, min(allocated, 12)]) | st.integers(1, allocated))
    values = {
        "Rows": 3,
        "Columns": draw(st.sampled_from([4, 4, 5])),
        "SamplesPerPixel": draw(st.sampled_from([1] * 9 + [3])),
        "BitsAllocated": allocated,
        "BitsStored": stored,
        "HighBit": draw(
            st.sampled_from([stored - 1] * 3) | st.integers(stored - 1, allocated - 1) | st.just(33)
        ),
        "PixelRepresentation": draw(st.integers(0, 1)),
        "PixelPaddingValue": draw(st.none() | st.integers(0, 0xFFFF)),
        "PixelPaddingRangeLimit": draw(st.none() | st.integers(0, 0xFFFF)),
    }
    found = {}
    for keyword, value in values.items():
        tag = tag_of(keyword)
        if value is not None:
            vr = b"US" if dictionary_VR(tag) != AMBIGUOUS else draw(st.sampled_from([b"US", b"SS"]))
            found[tag] = Element(tag=tag, vr=vr, value=struct.pack("<H", value))
    slopes, intercepts = (b"1", b"1", b"2", b"-1", b"0.5"), (b"0", b"-1024", b"1024", b"-0.25")
    for keyword, texts in (("RescaleSlope", slopes), ("RescaleIntercept", intercepts)):
        found[tag_of(keyword)] = element(keyword, even(draw(st.sampled_from(texts))))
    return found


@st.composite
def files(draw: st.DrawFn) -> bytes:
    syntax = draw(st.sampled_from([EXPLICIT, IMPLICIT]))
    elements = draw(attributes())
    elements = (
        elements | draw(pixel_formats())
        if draw(st.booleans())
        else draw(pixel_formats()) | elements
    )
    elements |= {element.tag: element for element in draw(st.lists(FURTHER, max_size=3))}
    size = 3 * 4 * 2
    pixels = draw(st.binary(min_size=size, max_size=size)) * draw(st.sampled_from([1, 1, 2]))
    pixels = pixels[: draw(st.sampled_from([len(pixels)] * 12 + [0, 7, size - 1]))]
    elements[0x7FE00010] = Element(
        tag=0x7FE00010, vr=draw(st.sampled_from([b"OW", b"OW", b"OB", b"UN"])), value=pixels
    )
    order = sorted(elements)
    if not draw(st.integers(0, 9)):
        order = draw(st.permutations(order))
    data_set = encoded([elements[tag] for tag in order], implicit=syntax == IMPLICIT)
    padding = encoded(
        [Element(tag=0xFFFCFFFC, vr=b"OB", value=bytes(6))], implicit=syntax == IMPLICIT
    )
    data_set += draw(st.sampled_from([b"", b"", b"", padding, bytes(4), b"garbage, too long"]))
    content = bytearray(dicom_file(data_set, syntax))
    for _ in range(draw(st.sampled_from([0] * 6 + [1, 2]))):
        content[draw(st.integers(128, len(content) - 1))] = draw(st.integers(0, 255))
    return bytes(content[: len(content) - draw(st.sampled_from([0] * 8 + [1, 30, 200]))])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


@settings(max_examples=400, deadline=None)
@given(files(), st.sampled_from([b"", b"the end of another file"]), st.booleans())
def test_a_file_gives_the_volume_or_the_refusal_that_it_gives_by_pydicom(
    folder: Path, content: bytes, before: bytes, followed: bool
) -> None:
    path = folder / "one"
    path.write_bytes(before + content + (content if followed else b""))
    instance = described(path, len(before), len(content) if followed else None)
    assert outcome([instance]).same_as(by_pydicom([instance]))


@st.composite
def native_images(draw: st.DrawFn) -> bytes:
    """Draw a plain image whose pixels use their format to the full, with padding and spare bits."""
    stored = draw(st.integers(1, 16))
    signed, high = draw(st.booleans()), draw(st.integers(stored - 1, 15))
    edges = [0, 1, (1 << stored) - 1, 1 << (stored - 1), (1 << (stored - 1)) - 1]
    padding = draw(st.none() | st.sampled_from(edges))
    limit = draw(st.none() | st.sampled_from(edges)) if padding is not None else None
    shift, spare = high + 1 - stored, 0xFFFF ^ (((1 << stored) - 1) << (high + 1 - stored))
    bits = draw(
        st.lists(st.sampled_from(edges) | st.integers(0, edges[2]), min_size=12, max_size=12)
    )
    noise = draw(st.sampled_from([0, 0xFFFF, 0x5A5A])) & spare
    words = np.array([value << shift | noise for value in bits], "<u2")
    slope = draw(
        st.sampled_from([b"1", b"1", b"-1", b"2", b"3.0", b"0.5"])
        | st.integers(2, 9000).map(lambda n: b"%d" % n)
    )
    texts = {
        "RescaleSlope": slope,
        "RescaleIntercept": b"%d" % draw(st.integers(-40000, 40000)),
        "Modality": draw(st.sampled_from([b"CT", b"CT", b"MR"])),
    }
    numbers = {"BitsStored": stored, "HighBit": high, "PixelRepresentation": int(signed)}
    ends = {"PixelPaddingValue": padding, "PixelPaddingRangeLimit": limit}
    numbers |= {name: end for name, end in ends.items() if end is not None}
    syntax = draw(st.sampled_from([EXPLICIT, IMPLICIT]))
    return image(texts=texts, numbers=numbers, pixels=words.tobytes(), syntax=syntax)


@settings(max_examples=300, deadline=None)
@given(native_images())
def test_pixels_changed_in_place_are_those_of_the_arithmetic_of_64_bits(
    folder: Path, content: bytes
) -> None:
    path = folder / "native"
    path.write_bytes(content)
    instance = described(path)
    plain = read_plain_header(instance, byte_limit=LIMIT)
    assert plain is not None
    assert plain.attributes is not None
    assert outcome([instance]).same_as(by_pydicom([instance]))


def raw(tag: int, vr: bytes, value: bytes, *, implicit: bool = False) -> bytes:
    return encoded([Element(tag=tag, vr=vr, value=value)], implicit=implicit)


def sequence(value: bytes) -> Element:
    """Return a sequence of undefined length around bytes that need not be items."""
    return Element(tag=0x00081140, vr=b"SQ", value=value, undefined=True)


def with_meta_length(change: int) -> bytes:
    """Return a plain image with another File Meta Information Group Length."""
    content = bytearray(image())
    (length,) = struct.unpack_from("<I", content, 140)
    struct.pack_into("<I", content, 140, length + change)
    return bytes(content)


OTHER_PIXELS: Final = bytes(range(24, 48))
ODD: Final[dict[str, bytes]] = {
    "a second value of Pixel Data behind the first": image(
        behind=raw(0x7FE00010, b"OW", OTHER_PIXELS)
    ),
    "a broken sequence behind Pixel Data": image(
        behind=b"\xfc\xff\xfc\xffSQ\0\0\xff\xff\xff\xff" + ITEM
    ),
    "Pixel Data as numbers": image(further=[element("PixelData", bytes(range(24)), b"US")]),
    "Rows as bytes": image(further=[element("Rows", b"\x03\0", b"OB")]),
    "Rows twice": image(further=[element("Rows", b"\x03\0\x04\0")]),
    "Slice Thickness as a number of another kind": image(
        further=[element("SliceThickness", struct.pack("<d", 1.5), b"FD")]
    ),
    "a character set in which ASCII is not ASCII": image(
        texts={"SpecificCharacterSet": b"utf_16", "ContrastBolusAgent": b"AB"}
    ),
    "32 bits with a negative padding": image(
        numbers={"BitsAllocated": 32, "BitsStored": 32, "HighBit": 31, "PixelRepresentation": 1},
        pixels=b"\xff\xff\xff\xff" + bytes(44),
        further=[element("PixelPaddingValue", b"\xff\xff", b"SS")],
    ),
    "explicit elements under an implicit transfer syntax": image().replace(
        even(EXPLICIT, b"\0"), (IMPLICIT + bytes(3))[: len(even(EXPLICIT, b"\0"))]
    ),
    "implicit elements under an explicit transfer syntax": image(syntax=IMPLICIT).replace(
        b"UI\x12\0" + even(IMPLICIT, b"\0"), b"UI\x14\0" + even(EXPLICIT, b"\0")
    ),
    "an implicit length that looks like a value representation": image(
        further=[Element(tag=0x00080001, vr=b"", value=bytes(0x5344))], syntax=IMPLICIT
    ),
    "file meta information that says it is longer": with_meta_length(18),
    "file meta information that says it is shorter": with_meta_length(-28),
    "tags that do not ascend": dicom_file(
        image(behind=b"")[image().index(b"\x08\0\x05\0CS") :] + raw(0x00280010, b"US", b"\x01\0"),
        EXPLICIT,
    ),
    "an element in the place of an item": image(
        further=[sequence(b"\x08\0\x60\0" + bytes(4) + SEQUENCE_END)]
    ),
    "an element that is longer than its item": image(
        further=[sequence(ITEM + b"\x0a\0\0\0" + raw(0x00080060, b"CS", b"MRMRMR") + SEQUENCE_END)]
    ),
    "the end of an item in an item with a length": image(
        further=[sequence(ITEM + b"\x08\0\0\0" + ITEM_END + SEQUENCE_END)], syntax=IMPLICIT
    ),
    "a character set in an item as bytes": image(
        further=[
            sequence(ITEM + b"\x16\0\0\0" + raw(0x00080005, b"OB", b"ISO_IR 100") + SEQUENCE_END)
        ]
    ),
    "functional groups of another number of frames": image(
        further=[Element(tag=0x52009230, vr=b"SQ", items=(Item(elements=()),) * 2)]
    ),
    "a text with an escape sequence": image(texts={"ContrastBolusAgent": b"A\x1b$B!!"}),
}


@pytest.mark.parametrize("name", ODD)
def test_what_is_odd_is_left_to_pydicom(tmp_path: Path, name: str) -> None:
    path = tmp_path / "odd.dcm"
    path.write_bytes(ODD[name])
    found = read_plain_header(described(path), byte_limit=LIMIT)
    assert found is None or found.attributes is None
    assert outcome([described(path)]).same_as(by_pydicom([described(path)]))


def test_a_plain_image_is_not_odd(tmp_path: Path) -> None:
    path = tmp_path / "plain.dcm"
    for syntax in (EXPLICIT, IMPLICIT):
        path.write_bytes(image(syntax=syntax))
        found = read_plain_header(described(path), byte_limit=LIMIT)
        assert found is not None
        assert found.attributes is not None
