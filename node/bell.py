"""Wakes those who wait for work as soon as there is some; looking now and then is the fall-back."""

from __future__ import annotations

import threading
import time


class Bell:
    """Counts its rings, so that one which comes between looking and waiting is not lost."""

    def __init__(self) -> None:
        self._rings = 0
        self._changed = threading.Condition()

    @property
    def rings(self) -> int:
        """How often it has rung."""
        return self._rings

    def ring(self) -> None:
        """Wake everybody who waits."""
        with self._changed:
            self._rings += 1
            self._changed.notify_all()

    def wait(self, heard: int, seconds: float) -> None:
        """Wait for a ring after the `heard` ones, but no longer than some seconds."""
        until = time.monotonic() + seconds
        with self._changed:
            while self._rings == heard and (left := until - time.monotonic()) > 0:
                self._changed.wait(left)
