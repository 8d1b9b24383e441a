"""The door that several processes of one listener share: a socket, and a ledger of who holds what.

Both are opened once, by the node, and inherited. There is one listening socket, not one each: a
connection that waits in it is lost with none of them, whoever is free takes it, and a port that
another program has is noticed. The ledger is a file without a name, with a page for each process,
so that limits hold over all of them; the page of one that died is cleared by the node.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import struct
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Final

PAGE: Final = 1 << 20
"""Room for the addresses of some 20,000 connections; what is not written takes no memory."""
LENGTH: Final = struct.Struct("<I")
BACKLOG: Final = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What one process holds: associations and connections, by the address they come from."""

    associations: Mapping[str, int] = field(default_factory=dict)
    connections: Mapping[str, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """How many connections there are."""
        return sum(self.connections.values())


class Ledger:
    """What every process holds; each writes its own page. Alone, nothing is written at all."""

    def __init__(self, descriptor: int, place: int, places: int) -> None:
        """Use a ledger as the process of that place, from 1; 0 is the node, which has no page."""
        self.descriptor = descriptor
        self._place = place
        self._places = places
        self._lock = threading.Lock()
        self._held = Held()

    @classmethod
    def alone(cls) -> Ledger:
        """Return the ledger of a listener that is one process."""
        return cls(-1, 1, 1)

    @classmethod
    def make(cls, places: int) -> Ledger:
        """Make, in the node, the ledger of so many processes."""
        descriptor = os.memfd_create("wetread-associations", os.MFD_CLOEXEC)
        os.ftruncate(descriptor, places * PAGE)
        return cls(descriptor, 0, places)

    @classmethod
    def inherited(cls, descriptor: int, place: int) -> Ledger:
        """Take over, in a process, the ledger that the node made."""
        return cls(descriptor, place, os.fstat(descriptor).st_size // PAGE)

    @contextmanager
    def opened(self) -> Iterator[Sequence[Held]]:
        """Keep every other thread and process away; give what the other processes hold.

        The kernel lets go of the lock of a process that dies.
        """
        with self._lock:
            if self._alone:
                yield ()
                return
            fcntl.lockf(self.descriptor, fcntl.LOCK_EX)
            try:
                yield self._others()
            finally:
                fcntl.lockf(self.descriptor, fcntl.LOCK_UN)

    def note(
        self,
        *,
        associations: Mapping[str, int] | None = None,
        connections: Mapping[str, int] | None = None,
    ) -> None:
        """Write down what this process holds now, while the ledger is open."""
        held = self._held
        if associations is not None:
            held = replace(held, associations=associations)
        if connections is not None:
            held = replace(held, connections=connections)
        if not self._alone:
            self._write(self._place, json.dumps([held.associations, held.connections]).encode())
        self._held = held

    def noted(self, held: Held) -> bool:
        """Say whether this is what was written last."""
        return self._alone or held == self._held

    def clear(self, place: int) -> None:
        """Forget what a process held that is gone."""
        with self.opened():
            self._write(place, b"")

    def close(self) -> None:
        """Let go of the file."""
        os.close(self.descriptor)

    @property
    def _alone(self) -> bool:
        return self.descriptor < 0

    def _others(self) -> list[Held]:
        pages = (self._read(place) for place in range(1, self._places + 1) if place != self._place)
        return [page for page in pages if page is not None]

    def _write(self, place: int, content: bytes) -> None:
        os.pwrite(self.descriptor, LENGTH.pack(len(content)) + content, (place - 1) * PAGE)

    def _read(self, place: int) -> Held | None:
        """Return a page; None where nobody is, or where one died while it wrote."""
        start = (place - 1) * PAGE
        (length,) = LENGTH.unpack(os.pread(self.descriptor, LENGTH.size, start))
        content = os.pread(self.descriptor, min(length, PAGE), start + LENGTH.size)
        try:
            associations, connections = json.loads(content)
        except ValueError:
            return None
        return Held(associations=associations, connections=connections)


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedDoor:
    """The listening socket and the ledger."""

    listening: socket.socket
    ledger: Ledger

    @classmethod
    def open(cls, host: str, port: int, places: int) -> SharedDoor:
        """Listen; connections wait until a process takes them.

        Raises:
            OSError: the address cannot be had.
        """
        found = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, kind, _, _, address = min(found, key=lambda item: item[0] != socket.AF_INET)
        listening = socket.socket(family, kind)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen(BACKLOG)
        except OSError:
            listening.close()
            raise
        listening.setblocking(False)  # another process may be quicker
        return cls(listening=listening, ledger=Ledger.make(places))

    @classmethod
    def inherited(cls, descriptors: Sequence[int], place: int) -> SharedDoor:
        """Take over in a process what was opened in the node."""
        listening, ledger = descriptors
        door = socket.socket(fileno=listening)
        door.setblocking(False)
        return cls(listening=door, ledger=Ledger.inherited(ledger, place))

    @property
    def descriptors(self) -> tuple[int, int]:
        """What a process inherits."""
        return self.listening.fileno(), self.ledger.descriptor

    def close(self) -> None:
        """Close this process's end; the others' stay open."""
        self.listening.close()
        self.ledger.close()
