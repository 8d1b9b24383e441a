"""CPU time and memory of a process with all that it has started, out of /proc (proc(5))."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK")
PROC: Final = Path("/proc")
FORGET_PEAK: Final = "5"  # written to clear_refs: VmHWM begins anew
PARENT, FIRST_TIME, LAST_TIME = 1, 11, 15
"""Places in a stat line after the name of the program: ppid; utime, stime, cutime, cstime."""
IDLE_SECONDS: Final = 0.25
IDLE_TICKS: Final = 1


def cpu_seconds(root: int) -> float:
    """Return user and system time of a process, what it started, and what of that has ended."""
    stats = _stats()
    ticks = sum(sum(stats[number][FIRST_TIME:LAST_TIME]) for number in _tree(root, stats))
    return ticks / TICKS_PER_SECOND


def peak_bytes(root: int) -> dict[int, int]:
    """Return by process the largest resident sets (VmHWM) since they were last forgotten."""
    return {number: _high_water(number) for number in _tree(root, _stats())}


def forget_peaks(root: int) -> None:
    """Let the largest resident sets begin anew."""
    for number in _tree(root, _stats()):
        try:
            (PROC / str(number) / "clear_refs").write_text(FORGET_PEAK, encoding="ascii")
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended


def wait_idle(root: int, patience_seconds: float = 30.0) -> float:
    """Wait until a tree of processes uses no CPU time to speak of; return its CPU seconds then."""
    until = time.monotonic() + patience_seconds
    before = cpu_seconds(root)
    while time.monotonic() < until:
        time.sleep(IDLE_SECONDS)
        now = cpu_seconds(root)
        if (now - before) * TICKS_PER_SECOND <= IDLE_TICKS + 0.5:
            return now
        before = now
    return before


def _stats() -> dict[int, list[int]]:
    """Return by process the numbers of its stat line, from the parent's on; zombies are there."""
    return dict(_each_stat())


def _each_stat() -> Iterator[tuple[int, list[int]]]:
    for folder in PROC.iterdir():
        if folder.name.isdigit():
            try:
                line = (folder / "stat").read_text(encoding="utf-8", errors="replace")
            except (FileNotFoundError, ProcessLookupError):
                continue
            fields = line.rpartition(")")[2].split()
            yield int(folder.name), [0, *(int(text) for text in fields[1:LAST_TIME])]


def _tree(root: int, stats: dict[int, list[int]]) -> list[int]:
    found = [root] if root in stats else []
    for parent in found:
        found += [number for number, fields in stats.items() if fields[PARENT] == parent]
    return found


def _high_water(number: int) -> int:
    try:
        lines = (PROC / str(number) / "status").read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    sizes = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return 1024 * int(sizes[0]) if sizes else 0
