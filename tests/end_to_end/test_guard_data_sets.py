"""Data sets that are not what they say: names, classes, preambles, lengths, sheer size (T15-T19).

Whatever they hold, nothing is written where it does not belong, nothing is acknowledged that is
not kept, and the listener looks at no more of them than it needs.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator

import pytest

from tests.end_to_end.guarded import MIB, PREAMBLE, GuardedNode, guarded
from tests.end_to_end.pdus import (
    CONTEXTS,
    CT_CONTEXT,
    CT_IMAGE_STORAGE,
    DEFLATED,
    EXPLICIT,
    MR_IMAGE_STORAGE,
    RLE,
    Context,
    c_store_rq,
    data_set,
    element,
    message,
    p_data,
)
from tests.end_to_end.processes import wait_until
from tests.end_to_end.requestor import Requestor, associated

OTHER = "127.0.0.2"
STUDY = "2.25.7001"
SUCCESS = 0x0000
MISMATCH = 0xA900
CANNOT_UNDERSTAND = 0xC000
INVALID_INSTANCE = 0x0117
MR_CONTEXT = Context(id=5, abstract_syntax=MR_IMAGE_STORAGE, transfer_syntaxes=(EXPLICIT,))


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuardedNode]:
    with guarded(tmp_path_factory.mktemp("messages")) as process:
        yield process


@pytest.fixture(autouse=True)
def unharmed(node: GuardedNode) -> Iterator[None]:
    base, logged = node.base(), node.logged()
    yield
    node.wait_back_at(base)
    node.assert_unharmed(since=logged)


@pytest.fixture
def sender(node: GuardedNode) -> Iterator[Requestor]:
    with associated(node.port, contexts=(*CONTEXTS, MR_CONTEXT)) as requestor:
        yield requestor


# ---------------------------------------------------------------- T15, T16: names


OUTSIDE = "../../../../../../../../tmp/escaped-from-the-store"
HOSTILE_UIDS: dict[str, bytes] = {
    "upwards": b"../../x",
    "far upwards": OUTSIDE.encode(),
    "absolute": b"/etc/x",
    "65 characters": b"1." + b"2" * 63,
    "10,000 characters": b"1." + b"2" * 9998,
    "nul": b"1.2\x00.3",
    "blanks": b"1. 2.3",
    "two dots": b"1..2",
    "leading zero": b"1.02.3",
    "letters": b"1.2.a",
    "unicode": "1.2.\u0663".encode(),
    "no utf-8": b"1.2.\xff\xfe",
    "new line": b"1.2\r\n{}",
    "percent": b"%2e%2e%2fx",
}


def paths_outside(node: GuardedNode) -> list[str]:
    """Return what lies in the node's folder, or where the hostile names point, and should not."""
    belongs = {node.folder / "data", node.temporary}
    own = {node.folder / "node.log", node.config, node.folder / "rules.toml"}
    found = [p for p in node.files() if p not in own and not belongs & set(p.parents)]
    found += [p for p in node.files() if "escaped" in p.name or p.name == "x"]
    found += list(node.folder.parent.glob("x*")) + list(node.folder.parent.glob("escaped*"))
    return [str(path) for path in found]


@pytest.mark.parametrize("name", HOSTILE_UIDS)
@pytest.mark.parametrize("place", ["command", "data set", "both", "study", "series"])
def test_hostile_uid_is_refused_and_never_becomes_a_path(
    name: str, place: str, node: GuardedNode, sender: Requestor
) -> None:
    """T15."""
    uid, plain = HOSTILE_UIDS[name], f"2.25.15{len(name)}{len(place)}"
    content = data_set(
        uid if place in {"data set", "both"} else plain,
        study_instance_uid=uid if place == "study" else STUDY,
        series_instance_uid=uid if place == "series" else "2.25.7002",
    )
    status = sender.store(uid if place in {"command", "both"} else plain, content)
    assert status in {CANNOT_UNDERSTAND, MISMATCH, INVALID_INSTANCE}
    assert paths_outside(node) == []
    assert sender.echo(2) == SUCCESS, "one bad instance does not cost the association"


def test_missing_uid_in_the_command_is_refused(sender: Requestor) -> None:
    assert sender.store(b"", data_set("2.25.150")) not in {SUCCESS, None}


@pytest.mark.parametrize("differs", ["instance", "class", "instance is missing"])
def test_data_set_that_is_not_what_the_command_says_is_quarantined(
    differs: str, node: GuardedNode, sender: Requestor
) -> None:
    """T16: 0xA900, nothing in the index, the bytes kept for a person to look at."""
    before = len(node.quarantined())
    uid = f"2.25.16{len(differs)}"
    inside = {"instance": f"{uid}.1", "class": uid, "instance is missing": ""}[differs]
    sop_class = {"class": MR_IMAGE_STORAGE}.get(differs, CT_CONTEXT.abstract_syntax)
    content = data_set(inside, sop_class_uid=sop_class)
    expected = {CANNOT_UNDERSTAND, MISMATCH} if "missing" in differs else {MISMATCH}
    assert sender.store(uid, content) in expected
    wait_until(lambda: len(node.quarantined()) == before + 1, "it is in quarantine", 10)
    assert not node.has(STUDY, uid)
    assert not node.has(STUDY, inside)


def test_class_of_another_context_is_refused(node: GuardedNode, sender: Requestor) -> None:
    """T16: the command's class is not the one negotiated for its presentation context."""
    uid = "2.25.1699"
    content = data_set(uid, sop_class_uid=MR_IMAGE_STORAGE)
    request = c_store_rq(uid, sop_class_uid=MR_IMAGE_STORAGE)
    assert sender.store(uid, content, command=request) != SUCCESS
    assert not node.has(STUDY, uid)


def test_transfer_syntax_that_lies_is_quarantined(node: GuardedNode, sender: Requestor) -> None:
    """T16: Implicit VR Little Endian in a context of Explicit VR."""
    before = len(node.quarantined())
    implicit = b"\x08\x00\x16\x00\x1a\x00\x00\x00" + CT_CONTEXT.abstract_syntax.encode() + b"\0"
    assert sender.store("2.25.1698", implicit) in {CANNOT_UNDERSTAND, MISMATCH}
    wait_until(lambda: len(node.quarantined()) == before + 1, "it is in quarantine", 10)


# ---------------------------------------------------------------- T17: what a file begins with


def test_kept_instance_begins_with_zeros(node: GuardedNode, sender: Requestor) -> None:
    """T17."""
    uid = "2.25.17"
    content = data_set(uid, pixels=b"T17 pixels" * 40)
    assert sender.store(uid, content) == SUCCESS
    wait_until(lambda: bool(node.kept(content)), "it is kept", 10)
    (before,) = node.kept(content)
    assert before.startswith(PREAMBLE)
    assert uid.encode() in before


@pytest.mark.parametrize(
    "magic",
    [b"\x7fELF\x02\x01\x01", b"MZ\x90\x00", b"PK\x03\x04", b"<html><script>", b"#!/bin/sh\n"],
)
def test_preamble_of_a_sender_begins_no_file(
    magic: bytes, node: GuardedNode, sender: Requestor
) -> None:
    """T17: a whole file with a preamble is no data set; where it is kept, it is behind ours."""
    uid = f"2.25.170{magic[0]}"
    polyglot = magic.ljust(128, b"\x90") + b"DICM" + data_set(uid, pixels=magic * 9)
    assert sender.store(uid, polyglot) in {CANNOT_UNDERSTAND, MISMATCH}
    assert not node.has(STUDY, uid)
    assert all(not path.read_bytes().startswith(magic) for path in node.files())
    assert all(before.startswith(PREAMBLE) for before in node.kept(polyglot))


# ---------------------------------------------------------------- T18, T19: hostile data sets


def test_deflated_bomb_is_answered_and_takes_no_memory(node: GuardedNode) -> None:
    """T18, as far as the listener looks: it inflates no more than a header's worth."""
    context = Context(id=5, abstract_syntax=CT_IMAGE_STORAGE, transfer_syntaxes=(DEFLATED,))
    deflate = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    head = data_set("2.25.181")[: -20 - 8]
    head += struct.pack("<HH2sHI", 0x0009, 0x1001, b"OB", 0, 1 << 30)
    bomb = deflate.compress(head)
    bomb += b"".join(deflate.compress(bytes(MIB)) for _ in range(512)) + deflate.flush()
    base = node.base()
    with associated(node.port, contexts=(context,)) as requestor:
        assert requestor.store("2.25.181", bomb, context=context.id) is not None
    assert node.footprint().peak - base.memory < 64 * MIB


@pytest.mark.parametrize("name", ["frames", "no rows", "huge fragment"])
def test_lies_about_pixels_are_not_believed_on_arrival(name: str, node: GuardedNode) -> None:
    """T18: pixels are looked at later, elsewhere, within limits; here they are bytes."""
    fragment = struct.pack("<HHI", 0xFFFE, 0xE000, 0) + struct.pack("<HHI", 0xFFFE, 0xE000, 1 << 31)
    encapsulated = struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OB", 0, 0xFFFFFFFF) + fragment
    more = {
        "frames": element(0x00280008, "IS", "2147483647"),
        "no rows": element(0x00280010, "US", bytes(2)),
        "huge fragment": b"",
    }[name]
    uid = f"2.25.182{len(name)}"
    content = data_set(uid)[:-12] + more + encapsulated
    context = Context(id=7, abstract_syntax=CT_IMAGE_STORAGE, transfer_syntaxes=(RLE,))
    base = node.base()
    with associated(node.port, contexts=(context,)) as requestor:
        assert requestor.store(uid, content, context=context.id) == 0
    assert node.footprint().peak - base.memory < 16 * MIB


def nested(depth: int) -> bytes:
    """Return sequences within items within sequences, opened and never closed."""
    opened = struct.pack("<HH2sHI", 0x0008, 0x1032, b"SQ", 0, 0xFFFFFFFF)
    return (opened + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)) * depth


HOSTILE: dict[str, Callable[[], bytes]] = {
    "elements": lambda: struct.pack("<HH2sH", 0x0008, 0x0001, b"SH", 0) * 1_000_000,
    "items": lambda: (
        struct.pack("<HH2sHI", 0x0008, 0x1032, b"SQ", 0, 0xFFFFFFFF)
        + struct.pack("<HHI", 0xFFFE, 0xE000, 0) * 1_000_000
        + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    ),
    "nesting": lambda: nested(5000),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_header_is_answered_while_another_association_goes_on(
    name: str, node: GuardedNode
) -> None:
    """T19: a million elements, a million items, 5,000 levels."""
    content = HOSTILE[name]()
    base = node.base()
    with associated(node.port) as hostile, associated(node.port, address=OTHER) as other:
        hostile.socket.settimeout(5)  # "an answer soon": a bound on hanging, not a measurement
        other.socket.settimeout(5)
        items = message(CT_CONTEXT.id, c_store_rq("2.25.19"), command=True)
        items += message(CT_CONTEXT.id, content, command=False)
        for number, item in enumerate(items):
            assert hostile.send(p_data(item))
            if number % 100 == 0:
                assert other.echo(number % 1000 + 1) == 0
        for number in range(20):
            assert other.echo(number + 1) == 0
        assert hostile.response() is not None
    assert node.footprint().peak - base.memory < 32 * MIB


def test_lying_element_length_is_refused(node: GuardedNode, sender: Requestor) -> None:
    """A header whose element ends behind the data set."""
    content = data_set("2.25.206")[:-12]
    content = content.replace(
        element(0x00100010, "PN", "Made^Up"), element(0x00100010, "PN", "Made^Up", length=60000)
    )
    assert sender.store("2.25.206", content) in {CANNOT_UNDERSTAND, MISMATCH}
    assert not node.has(STUDY, "2.25.206")
