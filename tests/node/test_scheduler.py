from __future__ import annotations

import threading
from datetime import timedelta

from node.clock import system_clock
from node.scheduler import Scheduler, Sweep

PATIENCE = 20.0


def test_a_sweep_comes_when_something_is_due_before_its_time() -> None:
    came: list[float] = []
    twice = threading.Event()
    due = [timedelta(seconds=0.2), timedelta(seconds=7200)]
    started = system_clock()

    def sweep() -> None:
        came.append((system_clock() - started).total_seconds())
        if len(came) > 1:
            twice.set()

    scheduler = Scheduler(
        (Sweep(name="x", seconds=2, run=sweep, due=lambda: system_clock() + due.pop(0)),)
    )
    scheduler.start()
    try:
        assert twice.wait(PATIENCE)
    finally:
        scheduler.stop()
    assert 0.2 <= came[1] - came[0] < 2


def test_a_sweep_without_anything_due_comes_at_its_time() -> None:
    came = threading.Semaphore(0)
    scheduler = Scheduler((Sweep(name="x", seconds=0.1, run=came.release),))
    scheduler.start()
    try:
        assert all(came.acquire(timeout=PATIENCE) for _ in range(3))
    finally:
        scheduler.stop()
