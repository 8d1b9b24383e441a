"""Quarantine of engines: one that fails on study after study rests, and proves itself again (A13).

While an engine rests its jobs wait; nothing is tried, and nothing is lost. Then its golden case is
run again: passed, it takes jobs, but one more failure sends it back; not passed, it rests on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

import structlog

from node.clock import Clock
from storage.states import ErrorClass

COUNTED: Final = frozenset(ErrorClass) - {ErrorClass.TRANSIENT}
"""Failures that may be the engine's: those of disk and database are nobody's."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerLimits:
    """After how many studies in a row an engine rests, and for how long."""

    studies: int
    seconds: float


@dataclass(slots=True)
class _Count:
    """Studies that failed since the last success, and how long the engine rests."""

    studies: set[int] = field(default_factory=set)
    rests_until: datetime | None = None
    on_probation: bool = False


class EngineBreaker:
    """Counts failures of engines, and says which of them rest."""

    def __init__(
        self, *, limits: BreakerLimits, clock: Clock, quarantine: Callable[[str, str], None]
    ) -> None:
        """Tell `quarantine` the name of an engine and the reason when it begins to rest."""
        self._limits = limits
        self._clock = clock
        self._quarantine = quarantine
        self._counts: dict[str, _Count] = {}
        self._lock = threading.Lock()

    def failed(self, engine: str, study_id: int, error_class: ErrorClass) -> None:
        """Count a failed job; the same study counts once, however often it is tried."""
        if error_class not in COUNTED:
            return
        with self._lock:
            count = self._counts.setdefault(engine, _Count())
            count.studies.add(study_id)
            enough = 1 if count.on_probation else self._limits.studies
            if count.rests_until is not None or len(count.studies) < enough:
                return
            studies = len(count.studies)
            until = self._rest(count)
        reason = (
            f"quarantined: the last {studies} studies in a row failed, at last by"
            f" {error_class.value}; jobs wait; golden case again at {until:%H:%M} UTC"
        )
        log.error("engine.quarantined", engine=engine, studies=studies)
        self._quarantine(engine, reason)

    def succeeded(self, engine: str) -> None:
        """Forget the failures of an engine that read a study, or refused it for a reason."""
        with self._lock:
            count = self._counts.get(engine)
            if count is not None and count.rests_until is None:
                del self._counts[engine]

    def resting(self) -> frozenset[str]:
        """Return the engines that take no jobs now."""
        with self._lock:
            return frozenset(
                name for name, count in self._counts.items() if count.rests_until is not None
            )

    def due(self) -> tuple[str, ...]:
        """Return the engines that have rested long enough to be tried."""
        now = self._clock()
        with self._lock:
            return tuple(
                sorted(
                    name
                    for name, count in self._counts.items()
                    if count.rests_until is not None and count.rests_until <= now
                )
            )

    def tried(self, engine: str, *, passed: bool) -> None:
        """Take note of the golden case of an engine that was due."""
        with self._lock:
            count = self._counts[engine]
            if not passed:
                self._rest(count)
                return
            count.studies.clear()
            count.rests_until = None
            count.on_probation = True
        log.info("engine.lifted", engine=engine)

    def _rest(self, count: _Count) -> datetime:
        until = self._clock() + timedelta(seconds=self._limits.seconds)
        count.rests_until = until
        return until
