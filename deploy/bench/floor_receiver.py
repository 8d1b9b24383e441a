"""The receiver of floor.py, a program of its own so that its memory is a bare Python's.

python deploy/bench/floor_receiver.py PORT BYTES COUNT FILE SYNC(0|1)

It connects, writes COUNT items of BYTES bytes each into FILE, answers each with one byte, and
prints [CPU seconds, largest resident set in bytes] as JSON.
"""

from __future__ import annotations

import os
import resource
import socket
import sys
from pathlib import Path
from typing import Final

BUFFER_BYTES: Final = 1 << 20
ACKNOWLEDGEMENT: Final = b"\x01"


def receive(port: int, size: int, count: int, path: Path, *, synced: bool) -> float:
    """Write `count` items of `size` bytes to a file; return the CPU seconds that took."""
    view = memoryview(bytearray(BUFFER_BYTES))
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        before = resource.getrusage(resource.RUSAGE_SELF)
        connection.send(ACKNOWLEDGEMENT)
        for _ in range(count):
            left = size
            while left:
                got = connection.recv_into(view, min(left, BUFFER_BYTES))
                if not got:
                    raise ConnectionError("the sender went away")
                os.write(descriptor, view[:got])
                left -= got
            if synced:
                os.fdatasync(descriptor)
            connection.send(ACKNOWLEDGEMENT)
        after = resource.getrusage(resource.RUSAGE_SELF)
    os.close(descriptor)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Receive as the arguments say, and tell what it took."""
    port, size, count, path, synced = sys.argv[1:]
    cpu = receive(int(port), int(size), int(count), Path(path), synced=synced == "1")
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    peak = 1024 * int(status.partition("VmHWM:")[2].split()[0])
    sys.stdout.write(f"[{cpu!r}, {peak}]\n")


if __name__ == "__main__":
    main()
