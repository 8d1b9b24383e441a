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
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
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
    with ThreadPoolExecutor(len(counts)) as lanes:
        runs = list(
            lanes.map(
                lambda lane: _lane(
                    template, lane[1], folder / f"floor-{lane[0]}", standing, synced
                ),
                enumerate(counts),
            )
        )
    started, ended = min(run[0] for run in runs), max(run[1] for run in runs)
    return FloorRun(
        seconds=ended - started,
        cpu_seconds=sum(run[2] for run in runs),
        peak_bytes=sum(run[3] for run in runs),
    )


def _lane(
    template: Template, count: int, path: Path, standing: Barrier, synced: bool
) -> tuple[float, float, float, int]:
    """Return when the first byte left and the last answer came, and CPU and peak memory."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        job = [str(listener.getsockname()[1]), str(template.size), str(count), str(path)]
        program = Path(__file__).with_name("floor_receiver.py")
        command = [sys.executable, "-S", str(program), *job, str(int(synced))]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as receiver:
            connection, _ = listener.accept()
            with connection:
                started, ended = _send_apart(connection, template, count, standing)
            told, _ = receiver.communicate()
    written = path.stat().st_size
    path.unlink()
    if written != template.size * count:
        raise RuntimeError(f"the floor wrote {written} bytes of {template.size * count}")
    cpu_seconds, peak_bytes = json.loads(told)
    return started, ended, cpu_seconds, peak_bytes


def _send_apart(
    connection: socket.socket, template: Template, count: int, standing: Barrier
) -> tuple[float, float]:
    """Send from a process of its own, as the fast sender does."""
    context = multiprocessing.get_context("fork")
    end, other = context.Pipe(duplex=False)
    worker = context.Process(
        target=lambda: other.send(_send(connection, template, count, standing)), daemon=True
    )
    worker.start()
    other.close()
    with end:
        try:
            times: tuple[float, float] = end.recv()
        except EOFError:
            raise ConnectionError("a sender ended without a word") from None
        finally:
            worker.join()
    return times


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
