"""What the JSON API answers: typed, frozen, and always the real state."""

# long: every answer of the API, each a few lines

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Final, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, JsonValue

from node.admin.wording import delivery_act, job_act, status_hex, status_text, study_act
from storage.recall_records import RecallRecord
from storage.records import DeliveryRecord, JobRecord, StudyRecord
from storage.states import (
    DeletionKind,
    DeletionRule,
    DeliveryState,
    EngineState,
    ErrorClass,
    InstanceState,
    JobState,
    ReviewState,
    StudyState,
)


def _plain(value: object) -> object:
    """Turn tuples and mappings into the lists and dicts that JSON has."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


Facts = Annotated[dict[str, JsonValue], BeforeValidator(_plain)]


class Reply(BaseModel):
    """Base of every answer: frozen, and readable from a record's attributes."""

    model_config = ConfigDict(frozen=True, from_attributes=True)


class Problem(Reply):
    """An answer that is not what was asked for, with the reason."""

    error: str


class Attributes(Reply):
    """Patient and study attributes, as received."""

    patient_id: str
    issuer_of_patient_id: str
    patient_name: str
    patient_birth_date: str
    patient_sex: str
    accession_number: str
    study_id: str
    study_date: str
    study_time: str
    study_description: str
    referring_physician_name: str


class Study(Reply):
    """One study at its current revision."""

    study_instance_uid: str
    revision: int
    state: StudyState
    reason: str
    suggested_act: str = ""
    attributes: Attributes
    listener: str
    calling_ae: str
    modalities: tuple[str, ...]
    series: int
    instances: int
    size: int
    first_received_at: datetime
    last_received_at: datetime
    complete_after: datetime
    evidence: Facts
    rule_revision: int | None
    explanation: Facts

    @classmethod
    def of(cls, record: StudyRecord) -> Self:
        """Make the answer from a record."""
        reply = cls.model_validate(record)
        return reply.model_copy(update={"suggested_act": study_act(record)})


class StudyList(Reply):
    """One stretch of a list of studies; `more` says that others follow."""

    studies: tuple[Study, ...]
    offset: int
    more: bool


class SeriesFacts(Reply):
    """Series attributes, as received."""

    modality: str
    series_number: str
    series_description: str
    body_part_examined: str


class Series(Reply):
    """One series of a study."""

    series_instance_uid: str
    attributes: SeriesFacts
    instances: int


class Instance(Reply):
    """One instance that is held. `digest` is the XXH3-128 of its data set as received."""

    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    instance_number: str
    digest: str
    size: int
    state: InstanceState
    received_at: datetime
    revision: int


class InstanceList(Reply):
    """The instances of one study."""

    instances: tuple[Instance, ...]


class Job(Reply):
    """One engine on one study revision."""

    id: int
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
    suggested_act: str = ""
    created_at: datetime
    not_before: datetime
    started_at: datetime | None
    finished_at: datetime | None
    lease_until: datetime | None
    summary: Facts
    timings: Mapping[str, float]

    @classmethod
    def of(cls, record: JobRecord) -> Self:
        """Make the answer from a record."""
        reply = cls.model_validate(record)
        return reply.model_copy(update={"suggested_act": job_act(record)})


class Result(Reply):
    """One result object. What is `withheld` is neither sent nor found by those who ask.

    With a `review_id` a person has to see it first, or has seen it.
    """

    id: int
    job_id: int
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
    withheld: bool
    recall_id: int | None
    withdrawal_id: int | None
    review_id: int | None


class Delivery(Reply):
    """One result object on its way to one destination.

    `status` is the last DIMSE status in hexadecimal, `status_meaning` its text in the standard.
    """

    id: int
    result_id: int
    job_id: int
    study_instance_uid: str
    destination: str
    sop_class_uid: str
    sop_instance_uid: str
    state: DeliveryState
    attempts: int
    status: str | None
    status_meaning: str
    error: str
    suggested_act: str
    created_at: datetime
    not_before: datetime
    finished_at: datetime | None

    @classmethod
    def of(cls, record: DeliveryRecord) -> Self:
        """Make the answer from a record."""
        status = record.status
        return cls(
            id=record.id,
            result_id=record.result_id,
            job_id=record.job_id,
            study_instance_uid=record.study_instance_uid,
            destination=record.destination,
            sop_class_uid=record.sop_class_uid,
            sop_instance_uid=record.sop_instance_uid,
            state=record.state,
            attempts=record.attempts,
            status=status_hex(status) if status is not None else None,
            status_meaning=status_text(status) if status is not None else "",
            error=record.error,
            suggested_act=delivery_act(record),
            created_at=record.created_at,
            not_before=record.not_before,
            finished_at=record.finished_at,
        )


_ASIDE: Final = (
    DeliveryState.SUPERSEDED,
    DeliveryState.REPLACED,
    DeliveryState.RESERVED,
    DeliveryState.NOT_NEEDED,
    DeliveryState.WITHDRAWN,
)
"""States of deliveries that a study does not wait for."""


class DeliveryProgress(Reply):
    """How many of a study's deliveries are where.

    `accepted` were answered with success or a warning, `confirmed` were also committed to.
    `replaced` were refused and another object goes instead; `reserved` go only if one is refused,
    and `not_needed` were. `complete` is true only when every delivery that still counts was
    accepted or confirmed: all but those, and what was superseded or, being recalled, withdrawn.
    """

    total: int
    accepted: int
    confirmed: int
    waiting: int
    failed: int
    superseded: int
    replaced: int
    reserved: int
    not_needed: int
    withdrawn: int
    complete: bool

    @classmethod
    def of(cls, records: Sequence[DeliveryRecord]) -> Self:
        """Count deliveries by where they stand."""
        counts = Counter(record.state for record in records)
        accepted = counts[DeliveryState.SENT] + counts[DeliveryState.WARNED]
        confirmed = counts[DeliveryState.CONFIRMED]
        failed = counts[DeliveryState.FAILED]
        aside = {state: counts[state] for state in _ASIDE}
        counted = len(records) - sum(aside.values())
        return cls(
            total=len(records),
            accepted=accepted,
            confirmed=confirmed,
            waiting=counted - accepted - confirmed - failed,
            failed=failed,
            superseded=aside[DeliveryState.SUPERSEDED],
            replaced=aside[DeliveryState.REPLACED],
            reserved=aside[DeliveryState.RESERVED],
            not_needed=aside[DeliveryState.NOT_NEEDED],
            withdrawn=aside[DeliveryState.WITHDRAWN],
            complete=counted > 0 and accepted + confirmed == counted,
        )


class Review(Reply):
    """What an engine found and did not believe, and what a person decided of it."""

    id: int
    job_id: int
    study_instance_uid: str
    revision: int
    engine: str
    destinations: tuple[str, ...]
    state: ReviewState
    kind: str
    reason: str
    created_at: datetime
    decided_at: datetime | None
    decided_by: str
    comment: str


class ReviewList(Reply):
    """What waits for a person, longest first, and what was decided, newest first."""

    waiting: tuple[Review, ...]
    decided: tuple[Review, ...]


class Hold(Reply):
    """A study that retention leaves alone."""

    study_instance_uid: str
    at: datetime
    by: str
    reason: str


class Deletion(Reply):
    """What retention deleted, and by which rule; without `finished_at` it is not all gone yet."""

    at: datetime
    kind: DeletionKind
    rule: DeletionRule
    study_instance_uid: str
    count: int
    size: int
    finished_at: datetime | None


class DeletionTotal(Reply):
    """All that a rule has deleted of a kind."""

    kind: DeletionKind
    rule: DeletionRule
    count: int
    size: int


class Retention(Reply):
    """What was deleted, newest first, and what is held."""

    free_bytes: int
    oldest_kept: datetime | None
    unfinished: int
    totals: tuple[DeletionTotal, ...]
    holds: tuple[Hold, ...]
    deletions: tuple[Deletion, ...]


class Recall(Reply):
    """Results of an engine that were taken back. Of `waiting` destinations the note is not made."""

    id: int
    at: datetime
    by: str
    reason: str
    code: str
    engine: str
    version: str
    study_instance_uid: str
    since: datetime | None
    until: datetime | None
    studies: int
    results: int
    waiting: int

    @classmethod
    def of(cls, record: RecallRecord) -> Self:
        """Build the reply from a record."""
        scope = record.scope
        return cls(
            id=record.id,
            at=record.at,
            by=record.by,
            reason=record.reason,
            code=record.code,
            engine=scope.engine,
            version=scope.version,
            study_instance_uid=scope.study_instance_uid,
            since=scope.since,
            until=scope.until,
            studies=record.studies,
            results=record.results,
            waiting=record.waiting,
        )


class RecallList(Reply):
    """Recalls, newest first."""

    recalls: tuple[Recall, ...]


class StudyDetail(Reply):
    """One study with everything that was made from it."""

    study: Study
    series: tuple[Series, ...]
    jobs: tuple[Job, ...]
    results: tuple[Result, ...]
    deliveries: tuple[Delivery, ...]
    progress: DeliveryProgress
    notice: str
    holds: tuple[Hold, ...]
    deletions: tuple[Deletion, ...]
    recalls: tuple[Recall, ...]


class TimelineEvent(Reply):
    """One line of a study's timeline."""

    id: int
    at: datetime
    action: str
    actor: str
    job_id: int | None
    delivery_id: int | None
    details: Facts


class Timeline(Reply):
    """What happened to a study, oldest first."""

    study_instance_uid: str
    events: tuple[TimelineEvent, ...]


class JobList(Reply):
    """Jobs, and the notice that belongs to what they found."""

    jobs: tuple[Job, ...]
    notice: str


class DeliveryList(Reply):
    """Deliveries, and the notice that belongs to what they carry."""

    deliveries: tuple[Delivery, ...]
    notice: str


class Engine(Reply):
    """One engine package as this node knows it."""

    name: str
    version: str
    digest: str
    task: str
    runtime: str
    intended_use: str
    state: EngineState
    reason: str


class EngineList(Reply):
    """Every engine this node knows."""

    engines: tuple[Engine, ...]


class ConservationReply(Reply):
    """Where every acknowledged instance is. `missing` is zero at all times.

    `quarantined` counts what was answered with an error and kept: no part of the equation.
    """

    received: int
    in_progress: int
    routed: int
    discarded: int
    failed: int
    duplicates: int
    conflicts: int
    own_results: int
    quarantined: int
    missing: int


class Rules(Reply):
    """One revision of the routing rules."""

    revision: int
    text: str
    digest: str
    created_at: datetime
    created_by: str


class Health(Reply):
    """Whether the process lives."""

    live: bool


class Readiness(Reply):
    """Whether the node can do its work; `problems` maps each failing component to its reason."""

    ready: bool
    components: tuple[str, ...]
    problems: Mapping[str, str]
