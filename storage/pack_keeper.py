"""Keeps packs ready and flushed, in the background."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from storage.errors import StorageError
from storage.packs import PackStore

PAUSE_SECONDS: Final = 0.2
AFTER_ERROR_SECONDS: Final = 5.0


class PackKeeper:
    """A thread that writes spare packs in advance, or syncs records behind their acknowledgement.

    Args:
        packs: the store.
        spares: how many packs are to lie ready; 0 for none.
        flush_seconds: how often finished records are synced; None where each is synced before it
            is acknowledged.
        room: says whether the disk has room for one more spare.
        tell: the caller's log; told of errors.
    """

    def __init__(
        self,
        packs: PackStore,
        *,
        spares: int,
        flush_seconds: float | None,
        room: Callable[[], bool],
        tell: Callable[[str], None],
    ) -> None:
        self._packs = packs
        self._spares = spares
        self._flush_seconds = flush_seconds
        self._room = room
        self._tell = tell
        self._running = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pack-keeper", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._running.set()
        self._thread.start()

    def stop(self) -> None:
        """Flush once more and end."""
        self._running.clear()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while self._running.is_set():
            try:
                self._once()
                pause = PAUSE_SECONDS if self._flush_seconds is None else self._flush_seconds
            except StorageError as error:
                self._tell(str(error))
                pause = AFTER_ERROR_SECONDS
            until = time.monotonic() + pause
            while self._running.is_set() and time.monotonic() < until:
                time.sleep(min(PAUSE_SECONDS, pause))
        try:
            self._packs.flush()
        except StorageError as error:
            self._tell(str(error))

    def _once(self) -> None:
        if self._flush_seconds is not None:
            self._packs.flush()
        elif self._packs.spare_count() < self._spares and self._room():
            self._packs.prepare_spare(self._running)
