"""What a stranger can do to the door on the web: endless, lying, silent, cut off; all bounded."""

from __future__ import annotations

import itertools
import threading
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from node.listeners.dicomweb import DicomwebListener
from tests.factories import make_ct_series
from tests.node.listeners.posting import (
    END,
    answer_on,
    body_of,
    head_of,
    listening,
    part,
    post,
    reasons,
    stored,
    wire_to,
)
from tests.node.listeners.receiving import KeepingIngest, eventually, sop_instance_uids


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return make_ct_series(tmp_path_factory.mktemp("ct"), slices=3, rows=64, columns=64)


@pytest.fixture
def ingest() -> KeepingIngest:
    return KeepingIngest()


@pytest.fixture
def listener(ingest: KeepingIngest) -> Iterator[DicomwebListener]:
    with listening(ingest, max_request_mib=8, max_parts=3) as found:
        yield found


def works(listener: DicomwebListener, files: list[Path]) -> bool:
    return post(listener, body_of(files)).status_code == 200


def test_an_endless_part_ends_at_the_limit_and_memory_stays_flat(
    ingest: KeepingIngest, listener: DicomwebListener, files: list[Path]
) -> None:
    """T05, T36: chunked, so that nobody told its length."""
    ingest.keep = False
    start = part(files[0].read_bytes())[:-2]
    tracemalloc.start()
    try:
        answer = post(listener, itertools.chain([start], itertools.repeat(bytes(1 << 16), 200)))
        assert answer.status_code == 413
        assert reasons(answer) == [0x0110]
    except httpx.TransportError:
        pass  # cut off before it had sent everything
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 << 20
    assert ingest.abandoned == 1
    assert eventually(lambda: len(ingest.closed) == 1)
    assert not ingest.kept


def test_a_length_above_the_limit_is_refused_before_a_byte_of_it(
    ingest: KeepingIngest, listener: DicomwebListener
) -> None:
    """T36: huge Content-Length."""
    with wire_to(listener) as wire:
        wire.sendall(head_of(str(1 << 40), "Expect: 100-continue"))
        answer = answer_on(wire)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert not ingest.opened


def test_more_parts_than_allowed_are_refused_and_those_before_told(
    ingest: KeepingIngest, listener: DicomwebListener, files: list[Path]
) -> None:
    answer = post(listener, body_of([*files, files[0]]))
    assert answer.status_code == 413
    assert stored(answer) == sop_instance_uids(files)
    assert len(ingest.kept) == 3


@pytest.mark.parametrize("keep", [0.3, 0.9])
def test_a_sender_that_vanishes_leaves_only_what_was_whole(
    keep: float, ingest: KeepingIngest, listener: DicomwebListener, files: list[Path]
) -> None:
    """T11, over the web: the connection is cut within a part."""
    body = body_of(files)
    with wire_to(listener) as wire:
        wire.sendall(head_of(str(len(body))) + body[: int(len(body) * keep)])
    assert eventually(lambda: ingest.closed == [True])
    assert set(ingest.kept) == set(sop_instance_uids(files)[: int(3 * keep)])
    assert ingest.abandoned == 1
    assert works(listener, files)


def test_a_length_that_is_too_short_ends_the_request_and_the_rest_is_no_request(
    ingest: KeepingIngest, listener: DicomwebListener, files: list[Path]
) -> None:
    """Lying Content-Length: what lies behind is not taken for a next request's parts."""
    body = body_of(files)
    with wire_to(listener) as wire:
        wire.sendall(head_of(str(len(body) // 2)) + body)
        answer = answer_on(wire)
    assert answer.startswith(b"HTTP/1.1 202 ")
    assert len(ingest.kept) == 1
    assert works(listener, files)


def test_a_length_that_is_too_long_ends_at_the_time_out(
    ingest: KeepingIngest, listener: DicomwebListener, files: list[Path]
) -> None:
    body = body_of(files[:1])
    with wire_to(listener) as wire:
        wire.sendall(head_of(str(len(body) + 1000)) + body)
        assert eventually(lambda: ingest.closed == [True], seconds=8)
    assert works(listener, files)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (END, 400),
        (b"--y\r\n\r\nx\r\n--y--\r\n", 400),
        (b"no boundary at all" * 100, 400),
        (b"--x\r\n" + b"A: b\r\n" * 100, 400),
        (b"--x\r\nA: " + b"b" * 100_000, 400),
        (b"--x\r\n\xff\xfe: \x00\r\n\r\nx\r\n--x--\r\n", 400),
        (b"--x\r\n\r\n", 400),
        (b"\r\n" * 100_000, 400),
    ],
)
def test_bodies_that_are_none_are_refused(
    body: bytes, status: int, ingest: KeepingIngest, listener: DicomwebListener, files: list[Path]
) -> None:
    """T36: missing boundary, endless headers, truncated."""
    assert post(listener, body).status_code == status
    assert not ingest.kept
    assert works(listener, files)


def test_a_body_that_ends_early_keeps_what_was_whole_and_says_so(
    ingest: KeepingIngest, listener: DicomwebListener, files: list[Path]
) -> None:
    answer = post(listener, body_of(files)[: -len(END) - 1000])
    assert answer.status_code == 202
    assert stored(answer) == sop_instance_uids(files[:2])
    assert reasons(answer) == [0x0110]
    assert ingest.abandoned == 1


@pytest.mark.parametrize(
    "raw",
    [
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"A" * 100_000,
        b"POST / HTTP/1.1\r\n" + b"A: b\r\n" * 10_000,
        b"POST /dicom-web/studies HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"POST /dicom-web/studies HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        head_of("1", "Content-Length: 2") + b"12",
        b"\x00" * 1000,
        b"\r\n\r\n\r\n",
        head_of("", "Transfer-Encoding: chunked") + b"zz\r\n",
        head_of("5", "Transfer-Encoding: gzip, chunked") + b"zz\r\n",
    ],
)
def test_what_is_no_request_is_turned_away(
    raw: bytes, listener: DicomwebListener, ingest: KeepingIngest, files: list[Path]
) -> None:
    """T09, over the web: TLS on a plain port, random bytes, smuggling."""
    with wire_to(listener) as wire:
        wire.sendall(raw)
        found = answer_on(wire)
    assert not found or found.startswith(b"HTTP/1.1 4")
    assert not ingest.kept
    assert works(listener, files)


def test_silent_and_dripping_connections_hold_up_nobody_and_end(
    ingest: KeepingIngest, files: list[Path]
) -> None:
    """T01, T02, over the web: heads that never end, from one address; others get in."""
    with listening(
        ingest, max_connections_per_address=4, max_connections=6, head_seconds=1.0
    ) as listener:
        before = threading.active_count()
        held = [wire_to(listener) for _ in range(4)]
        wires = [item.__enter__() for item in held]
        for wire in wires[2:]:
            wire.sendall(b"POST /dicom-web/st")
        with wire_to(listener) as more:
            assert answer_on(more) == b""  # at once: the address has as many as it may
        assert eventually(lambda: threading.active_count() <= before, seconds=6)
        for item in held:
            item.__exit__(None, None, None)
        assert works(listener, files)


def test_a_body_that_drips_ends_at_the_time_for_a_request(
    ingest: KeepingIngest, files: list[Path]
) -> None:
    with listening(ingest, total_seconds=1.0) as listener, wire_to(listener) as wire:
        wire.sendall(head_of("100000") + b"--x\r\n\r\n")
        start = time.monotonic()
        try:
            while time.monotonic() - start < 6:
                wire.sendall(b"-")
                time.sleep(0.2)
        except OSError:
            pass
        assert time.monotonic() - start < 5
        assert eventually(lambda: ingest.closed == [True])
        assert works(listener, files)


def test_what_is_under_way_at_a_stop_ends_well(ingest: KeepingIngest, files: list[Path]) -> None:
    """T31, over the web."""
    body = body_of(files)
    answers: list[int] = []

    def slowly() -> Iterator[bytes]:
        yield body[:1000]
        time.sleep(0.5)
        yield body[1000:]

    with listening(ingest, grace_seconds=10) as listener:
        sender = threading.Thread(
            target=lambda: answers.append(post(listener, slowly()).status_code)
        )
        sender.start()
        assert eventually(lambda: bool(ingest.opened))
    sender.join(10)
    assert answers == [200]
    assert len(ingest.kept) == 3


def test_a_slow_disk_slows_the_sender_down(files: list[Path]) -> None:
    """Nothing is read ahead of what the intake has taken, beyond the buffers of the system."""

    class SlowIngest(KeepingIngest):
        def __init__(self) -> None:
            super().__init__()
            self.go_on = threading.Event()

    ingest = SlowIngest()
    write = ingest.open

    def opened(source: object) -> object:
        intake = write(source)  # type: ignore[arg-type]
        take = intake.write
        intake.write = lambda pieces: (ingest.go_on.wait(10), take(pieces))[1]  # type: ignore[method-assign]
        return intake

    ingest.open = opened  # type: ignore[method-assign,assignment]
    sent = 0

    def counted() -> Iterator[bytes]:
        nonlocal sent
        yield part(files[0].read_bytes())[:-2]
        for _ in range(1000):
            sent += 1 << 16
            yield bytes(1 << 16)
        yield b"\r\n" + END

    with listening(ingest, network_seconds=15) as listener:
        sender = threading.Thread(target=lambda: post(listener, counted()))
        sender.start()
        time.sleep(1)
        assert sent < 32 << 20
        ingest.go_on.set()
        sender.join(20)
    assert len(ingest.kept) == 1
