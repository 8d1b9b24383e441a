"""The door that several processes share: one socket, and a ledger that each reads and writes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.listeners._shared_door import LENGTH, PAGE, Held, Ledger, SharedDoor

OTHER = """
import os, sys
from node.listeners._shared_door import Held, Ledger
ledger = Ledger.inherited(int(sys.argv[1]), 2)
with ledger.opened():
    ledger.note(associations={"10.0.0.1": 3}, connections={"10.0.0.1": 4})
    print("noted", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def door() -> Iterator[SharedDoor]:
    opened = SharedDoor.open("127.0.0.1", 0, 2)
    yield opened
    opened.close()


def other_process(door: SharedDoor) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", OTHER, str(door.ledger.descriptor)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=[door.ledger.descriptor],
        cwd=Path(__file__).parents[3],
    )


def test_what_one_process_notes_the_other_reads_until_it_is_cleared(door: SharedDoor) -> None:
    ours = Ledger.inherited(door.ledger.descriptor, 1)
    with other_process(door) as other:
        assert other.communicate()[0] == b"noted\n"
    with ours.opened() as others:
        assert others == [Held(associations={"10.0.0.1": 3}, connections={"10.0.0.1": 4})]
        assert others[0].total == 4
    door.ledger.clear(2)
    with ours.opened() as others:
        assert others == []


def test_a_process_that_dies_with_the_ledger_open_holds_nobody_up(door: SharedDoor) -> None:
    with other_process(door) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"noted\n"
        other.kill()
        with Ledger.inherited(door.ledger.descriptor, 1).opened() as others:
            assert others[0].associations == {"10.0.0.1": 3}


def test_a_page_that_was_torn_by_a_death_counts_for_nothing(door: SharedDoor) -> None:
    os.pwrite(door.ledger.descriptor, LENGTH.pack(50) + b'[3, {"10.0', PAGE)
    with Ledger.inherited(door.ledger.descriptor, 1).opened() as others:
        assert others == []


def test_what_is_noted_a_part_at_a_time_stands_as_a_whole(door: SharedDoor) -> None:
    first, second = (Ledger.inherited(door.ledger.descriptor, place) for place in (1, 2))
    with first.opened():
        first.note(associations={"::1": 1})
        first.note(connections={"::1": 2})
    assert first.noted(Held(associations={"::1": 1}, connections={"::1": 2}))
    assert not first.noted(Held(associations={"::1": 2}, connections={"::1": 2}))
    with second.opened() as others:
        assert others == [Held(associations={"::1": 1}, connections={"::1": 2})]


def test_a_listener_that_is_one_process_writes_nothing() -> None:
    ledger = Ledger.alone()
    with ledger.opened() as others:
        ledger.note(associations={"::1": 1})
        assert list(others) == []
    assert ledger.noted(Held(associations={"::1": 7}))


def test_a_connection_waits_in_the_door_until_a_process_takes_it(door: SharedDoor) -> None:
    listening, ledger = (os.dup(descriptor) for descriptor in door.descriptors)
    inherited = SharedDoor.inherited((listening, ledger), 1)
    with socket.create_connection(door.listening.getsockname()) as waiting:
        taken, address = inherited.listening.accept()
        with taken:
            assert address == waiting.getsockname()
    with pytest.raises(BlockingIOError):  # another process was quicker
        inherited.listening.accept()
    inherited.close()
    socket.create_connection(door.listening.getsockname()).close()  # the others' end is open


def test_a_port_that_another_program_has_is_noticed(door: SharedDoor) -> None:
    with pytest.raises(OSError, match="in use"):
        SharedDoor.open("127.0.0.1", door.listening.getsockname()[1], 2)


def test_a_door_can_be_had_on_ipv6() -> None:
    door = SharedDoor.open("::1", 0, 1)
    assert door.listening.family == socket.AF_INET6
    door.close()
