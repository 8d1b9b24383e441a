"""How many messages other than C-STORE a sender may send: each costs a transaction."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

MOST_SENDERS: Final = 10_000
"""How many are told apart; whoever was silent longest is forgotten first."""
BYTES_OF_ONE: Final = 64 << 10
"""A longer message counts for as many as it has of these: reading it costs that much more."""
MINUTE: Final = 60.0


class MessageRate:
    """Lets a sender have so many messages a minute, as many at once, and the rest one by one."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = float(per_minute)
        self._clock = clock
        self._lock = threading.Lock()
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def admits(self, sender: str, size: int) -> bool:
        """Count a message of `size` bytes; say whether it may still be taken."""
        cost = 1.0 + size // BYTES_OF_ONE
        now = self._clock()
        with self._lock:
            left, since = self._left.pop(sender, (self._most, now))
            left = min(self._most, left + (now - since) * self._most / MINUTE)
            admitted = left >= min(cost, self._most)
            self._left[sender] = (max(left - cost, 0.0) if admitted else left, now)
            if len(self._left) > MOST_SENDERS:
                self._left.popitem(last=False)
        return admitted
