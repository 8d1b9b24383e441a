"""Who may send more: watermarks of the disk, and quotas that keep one source from filling it.

A source that floods is told 0xA700, and may go on by itself when what it sent has been read; the
others, and above all those marked urgent, do not notice it (A22).
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from node.interfaces import OutOfResources, Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Watermarks:
    """Bytes. All of free disk, but `quota_bytes`: what one source may have waiting; 0: no limit."""

    reserve_bytes: int  # below: nobody is taken from
    resume_bytes: int  # after a refusal: from here on again
    urgent_bytes: int  # between reserve and this: only urgent sources
    quota_bytes: int = 0


class Quotas:
    """Says before each write whether it may be."""

    def __init__(
        self,
        watermarks: Watermarks,
        *,
        free_bytes: Callable[[], int],
        waiting: Callable[[], Mapping[str, int]] = dict,
        look_again_seconds: float = 0.02,
    ) -> None:
        """Ask for free disk and for what waits; the first at most every `look_again_seconds`."""
        self._look_again_seconds = look_again_seconds
        self._watermarks = watermarks
        self._free_bytes = free_bytes
        self._ask_waiting = waiting
        self._lock = threading.Lock()
        self._waiting: Mapping[str, int] = {}
        self._since: dict[str, int] = {}
        self._full = False
        self._free = 0
        self._asked = -math.inf

    def refresh(self) -> None:
        """Look up what waits; what comes in until the next look is added to it."""
        if not self._watermarks.quota_bytes:
            return
        waiting = self._ask_waiting()
        with self._lock:
            self._waiting = waiting
            self._since = {}

    def took(self, source: Source, size: int) -> None:
        """Count what was taken from a source."""
        if not self._watermarks.quota_bytes:
            return
        with self._lock:
            self._since[source.calling_ae] = self._since.get(source.calling_ae, 0) + size

    def check(self, source: Source) -> None:
        """Refuse a write that may not be.

        Raises:
            OutOfResources: with the limit that was met.
        """
        self.check_disk(source)
        quota = self._watermarks.quota_bytes
        if quota and not source.urgent and self._used(source.calling_ae) >= quota:
            raise OutOfResources("this sender has reached its quota of unread studies")

    def check_disk(self, source: Source) -> None:
        """Refuse a sender for which the disk has no room, whatever its quota.

        Raises:
            OutOfResources: with the watermark that was met.
        """
        marks, free = self._watermarks, self._free_just_now()
        if free < (marks.resume_bytes if self._full else marks.reserve_bytes):
            self._full = True
            raise OutOfResources("the disk is full up to the reserve for studies in flight")
        self._full = False
        if not source.urgent and free < marks.urgent_bytes:
            raise OutOfResources("the disk is full up to the reserve for urgent senders")

    @property
    def full(self) -> bool:
        """Say whether everything is refused just now."""
        return self._full or self._free_just_now() < self._watermarks.reserve_bytes

    def _free_just_now(self) -> int:
        now = time.monotonic()
        if now - self._asked >= self._look_again_seconds:
            self._asked, self._free = now, self._free_bytes()
        return self._free

    def _used(self, calling_ae: str) -> int:
        with self._lock:
            return self._waiting.get(calling_ae, 0) + self._since.get(calling_ae, 0)
