"""Records of retention: its rules, what it would delete, and what it did."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from storage.states import DeletionKind, DeletionRule


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionPolicy:
    """How long bytes are kept, in days; None: for ever. `low_bytes` 0: whatever the disk holds.

    Below `low_bytes` of free disk, studies that are done go early, until `high_bytes` are free.
    """

    studies_days: float | None = None
    failed_days: float | None = None
    results_days: float | None = None
    quarantine_days: float | None = None
    duplicates_days: float | None = None
    low_bytes: int = 0
    high_bytes: int = 0

    @property
    def deletes(self) -> bool:
        """Whether any rule may ever delete anything."""
        days = (
            self.studies_days,
            self.failed_days,
            self.results_days,
            self.quarantine_days,
            self.duplicates_days,
        )
        return self.low_bytes > 0 or any(item is not None for item in days)


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """What a rule would delete now. `study_id` 0: of no study; `key` tells it from others."""

    kind: DeletionKind
    rule: DeletionRule
    key: int | str  # row of the study or of quarantine, name of the pack
    what: str  # for people: Study Instance UID, reason of quarantine, name of the pack
    since: datetime  # the moment from which its age counts
    count: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeletionRecord:
    """What was deleted, when, and by which rule."""

    id: int
    at: datetime
    kind: DeletionKind
    rule: DeletionRule
    study_instance_uid: str  # empty: of no study
    count: int
    size: int
    finished_at: datetime | None  # None: bytes of it may still be there


@dataclass(frozen=True, slots=True, kw_only=True)
class DeletionTotal:
    """All that a rule has deleted of a kind."""

    kind: DeletionKind
    rule: DeletionRule
    count: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldRecord:
    """Who keeps a study from retention, since when and why."""

    study_instance_uid: str
    at: datetime
    by: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """What one sweep did: rows that say so, packs and bytes that went."""

    deletions: int
    packs: int
    freed: int  # bytes, as the disk counts them
    unfinished: int  # deletions whose bytes are not all gone
