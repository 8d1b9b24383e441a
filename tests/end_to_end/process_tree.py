"""Processes below a process, as /proc tells."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path
from typing import Final

STOPPING_SECONDS: Final = 0.005


def _parents() -> dict[int, tuple[int, str]]:
    """Return (parent, time of start) of every process that is no zombie."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it has ended
            if fields[0] != "Z":
                found[int(entry.name)] = int(fields[1]), fields[19]
    return found


def descendants(pid: int) -> dict[int, str]:
    """Return the processes below one, with their times of start."""
    parents = _parents()
    found: dict[int, str] = {}
    level = {pid}
    while level:
        level = {child for child, (parent, _) in parents.items() if parent in level}
        found |= {child: parents[child][1] for child in level}
    return found


def descriptors(pid: int) -> int:
    """Return how many descriptors a process has open."""
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def status(pid: int, name: str) -> int:
    """Return a number from /proc/PID/status: `VmRSS` in KiB, `Threads`."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0])
    return 0


def stop(process: subprocess.Popen[bytes] | None) -> None:
    """Stop every thread of a process where it is; one inside a system call, when that returns."""
    if process is not None:
        process.send_signal(signal.SIGSTOP)
        time.sleep(STOPPING_SECONDS)


def go_on(process: subprocess.Popen[bytes] | None) -> None:
    """Let a stopped process go on."""
    if process is not None:
        process.send_signal(signal.SIGCONT)


def all_stopped(process: subprocess.Popen[bytes] | None) -> bool:
    """Say whether no thread of a stopped process is inside a system call any more."""
    if process is None:
        return True
    tasks = Path(f"/proc/{process.pid}/task").glob("*/stat")
    return all(task.read_text().rpartition(")")[2].split()[0] == "T" for task in tasks)


class Descendants:
    """Remembers what ran below a process, to see that it ends with it."""

    def __init__(self) -> None:
        self._seen: set[tuple[int, str]] = set()

    def look(self, process: subprocess.Popen[bytes] | None) -> None:
        """Remember what runs below a process now."""
        if process is not None:
            self._seen |= set(descendants(process.pid).items())

    def left(self, seconds: float) -> int:
        """Wait until all that was seen has ended; return how many have not in that time."""
        until = time.monotonic() + seconds
        while True:
            running = {(pid, started) for pid, (_, started) in _parents().items()}
            self._seen &= running
            if not self._seen or time.monotonic() > until:
                return len(self._seen)
            time.sleep(0.1)
