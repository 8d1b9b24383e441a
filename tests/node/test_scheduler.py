from __future__ import annotations

import threading
from datetime import datetime, timedelta

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


def test_a_stop_waits_for_the_sweep_in_hand_which_may_say_what_is_due_next() -> None:
    inside, go_on = threading.Event(), threading.Event()
    ended: list[str] = []

    def sweep() -> None:
        inside.set()
        go_on.wait(PATIENCE)
        ended.append("sweep")

    def due() -> datetime:
        return system_clock() + timedelta(seconds=0.01)

    def stop() -> None:
        scheduler.stop()
        ended.append("stop")

    scheduler = Scheduler((Sweep(name="x", seconds=0.1, run=sweep, due=due),))
    scheduler.start()
    assert inside.wait(PATIENCE)
    stopping = threading.Thread(target=stop)
    stopping.start()
    stopping.join(0.3)
    assert ended == []  # the sweep is still in hand
    go_on.set()
    stopping.join(PATIENCE)
    assert not stopping.is_alive()
    assert ended == ["sweep", "stop"]
