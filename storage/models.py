"""Tables. Private to this package: what leaves it is a record."""

# long: every table of the schema

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from storage.columns import ATTRIBUTE, MESSAGE, UID, Id, Line, Name, Prose, UtcDateTime
from storage.states import (
    AssociationState,
    DeletionKind,
    DeliveryState,
    EngineState,
    ExpectationSource,
    ExpectationState,
    InstanceState,
    JobState,
    Reached,
    ReceiptOutcome,
    ReviewState,
    StudyState,
)

NAMING: Final = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


def one_of(column: str, states: type[StrEnum]) -> CheckConstraint:
    """Return the constraint that a column holds a known state."""
    values = ", ".join(f"'{state.value}'" for state in states)
    return CheckConstraint(f"{column} IN ({values})", name=f"{column}_known")


def kept_index(name: str, column: str) -> Index:
    """Return an index of the rows whose bytes retention has not deleted."""
    kept = text("deletion_id IS NULL")
    return Index(name, column, sqlite_where=kept, postgresql_where=kept)


class Base(DeclarativeBase):
    """The root of all tables."""

    metadata = MetaData(naming_convention=NAMING)


class Association(Base):
    """One accepted association, or one look into a watched folder."""

    __tablename__ = "association"
    __table_args__ = (one_of("state", AssociationState), Index(None, "state"))

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    token: Mapped[str] = mapped_column(Name(32), unique=True)  # its name before it has an id
    owner: Mapped[str] = mapped_column(Name(32))  # the process of a node that accepted it
    listener: Mapped[str] = mapped_column(Line(32))
    calling_ae: Mapped[str] = mapped_column(Line(64))
    called_ae: Mapped[str] = mapped_column(Line(64))
    peer_address: Mapped[str] = mapped_column(Line(64))
    state: Mapped[str] = mapped_column(Name(16))
    opened_at: Mapped[datetime] = mapped_column(UtcDateTime)
    closed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    received: Mapped[int] = mapped_column(Integer)


class Pack(Base):
    """A file of received instances, and up to where they have rows: the rest is indexed later."""

    __tablename__ = "pack"

    name: Mapped[str] = mapped_column(Name(32), primary_key=True)
    owner: Mapped[str] = mapped_column(Name(32))  # the process of a node that writes it
    indexed_through: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    tidied_at: Mapped[datetime | None] = mapped_column(UtcDateTime)  # bytes without a row went
    removed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)  # the file goes, then the row


class Deletion(Base):
    """What retention deleted, and by which rule: written before the bytes go, kept after them.

    Rows of what went refer to it. Without `finished_at` bytes of it may still be there.
    """

    __tablename__ = "deletion"
    __table_args__ = (
        one_of("kind", DeletionKind),
        Index(None, "study_id"),
        Index(None, "finished_at"),
    )

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    at: Mapped[datetime] = mapped_column(UtcDateTime)
    kind: Mapped[str] = mapped_column(Name(16))
    rule: Mapped[str] = mapped_column(Name(32))
    study_id: Mapped[int | None] = mapped_column(ForeignKey("study.id"))
    count: Mapped[int] = mapped_column(Integer)
    size: Mapped[int] = mapped_column(BigInteger)  # bytes
    places: Mapped[list[Any]] = mapped_column(JSON)  # [pack, offset, length] of what has no row
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class Study(Base):
    """One study at its current revision."""

    __tablename__ = "study"
    __table_args__ = (
        one_of("state", StudyState),
        UniqueConstraint("study_instance_uid"),
        Index(None, "state", "complete_after"),
        Index(None, "last_received_at"),
        Index(None, "accession_number"),
        Index(None, "patient_id"),
        Index(
            "ix_study_kept",
            "last_received_at",
            sqlite_where=text("emptied_at IS NULL"),
            postgresql_where=text("emptied_at IS NULL"),
        ),
    )

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    study_instance_uid: Mapped[str] = mapped_column(UID)
    revision: Mapped[int] = mapped_column(Integer)
    state: Mapped[str] = mapped_column(Name(16))
    patient_id: Mapped[str] = mapped_column(ATTRIBUTE)
    issuer_of_patient_id: Mapped[str] = mapped_column(ATTRIBUTE)
    patient_name: Mapped[str] = mapped_column(ATTRIBUTE)
    patient_birth_date: Mapped[str] = mapped_column(ATTRIBUTE)
    patient_sex: Mapped[str] = mapped_column(ATTRIBUTE)
    accession_number: Mapped[str] = mapped_column(ATTRIBUTE)
    study_code: Mapped[str] = mapped_column(ATTRIBUTE)  # (0020,0010) Study ID
    study_date: Mapped[str] = mapped_column(ATTRIBUTE)
    study_time: Mapped[str] = mapped_column(ATTRIBUTE)
    study_description: Mapped[str] = mapped_column(ATTRIBUTE)
    referring_physician_name: Mapped[str] = mapped_column(ATTRIBUTE)
    listener: Mapped[str] = mapped_column(Line(32))
    calling_ae: Mapped[str] = mapped_column(Line(64))
    first_received_at: Mapped[datetime] = mapped_column(UtcDateTime)
    last_received_at: Mapped[datetime] = mapped_column(UtcDateTime)
    complete_after: Mapped[datetime] = mapped_column(UtcDateTime)
    evidence: Mapped[dict[str, Any]] = mapped_column(JSON)
    reason: Mapped[str] = mapped_column(MESSAGE)
    rule_revision: Mapped[int | None] = mapped_column(ForeignKey("rule_revision.revision"))
    explanation: Mapped[dict[str, Any]] = mapped_column(JSON)
    emptied_at: Mapped[datetime | None] = mapped_column(UtcDateTime)  # retention left no bytes


class Hold(Base):
    """A study that retention leaves alone, whatever its rules say, until it is released."""

    __tablename__ = "hold"

    study_id: Mapped[int] = mapped_column(Id, ForeignKey("study.id"), primary_key=True)
    at: Mapped[datetime] = mapped_column(UtcDateTime)
    by: Mapped[str] = mapped_column(Line(128))
    reason: Mapped[str] = mapped_column(MESSAGE)


class Series(Base):
    """One series of a study."""

    __tablename__ = "series"
    __table_args__ = (UniqueConstraint("study_id", "series_instance_uid"),)

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("study.id"))
    series_instance_uid: Mapped[str] = mapped_column(UID)
    modality: Mapped[str] = mapped_column(ATTRIBUTE)
    series_number: Mapped[str] = mapped_column(ATTRIBUTE)
    series_description: Mapped[str] = mapped_column(ATTRIBUTE)
    body_part_examined: Mapped[str] = mapped_column(ATTRIBUTE)


class Instance(Base):
    """One instance. Of a SOP Instance UID in a series one row is current, others are conflicts."""

    __tablename__ = "instance"
    __table_args__ = (
        one_of("state", InstanceState),
        UniqueConstraint("series_id", "sop_instance_uid", "digest"),
        Index(
            "uq_instance_current",
            "series_id",
            "sop_instance_uid",
            unique=True,
            sqlite_where=text("state = 'current'"),
            postgresql_where=text("state = 'current'"),
        ),
        Index(None, "study_id", "state"),
        Index(None, "association_id"),
        kept_index("ix_instance_pack", "pack"),
    )

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("study.id"))
    series_id: Mapped[int] = mapped_column(ForeignKey("series.id"))
    association_id: Mapped[int | None] = mapped_column(ForeignKey("association.id"))
    sop_instance_uid: Mapped[str] = mapped_column(UID)
    sop_class_uid: Mapped[str] = mapped_column(UID)
    transfer_syntax_uid: Mapped[str] = mapped_column(UID)
    instance_number: Mapped[str] = mapped_column(ATTRIBUTE)
    digest: Mapped[str] = mapped_column(Name(64))
    size: Mapped[int] = mapped_column(BigInteger)
    pack: Mapped[str] = mapped_column(Name(32))
    pack_offset: Mapped[int] = mapped_column(BigInteger)
    length: Mapped[int] = mapped_column(BigInteger)  # of the whole DICOM file
    state: Mapped[str] = mapped_column(Name(16))
    received_at: Mapped[datetime] = mapped_column(UtcDateTime)
    revision: Mapped[int] = mapped_column(Integer)
    deletion_id: Mapped[int | None] = mapped_column(ForeignKey("deletion.id"))


class Expectation(Base):
    """What one source says of a study, or of one series of it; the study may never come here.

    The row without a Series Instance UID is of the study; it is always there. `reference_uid` is
    the SOP Instance UID of the procedure step or notification, empty for an archive.
    """

    __tablename__ = "expectation"
    __table_args__ = (
        one_of("source", ExpectationSource),
        one_of("state", ExpectationState),
        UniqueConstraint(
            "study_instance_uid",
            "source",
            "reference_uid",
            "series_instance_uid",
            name="uq_expectation_what",
        ),
        Index(None, "reference_uid"),
        Index(None, "said_at"),
    )

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    study_instance_uid: Mapped[str] = mapped_column(UID)
    source: Mapped[str] = mapped_column(Name(16))
    reference_uid: Mapped[str] = mapped_column(UID)
    series_instance_uid: Mapped[str] = mapped_column(UID)
    state: Mapped[str] = mapped_column(Name(16))
    instances: Mapped[int | None] = mapped_column(Integer)
    sop_instance_uids: Mapped[list[str]] = mapped_column(JSON)
    note: Mapped[str] = mapped_column(Line(128))  # why it is not known
    since: Mapped[datetime] = mapped_column(UtcDateTime)  # the moment it first said just this
    said_at: Mapped[datetime] = mapped_column(UtcDateTime)


class Receipt(Base):
    """One acknowledgement: every 0x0000 has a row here, whatever became of the instance."""

    __tablename__ = "receipt"
    __table_args__ = (one_of("outcome", ReceiptOutcome), Index(None, "outcome"))

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    at: Mapped[datetime] = mapped_column(UtcDateTime)
    association_id: Mapped[int | None] = mapped_column(ForeignKey("association.id"))
    sop_instance_uid: Mapped[str] = mapped_column(UID)
    digest: Mapped[str] = mapped_column(Name(64))
    outcome: Mapped[str] = mapped_column(Name(16))


class Quarantine(Base):
    """Bytes that were kept although they could not be indexed. Not acknowledged."""

    __tablename__ = "quarantine"
    __table_args__ = (kept_index("ix_quarantine_pack", "pack"),)

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    at: Mapped[datetime] = mapped_column(UtcDateTime)
    association_id: Mapped[int | None] = mapped_column(ForeignKey("association.id"))
    listener: Mapped[str] = mapped_column(Line(32))
    calling_ae: Mapped[str] = mapped_column(Line(64))
    peer_address: Mapped[str] = mapped_column(Line(64))
    digest: Mapped[str] = mapped_column(Name(64))
    size: Mapped[int] = mapped_column(BigInteger)
    pack: Mapped[str] = mapped_column(Name(32))
    pack_offset: Mapped[int] = mapped_column(BigInteger)
    length: Mapped[int] = mapped_column(BigInteger)
    reason: Mapped[str] = mapped_column(MESSAGE)
    deletion_id: Mapped[int | None] = mapped_column(ForeignKey("deletion.id"))


class RuleSetRevision(Base):
    """One immutable revision of the rules."""

    __tablename__ = "rule_revision"

    revision: Mapped[int] = mapped_column(Integer, primary_key=True)
    text: Mapped[str] = mapped_column(Prose())
    digest: Mapped[str] = mapped_column(Name(64))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    created_by: Mapped[str] = mapped_column(Line(128))


class EnginePackageRow(Base):
    """One engine package this node knows."""

    __tablename__ = "engine"
    __table_args__ = (one_of("state", EngineState),)

    name: Mapped[str] = mapped_column(Name(64), primary_key=True)
    version: Mapped[str] = mapped_column(Line(64))
    digest: Mapped[str] = mapped_column(Name(64))
    task: Mapped[str] = mapped_column(Name(64))
    runtime: Mapped[str] = mapped_column(Name(64))
    intended_use: Mapped[str] = mapped_column(Prose())
    state: Mapped[str] = mapped_column(Name(16))
    reason: Mapped[str] = mapped_column(MESSAGE)
    golden: Mapped[dict[str, Any]] = mapped_column(JSON)


class Job(Base):
    """One engine on one study revision."""

    __tablename__ = "job"
    __table_args__ = (
        one_of("state", JobState),
        UniqueConstraint("study_id", "revision", "rule", "engine", "series_key"),
        Index(None, "state", "not_before", "priority"),
        Index(None, "state", "lease_until"),
        Index(None, "engine"),
    )

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("study.id"))
    revision: Mapped[int] = mapped_column(Integer)
    rule: Mapped[str] = mapped_column(Name(128))
    rule_revision: Mapped[int] = mapped_column(ForeignKey("rule_revision.revision"))
    engine: Mapped[str] = mapped_column(Name(64))
    series_key: Mapped[str] = mapped_column(Name(64))
    series_instance_uids: Mapped[list[str]] = mapped_column(JSON)
    destinations: Mapped[list[str]] = mapped_column(JSON)
    priority: Mapped[int] = mapped_column(Integer)
    state: Mapped[str] = mapped_column(Name(16))
    attempts: Mapped[int] = mapped_column(Integer)
    max_attempts: Mapped[int] = mapped_column(Integer)
    worker: Mapped[str] = mapped_column(Line(128))
    token: Mapped[int] = mapped_column(Integer)
    error_class: Mapped[str | None] = mapped_column(Name(32))
    error: Mapped[str] = mapped_column(MESSAGE)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    not_before: Mapped[datetime] = mapped_column(UtcDateTime)
    started_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    lease_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    summary: Mapped[dict[str, Any]] = mapped_column(JSON)
    timings: Mapped[dict[str, float]] = mapped_column(JSON)
    engine_version: Mapped[str] = mapped_column(Line(64), server_default=text("''"))
    engine_digest: Mapped[str] = mapped_column(Name(64), server_default=text("''"))


class Recall(Base):
    """What a person recalled: results of an engine, and why."""

    __tablename__ = "recall"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    at: Mapped[datetime] = mapped_column(UtcDateTime)
    by: Mapped[str] = mapped_column(Line(128))
    reason: Mapped[str] = mapped_column(MESSAGE)
    code: Mapped[str] = mapped_column(Name(16))  # title of its notes, of CID 7010
    engine: Mapped[str] = mapped_column(Name(64))
    version: Mapped[str] = mapped_column(Name(64))  # or package digest, or its beginning
    study_instance_uid: Mapped[str] = mapped_column(UID)
    since: Mapped[datetime | None] = mapped_column(UtcDateTime)
    until: Mapped[datetime | None] = mapped_column(UtcDateTime)


class RecalledJob(Base):
    """One run of a job that was under way as its engine was recalled: its results are not sent."""

    __tablename__ = "recalled_job"
    __table_args__ = (Index(None, "job_id"),)

    recall_id: Mapped[int] = mapped_column(Id, ForeignKey("recall.id"), primary_key=True)
    job_id: Mapped[int] = mapped_column(Id, ForeignKey("job.id"), primary_key=True)
    token: Mapped[int] = mapped_column(Integer)  # of the run: a later one is not meant


class Withdrawal(Base):
    """One destination to tell of one study's rejected results; without `made_at` it waits.

    Without a recall they were superseded.
    """

    __tablename__ = "withdrawal"
    __table_args__ = (
        UniqueConstraint("recall_id", "study_id", "destination"),
        Index(None, "study_id"),
        Index(None, "made_at"),
    )

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    recall_id: Mapped[int | None] = mapped_column(ForeignKey("recall.id"))
    study_id: Mapped[int] = mapped_column(ForeignKey("study.id"))
    destination: Mapped[str] = mapped_column(Name(64))
    at: Mapped[datetime] = mapped_column(UtcDateTime)
    made_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    error: Mapped[str] = mapped_column(MESSAGE)  # why its note could not be made
    alerted_at: Mapped[datetime | None] = mapped_column(UtcDateTime)  # told that it waits too long


class Review(Base):
    """What of a job is held back until a person has seen it, and what the person decided."""

    __tablename__ = "review"
    __table_args__ = (one_of("state", ReviewState), Index(None, "state", "created_at"))

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    job_id: Mapped[int] = mapped_column(ForeignKey("job.id"), index=True)
    state: Mapped[str] = mapped_column(Name(16))
    kind: Mapped[str] = mapped_column(Name(32))  # which kind of finding it is
    reason: Mapped[str] = mapped_column(MESSAGE)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    told_at: Mapped[datetime | None] = mapped_column(UtcDateTime)  # that it waits too long
    decided_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    decided_by: Mapped[str] = mapped_column(Line(128))
    comment: Mapped[str] = mapped_column(MESSAGE)


class Result(Base):
    """One result object; with `withdrawal_id` a note that others are rejected."""

    __tablename__ = "result"
    __table_args__ = (
        UniqueConstraint("job_id", "sop_instance_uid"),
        kept_index("ix_result_kept", "created_at"),
    )

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    job_id: Mapped[int] = mapped_column(ForeignKey("job.id"))
    writer: Mapped[str] = mapped_column(Name(64))
    sop_class_uid: Mapped[str] = mapped_column(UID)
    sop_instance_uid: Mapped[str] = mapped_column(UID, index=True)
    series_instance_uid: Mapped[str] = mapped_column(UID)
    transfer_syntax_uid: Mapped[str] = mapped_column(UID)
    digest: Mapped[str] = mapped_column(Name(64), index=True)
    size: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    superseded: Mapped[bool] = mapped_column(default=False)
    withheld: Mapped[bool] = mapped_column(server_default=false())
    review_id: Mapped[int | None] = mapped_column(ForeignKey("review.id"), index=True)
    deletion_id: Mapped[int | None] = mapped_column(ForeignKey("deletion.id"))
    recall_id: Mapped[int | None] = mapped_column(ForeignKey("recall.id"))
    withdrawal_id: Mapped[int | None] = mapped_column(ForeignKey("withdrawal.id"))


class Destination(Base):
    """A destination and its breaker."""

    __tablename__ = "destination"

    name: Mapped[str] = mapped_column(Name(64), primary_key=True)
    kind: Mapped[str] = mapped_column(Line(32))
    failures: Mapped[int] = mapped_column(Integer)
    parked_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    last_error: Mapped[str] = mapped_column(MESSAGE)


class Delivery(Base):
    """One result on its way to one destination."""

    __tablename__ = "delivery"
    __table_args__ = (
        one_of("state", DeliveryState),
        one_of("reached", Reached),
        UniqueConstraint("result_id", "destination"),
        Index(None, "destination", "state", "not_before"),
        Index(None, "state", "lease_until"),
        Index(None, "withdrawal_id"),
    )

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    result_id: Mapped[int] = mapped_column(ForeignKey("result.id"))
    destination: Mapped[str] = mapped_column(Name(64))
    fallbacks: Mapped[list[list[int]]] = mapped_column(JSON, server_default=text("'[]'"))
    state: Mapped[str] = mapped_column(Name(16))
    attempts: Mapped[int] = mapped_column(Integer)
    token: Mapped[int] = mapped_column(Integer)
    status: Mapped[int | None] = mapped_column(Integer)
    error: Mapped[str] = mapped_column(MESSAGE)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    not_before: Mapped[datetime] = mapped_column(UtcDateTime)
    lease_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    withdrawal_id: Mapped[int | None] = mapped_column(ForeignKey("withdrawal.id"))
    reached: Mapped[str] = mapped_column(Name(8), server_default=text("'no'"))


class Event(Base):
    """One line of the timeline. Append-only: a trigger refuses change and removal."""

    __tablename__ = "event"
    __table_args__ = (Index(None, "study_id", "id"),)

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    at: Mapped[datetime] = mapped_column(UtcDateTime)
    study_id: Mapped[int | None] = mapped_column(ForeignKey("study.id"))
    job_id: Mapped[int | None] = mapped_column(ForeignKey("job.id"))
    delivery_id: Mapped[int | None] = mapped_column(ForeignKey("delivery.id"))
    action: Mapped[str] = mapped_column(Name(64))
    actor: Mapped[str] = mapped_column(Line(128))
    details: Mapped[dict[str, Any]] = mapped_column(JSON)
