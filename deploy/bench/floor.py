# ruff: noqa: S603 - a program, in no package; it starts itself as the receiver
"""The physical floor of ingest: bytes from a loopback socket into a file, a byte back per item.

python deploy/bench/floor.py [--kinds ct,mr,dx] [--associations N] [--count N] [--repetitions N] ...

No DICOM, no header, no index: a connection has one process with one buffer, `recv_into` and
`write` into one file, and with --sync an `fdatasync` before the byte back. What a storage SCP in
Python takes beyond this is its own.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Final

from hygiene import MEMORY, warm_memory
from objects import KINDS, Template, make_template

ACKNOWLEDGEMENT: Final = b"\x01"
PATIENCE_SECONDS: Final = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class FloorRun:
    """What it took: seconds at the sender, CPU seconds and peak bytes of the receiver."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int


def measure_floor(
    template: Template, counts: Sequence[int], folder: Path, *, synced: bool
) -> FloorRun:
    """Send the bytes of an image over as many connections as there are counts, so often over each.

    Each has a receiver of its own, a process that writes to a file of its own.
    """
    context = multiprocessing.get_context("fork")
    standing = context.Barrier(len(counts))
    ends = []
    for number, count in enumerate(counts):
        end, other = context.Pipe(duplex=False)
        lane = _Lane(template, count, folder / f"floor-{number}", standing, synced)
        context.Process(target=lane.measure, args=(other,), daemon=True).start()
        other.close()
        ends.append(end)
    runs = [_told(end) for end in ends]
    return FloorRun(
        seconds=max(run.ended for run in runs) - min(run.started for run in runs),
        cpu_seconds=sum(run.cpu_seconds for run in runs),
        peak_bytes=sum(run.peak_bytes for run in runs),
    )


@dataclass(frozen=True, slots=True)
class _LaneRun:
    """When the first byte left and the last answer came, and what the receiver took."""

    started: float
    ended: float
    cpu_seconds: float
    peak_bytes: int


def _told(end: Connection) -> _LaneRun:
    with end:
        try:
            run: _LaneRun = end.recv()
        except EOFError:
            raise RuntimeError("a connection of the floor failed; see above") from None
    return run


@dataclass(frozen=True, slots=True)
class _Lane:
    """One connection: its sender, a process of its own, and the receiver that this starts."""

    template: Template
    count: int
    path: Path
    standing: Barrier
    synced: bool

    def measure(self, end: Connection) -> None:
        """Send, wait for the receiver to end, and tell what it took."""
        size, count = self.template.size, self.count
        with socket.create_server(("127.0.0.1", 0)) as listener:
            job = [str(listener.getsockname()[1]), str(size), str(count), str(self.path)]
            program = Path(__file__).with_name("floor_receiver.py")
            command = [sys.executable, "-S", str(program), *job, str(int(self.synced))]
            with subprocess.Popen(command, stdout=subprocess.PIPE) as receiver:
                connection, _ = listener.accept()
                with connection:
                    started, ended = _send(connection, self.template, count, self.standing)
                told, _ = receiver.communicate()
        written = self.path.stat().st_size
        self.path.unlink()
        if written != size * count:
            raise RuntimeError(f"the floor wrote {written} bytes of {size * count}")
        end.send(_LaneRun(started, ended, *json.loads(told)))


def _send(
    connection: socket.socket, template: Template, count: int, standing: Barrier
) -> tuple[float, float]:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    content = memoryview(template.path.read_bytes())[template.data_set :]
    connection.recv(1)  # the receiver has its buffer and its file
    standing.wait(PATIENCE_SECONDS)
    started = time.monotonic()
    for _ in range(count):
        connection.sendall(content)
        if connection.recv(1) != ACKNOWLEDGEMENT:
            raise ConnectionError("the receiver went away")
    return started, time.monotonic()


def main() -> None:
    """Measure and print the floor for each kind of image, medians of the repetitions."""
    parser = argparse.ArgumentParser(description="The physical floor of ingest.")
    parser.add_argument("--kinds", default=",".join(KINDS), help="of: %(default)s")
    parser.add_argument("--count", type=int, help="items in a run (default: by kind)")
    parser.add_argument("--associations", type=int, default=1, help="connections side by side")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--root", type=Path, help="where to write (default: /dev/shm)")
    parser.add_argument("--sync", action="store_true", help="fdatasync before each answer")
    chosen = parser.parse_args()
    sys.stdout.write("kind        MB   items/s   CPU ms/item   s/GB   peak MB\n")
    with tempfile.TemporaryDirectory(prefix="wetread-floor-", dir=chosen.root or MEMORY) as folder:
        for name in chosen.kinds.split(","):
            template = make_template(name, Path(folder))
            each = -(-(chosen.count or KINDS[name].count) // chosen.associations)
            count = each * chosen.associations
            warm_memory(count * template.size)
            runs = [
                measure_floor(
                    template, [each] * chosen.associations, Path(folder), synced=chosen.sync
                )
                for _ in range(chosen.repetitions)
            ]
            cpu = statistics.median(run.cpu_seconds for run in runs) / count
            rate = count / statistics.median(run.seconds for run in runs)
            peak = max(run.peak_bytes for run in runs)
            sys.stdout.write(
                f"{name:6} {template.size / 1e6:7.2f} {rate:9.0f} {1e3 * cpu:13.3f} "
                f"{cpu / template.size * 1e9:6.2f} {peak / 1e6:9.0f}\n"
            )


if __name__ == "__main__":
    main()
