"""Retention as the configuration wants it, swept by the node and told in its log."""

from __future__ import annotations

from collections.abc import Mapping

import structlog

from node.settings import Settings
from storage.records import JsonValue
from storage.retention import Retention
from storage.retention_records import RetentionPolicy

log = structlog.get_logger()


def policy_of(settings: Settings) -> RetentionPolicy:
    """Return what the configuration lets go."""
    retention = settings.retention
    return RetentionPolicy(
        studies_days=retention.studies_days,
        failed_days=retention.failed_days,
        results_days=retention.results_days,
        quarantine_days=retention.quarantine_days,
        duplicates_days=retention.duplicates_days,
        low_bytes=retention.disk_low_mib << 20,
        high_bytes=retention.disk_high_mib << 20,
    )


def sweep(retention: Retention) -> None:
    """Sweep once, and tell in the log what went."""
    swept = retention.sweep()
    if swept.deletions or swept.packs:
        log.info(
            "retention.swept",
            deletions=swept.deletions,
            packs=swept.packs,
            freed=swept.freed,
            unfinished=swept.unfinished,
        )


def tell(what: str, details: Mapping[str, JsonValue]) -> None:
    """Say in the log what keeps bytes from being deleted."""
    log.error(what, **details)
