"""What a recall asks for, and what came of it, as records."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from storage.index_records import StudyRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class RecallScope:
    """Which results are meant: of an engine, and of those only what the others name.

    `version` is the engine's version, its package digest, or the beginning of that from eight
    characters on. `since` (included) and `until` (excluded) are about the moment of making.
    """

    engine: str
    version: str = ""
    study_instance_uid: str = ""
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AffectedStudy:
    """One study of a scope: its results, where some are or may be, and how many wait to go."""

    study_instance_uid: str
    results: int
    destinations: tuple[str, ...]
    waiting: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Recalled:
    """What a recall did, or would do. `recall_id` None: nothing.

    `unversioned` results are of the engine, but it is not known of which version; they are left.
    What `running` jobs make is taken back when they end, if the version is the one that is meant.
    Jobs that are `queued` are none of its business: they run on what is installed by then.
    """

    recall_id: int | None
    studies: tuple[AffectedStudy, ...]
    unversioned: int = 0
    running: int = 0
    queued: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RecallRecord:
    """One recall, as shown to people."""

    id: int
    at: datetime
    by: str
    reason: str
    code: str
    scope: RecallScope
    results: int
    studies: int
    waiting: int  # destinations whose note is not made yet


@dataclass(frozen=True, slots=True, kw_only=True)
class WithdrawalRecord:
    """One destination to tell of one study; `error`: why its note could not be made yet.

    Without a recall its results were superseded, and nobody gave a reason.
    """

    id: int
    recall_id: int | None
    study_instance_uid: str
    destination: str
    at: datetime
    made_at: datetime | None
    error: str
    by: str
    reason: str
    code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectedResult:
    """A result that the destination has, or may have; its bytes are kept unless `deleted`.

    `taken`: the destination said that it took it. Otherwise an attempt to send it had no answer.
    """

    taken: bool
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    digest: str
    deleted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingWithdrawal:
    """A note to be made: for whom, of what, and why. Without `rejected` there is nothing to say."""

    withdrawal: WithdrawalRecord
    study: StudyRecord
    engine: str
    engine_version: str
    engine_digest: str
    rejected: tuple[RejectedResult, ...]
