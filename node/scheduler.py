"""Calls the sweeps at their times. Holds no state: what is due is a question to the database."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_MISSED, JobExecutionEvent
from apscheduler.jobstores.base import JobLookupError
from apscheduler.schedulers.background import BackgroundScheduler

from node.clock import Clock, system_clock

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """Something to do every so many seconds; `due` says when it is to be done before that."""

    name: str
    seconds: float
    run: Callable[[], object]
    due: Callable[[], datetime | None] = lambda: None


class Scheduler:
    """Runs sweeps in the background, each at most once at a time."""

    def __init__(self, sweeps: tuple[Sweep, ...], clock: Clock = system_clock) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._busy = 0  # sweeps in hand
        self._stopping = False
        self._scheduler = BackgroundScheduler(timezone="UTC")
        self._scheduler.add_listener(_report, EVENT_JOB_ERROR | EVENT_JOB_MISSED)
        for sweep in sweeps:
            self._scheduler.add_job(
                self._sweep,
                "interval",
                args=(sweep,),
                seconds=sweep.seconds,
                id=sweep.name,
                coalesce=True,
                max_instances=1,
                misfire_grace_time=None,
            )

    def _sweep(self, sweep: Sweep) -> None:
        with self._changed:
            if self._stopping:
                return
            self._busy += 1
        try:
            sweep.run()
            self._hasten(sweep)
        finally:
            with self._changed:
                self._busy -= 1
                self._changed.notify_all()

    def _hasten(self, sweep: Sweep) -> None:
        """Let the next one come when something is due."""
        due = sweep.due()
        if due is not None and due < self._clock() + timedelta(seconds=sweep.seconds):
            with suppress(JobLookupError):  # it was stopped meanwhile
                self._scheduler.modify_job(sweep.name, next_run_time=due)

    def start(self) -> None:
        """Begin to sweep."""
        self._scheduler.start()

    def stop(self) -> None:
        """Finish the sweep in hand and begin no other.

        APScheduler would wait under a lock that a sweep needs to say when the next one is due.
        """
        with self._changed:
            self._stopping = True
        self._scheduler.shutdown(wait=False)
        with self._changed:
            while self._busy:
                self._changed.wait()


def _report(event: JobExecutionEvent) -> None:
    error = getattr(event, "exception", None)
    log.error("sweep.failed", sweep=event.job_id, error=type(error).__name__ if error else "missed")
