"""What crosses the edge of the storage package: frozen records, never ORM rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from storage.errors import (
    BytesDeletedError,
    ConstraintError,
    DataRefusedError,
    InUseError,
    LeaseLostError,
    NotFoundError,
    ObjectTooLargeError,
    OutOfResourcesError,
    RecalledError,
    SchemaError,
    StorageError,
    SupersededError,
)
from storage.index_records import (
    Arrival,
    Brought,
    InstanceRecord,
    JsonValue,
    Location,
    NewInstance,
    QuarantinedInstance,
    QuarantineRecord,
    Recorded,
    SeriesAttributes,
    SeriesRecord,
    StoredObject,
    StudyAttributes,
    StudyRecord,
)
from storage.outcome_records import JobOutcome, NewDelivery, NewResult, NewReview
from storage.states import (
    AssociationState,
    DeliveryState,
    EngineState,
    ErrorClass,
    JobState,
    Reached,
)

__all__ = [
    "Arrival",
    "AssociationRecord",
    "Brought",
    "BytesDeletedError",
    "Conservation",
    "ConstraintError",
    "DataRefusedError",
    "DeliveryAttempt",
    "DeliveryRecord",
    "DestinationRecord",
    "EngineRecord",
    "EventRecord",
    "InUseError",
    "InstanceRecord",
    "JobOutcome",
    "JobRecord",
    "JsonValue",
    "LeaseLostError",
    "LeasedDelivery",
    "LeasedJob",
    "Location",
    "NewDelivery",
    "NewInstance",
    "NewJob",
    "NewResult",
    "NewReview",
    "NotFoundError",
    "ObjectTooLargeError",
    "OutOfResourcesError",
    "Predecessor",
    "QuarantineRecord",
    "QuarantinedInstance",
    "RecalledError",
    "Recorded",
    "ResultRecord",
    "Routing",
    "RuleRevision",
    "SchemaError",
    "SeriesAttributes",
    "SeriesRecord",
    "StorageError",
    "StoredObject",
    "StudyAttributes",
    "StudyRecord",
    "SupersededError",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """One job that routing asks for."""

    rule: str
    engine: str
    priority: int  # higher runs first
    series_instance_uids: tuple[str, ...]
    destinations: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Routing:
    """The outcome of routing one study revision. Without jobs the study is UNMATCHED."""

    rule_revision: int
    jobs: tuple[NewJob, ...]
    explanation: Mapping[str, JsonValue]


@dataclass(frozen=True, slots=True, kw_only=True)
class Predecessor:
    """A result object that an earlier revision produced and this run supersedes."""

    writer: str
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRecord:
    """One engine on one study revision, as shown to people."""

    id: int
    study_id: int
    study_instance_uid: str
    revision: int
    rule: str
    rule_revision: int
    engine: str
    priority: int
    series_instance_uids: tuple[str, ...]
    destinations: tuple[str, ...]
    state: JobState
    attempts: int
    max_attempts: int
    worker: str
    error_class: ErrorClass | None
    error: str
    created_at: datetime
    not_before: datetime
    started_at: datetime | None
    finished_at: datetime | None
    lease_until: datetime | None
    summary: Mapping[str, JsonValue]
    timings: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class LeasedJob:
    """A job that this worker owns until `lease_until`; `token` fences late writes."""

    job: JobRecord
    token: int
    lease_until: datetime
    study: StudyRecord
    instances: tuple[InstanceRecord, ...]  # CURRENT ones of the job's series, by SOP Instance UID
    predecessors: tuple[Predecessor, ...]
    series_created_at: datetime  # creation of the first job of this (study, rule, engine)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultRecord:
    """One result object."""

    id: int
    job_id: int
    study_instance_uid: str
    engine: str
    writer: str
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    transfer_syntax_uid: str
    digest: str
    size: int
    revision: int
    created_at: datetime
    superseded: bool
    withheld: bool = False  # given to nobody: neither sent nor found by those who ask
    review_id: int | None = None  # a person has to see it first, or has seen it
    deletion_id: int | None = None  # retention deleted its bytes
    recall_id: int | None = None  # a person recalled it
    withdrawal_id: int | None = None  # it is a note that others are rejected


@dataclass(frozen=True, slots=True, kw_only=True)
class DestinationRecord:
    """A destination and the state of its breaker."""

    name: str
    kind: str
    failures: int = 0
    parked_until: datetime | None = None
    last_error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryRecord:
    """One result object on its way to one destination."""

    id: int
    result_id: int
    job_id: int
    study_instance_uid: str
    destination: str
    sop_class_uid: str
    sop_instance_uid: str
    state: DeliveryState
    attempts: int
    status: int | None  # the last DIMSE status, if one came back
    error: str
    created_at: datetime
    not_before: datetime
    finished_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassRecord:
    """What became of objects of a SOP class at a destination; `error` is the last refusal's."""

    destination: str
    sop_class_uid: str
    taken: int
    refused: int
    last_taken_at: datetime | None
    last_refused_at: datetime | None
    error: str = ""

    @property
    def refuses(self) -> bool:
        """Whether the destination refused the last one that it answered."""
        if self.last_refused_at is None:
            return False
        return self.last_taken_at is None or self.last_refused_at > self.last_taken_at


@dataclass(frozen=True, slots=True, kw_only=True)
class LeasedDelivery:
    """A delivery that this dispatcher owns until its lease ends."""

    delivery: DeliveryRecord
    token: int
    digest: str
    transfer_syntax_uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryAttempt:
    """What came of one attempt.

    `state` is SENT, WARNED, FAILED, or QUEUED with `retry_in` seconds. In the place of what FAILED,
    which is REPLACED then, or is `stuck`, which is tried on, goes what stands in for it.
    """

    state: DeliveryState
    reached: Reached = Reached.PERHAPS  # what the attempt brought there, if it was no success
    status: int | None = None
    error: str = ""
    retry_in: float = 0.0
    stuck: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleRevision:
    """One immutable revision of the routing rules."""

    revision: int
    text: str
    digest: str
    created_at: datetime
    created_by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRecord:
    """One engine package as this node knows it."""

    name: str
    version: str
    digest: str
    task: str
    runtime: str
    intended_use: str
    state: EngineState
    reason: str = ""
    golden: Mapping[str, JsonValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRecord:
    """One line of a timeline. `details` holds ids, codes and counts, never text of a data set."""

    id: int
    at: datetime
    study_id: int | None
    job_id: int | None
    delivery_id: int | None
    action: str  # "study.completed", "job.failed", ...
    actor: str
    details: Mapping[str, JsonValue]


@dataclass(frozen=True, slots=True, kw_only=True)
class AssociationRecord:
    """One association, from request to end."""

    id: int
    listener: str
    calling_ae: str
    called_ae: str
    peer_address: str
    state: AssociationState
    opened_at: datetime
    closed_at: datetime | None
    received: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Conservation:
    """Invariant 14: what was acknowledged, and where it is now. Counts of instances.

    `received` counts receipts, the others rows apart from them; `missing` is zero at all times.
    """

    received: int
    in_progress: int
    routed: int
    discarded: int  # by a named rule revision
    failed: int  # and visible
    duplicates: int
    conflicts: int
    own_results: int
    quarantined: int  # notes of what was kept without a row: refused, or not indexed
    not_indexed: int = 0  # acknowledged, but the index refuses it: in quarantine

    @property
    def missing(self) -> int:
        """Acknowledged instances that no state accounts for."""
        return self.received - (
            self.in_progress
            + self.routed
            + self.discarded
            + self.failed
            + self.duplicates
            + self.conflicts
            + self.own_results
            + self.not_indexed
        )
