"""A ring is heard by whoever waits, also if it came just before."""

from __future__ import annotations

import threading
import time

from node.bell import Bell


def test_a_ring_between_looking_and_waiting_is_not_lost() -> None:
    bell = Bell()
    heard = bell.rings
    bell.ring()
    began = time.monotonic()
    bell.wait(heard, 60)
    assert time.monotonic() - began < 30


def test_everybody_who_waits_is_woken() -> None:
    bell, woken = Bell(), threading.Barrier(4)

    def wait() -> None:
        bell.wait(0, 60)
        woken.wait(30)

    threads = [threading.Thread(target=wait, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    bell.ring()
    woken.wait(30)


def test_without_a_ring_the_wait_ends_by_itself() -> None:
    bell = Bell()
    bell.wait(bell.rings, 0.01)
    assert bell.rings == 0
