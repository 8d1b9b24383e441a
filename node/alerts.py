"""Tells, once each, what is past its deadline: one line in the log, one on the timeline."""

from __future__ import annotations

import structlog

from storage.overdue import OverdueLimits, OverdueStore

log = structlog.get_logger()


class Alerts:
    """A sweep over everything that should have ended (invariant 9)."""

    def __init__(self, store: OverdueStore, limits: OverdueLimits) -> None:
        self._store = store
        self._limits = limits

    def sweep(self) -> None:
        """Look for items past their deadline."""
        for item in self._store.raise_alerts(self._limits):
            log.error(
                "item.overdue",
                kind=item.kind,
                id=item.id,
                study_id=item.study_id,
                state=item.state,
                since=item.since.isoformat(),
            )
