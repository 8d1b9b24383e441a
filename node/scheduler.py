"""Calls the sweeps at their times. Holds no state: what is due is a question to the database."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import structlog
from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_MISSED, JobExecutionEvent
from apscheduler.schedulers.background import BackgroundScheduler

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """Something to do every so many seconds."""

    name: str
    seconds: float
    run: Callable[[], object]


class Scheduler:
    """Runs sweeps in the background, each at most once at a time."""

    def __init__(self, sweeps: tuple[Sweep, ...]) -> None:
        self._scheduler = BackgroundScheduler(timezone="UTC")
        self._scheduler.add_listener(_report, EVENT_JOB_ERROR | EVENT_JOB_MISSED)
        for sweep in sweeps:
            self._scheduler.add_job(
                sweep.run,
                "interval",
                seconds=sweep.seconds,
                id=sweep.name,
                coalesce=True,
                max_instances=1,
                misfire_grace_time=None,
            )

    def start(self) -> None:
        """Begin to sweep."""
        self._scheduler.start()

    def stop(self) -> None:
        """Finish the sweep in hand and begin no other."""
        self._scheduler.shutdown(wait=True)


def _report(event: JobExecutionEvent) -> None:
    error = getattr(event, "exception", None)
    log.error("sweep.failed", sweep=event.job_id, error=type(error).__name__ if error else "missed")
