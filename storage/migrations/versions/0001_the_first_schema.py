"""The first schema: tables, and triggers that refuse what the transition tables refuse.

Written out whole: a migration says what the schema was, not what the models are today.
"""

# long: the whole first schema, as generated from the tables

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

from storage.migrations.triggers import (
    append_only_triggers,
    drop_trigger,
    transition_trigger,
)

revision: Final = "0001"
down_revision: Final = None
branch_labels: Final = None
depends_on: Final = None

TRANSITIONS: Final = {
    "association": {
        "open": (
            "aborted",
            "released",
        ),
        "released": (),
        "aborted": (),
    },
    "study": {
        "receiving": ("complete",),
        "complete": (
            "failed",
            "receiving",
            "routed",
            "unmatched",
        ),
        "routed": ("receiving",),
        "unmatched": ("receiving",),
        "failed": ("receiving",),
    },
    "job": {
        "queued": (
            "running",
            "superseded",
        ),
        "running": (
            "dead",
            "failed",
            "queued",
            "refused",
            "succeeded",
            "superseded",
        ),
        "succeeded": (),
        "refused": (),
        "failed": ("queued",),
        "dead": ("queued",),
        "superseded": (),
    },
    "delivery": {
        "queued": (
            "parked",
            "sending",
            "superseded",
        ),
        "sending": (
            "failed",
            "queued",
            "sent",
            "superseded",
            "warned",
        ),
        "sent": (
            "confirmed",
            "queued",
        ),
        "warned": (
            "confirmed",
            "queued",
        ),
        "confirmed": ("queued",),
        "failed": ("queued",),
        "parked": (
            "queued",
            "superseded",
        ),
        "superseded": (),
    },
}
APPEND_ONLY: Final = ("event", "receipt")


# long: the whole first schema, as generated from the tables
def upgrade() -> None:
    """Apply the change."""
    op.create_table(
        "association",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("token", sa.String(length=32), nullable=False),
        sa.Column("owner", sa.String(length=32), nullable=False),
        sa.Column("listener", sa.String(length=32), nullable=False),
        sa.Column("calling_ae", sa.String(length=64), nullable=False),
        sa.Column("called_ae", sa.String(length=64), nullable=False),
        sa.Column("peer_address", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("received", sa.Integer(), nullable=False),
        sa.CheckConstraint(
            "state IN ('open', 'released', 'aborted')", name="ck_association_state_known"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_association"),
        sa.UniqueConstraint("token", name="uq_association_token"),
    )
    op.create_index("ix_association_state", "association", ["state"], unique=False)
    op.create_table(
        "pack",
        sa.Column("name", sa.String(length=32), nullable=False),
        sa.Column("owner", sa.String(length=32), nullable=False),
        sa.Column("indexed_through", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_pack"),
    )
    op.create_table(
        "destination",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("parked_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_destination"),
    )
    op.create_table(
        "engine",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("version", sa.String(length=64), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("task", sa.String(length=64), nullable=False),
        sa.Column("runtime", sa.String(length=64), nullable=False),
        sa.Column("intended_use", sa.Text(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("golden", sa.JSON(), nullable=False),
        sa.CheckConstraint(
            "state IN ('registered', 'verified', 'active', 'unavailable', 'retired')",
            name="ck_engine_state_known",
        ),
        sa.PrimaryKeyConstraint("name", name="pk_engine"),
    )
    op.create_table(
        "rule_revision",
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_by", sa.String(length=128), nullable=False),
        sa.PrimaryKeyConstraint("revision", name="pk_rule_revision"),
    )
    op.create_table(
        "expectation",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("study_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("source", sa.String(length=16), nullable=False),
        sa.Column("reference_uid", sa.String(length=64), nullable=False),
        sa.Column("series_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("instances", sa.Integer(), nullable=True),
        sa.Column("sop_instance_uids", sa.JSON(), nullable=False),
        sa.Column("note", sa.String(length=128), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("said_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "source IN ('c-find', 'mpps', 'availability')", name="ck_expectation_source_known"
        ),
        sa.CheckConstraint(
            "state IN ('counted', 'in_progress', 'discontinued', 'not_known')",
            name="ck_expectation_state_known",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_expectation"),
        sa.UniqueConstraint(
            "study_instance_uid",
            "source",
            "reference_uid",
            "series_instance_uid",
            name="uq_expectation_what",
        ),
    )
    op.create_index("ix_expectation_reference_uid", "expectation", ["reference_uid"], unique=False)
    op.create_index("ix_expectation_said_at", "expectation", ["said_at"], unique=False)
    op.create_table(
        "quarantine",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "association_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True
        ),
        sa.Column("listener", sa.String(length=32), nullable=False),
        sa.Column("calling_ae", sa.String(length=64), nullable=False),
        sa.Column("peer_address", sa.String(length=64), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("pack", sa.String(length=32), nullable=False),
        sa.Column("pack_offset", sa.BigInteger(), nullable=False),
        sa.Column("length", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["association_id"], ["association.id"], name="fk_quarantine_association_id_association"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_quarantine"),
    )
    op.create_table(
        "receipt",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "association_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True
        ),
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.CheckConstraint(
            "outcome IN ('stored', 'duplicate', 'conflict', 'own_result', 'not_indexed')",
            name="ck_receipt_outcome_known",
        ),
        sa.ForeignKeyConstraint(
            ["association_id"], ["association.id"], name="fk_receipt_association_id_association"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_receipt"),
    )
    op.create_index("ix_receipt_outcome", "receipt", ["outcome"], unique=False)
    op.create_table(
        "study",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("study_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("patient_id", sa.Text(), nullable=False),
        sa.Column("issuer_of_patient_id", sa.Text(), nullable=False),
        sa.Column("patient_name", sa.Text(), nullable=False),
        sa.Column("patient_birth_date", sa.Text(), nullable=False),
        sa.Column("patient_sex", sa.Text(), nullable=False),
        sa.Column("accession_number", sa.Text(), nullable=False),
        sa.Column("study_code", sa.Text(), nullable=False),
        sa.Column("study_date", sa.Text(), nullable=False),
        sa.Column("study_time", sa.Text(), nullable=False),
        sa.Column("study_description", sa.Text(), nullable=False),
        sa.Column("referring_physician_name", sa.Text(), nullable=False),
        sa.Column("listener", sa.String(length=32), nullable=False),
        sa.Column("calling_ae", sa.String(length=64), nullable=False),
        sa.Column("first_received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("complete_after", sa.DateTime(timezone=True), nullable=False),
        sa.Column("evidence", sa.JSON(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("rule_revision", sa.Integer(), nullable=True),
        sa.Column("explanation", sa.JSON(), nullable=False),
        sa.CheckConstraint(
            "state IN ('receiving', 'complete', 'routed', 'unmatched', 'failed')",
            name="ck_study_state_known",
        ),
        sa.ForeignKeyConstraint(
            ["rule_revision"],
            ["rule_revision.revision"],
            name="fk_study_rule_revision_rule_revision",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_study"),
        sa.UniqueConstraint("study_instance_uid", name="uq_study_study_instance_uid"),
    )
    op.create_index("ix_study_accession_number", "study", ["accession_number"], unique=False)
    op.create_index("ix_study_last_received_at", "study", ["last_received_at"], unique=False)
    op.create_index("ix_study_patient_id", "study", ["patient_id"], unique=False)
    op.create_index(
        "ix_study_state_complete_after", "study", ["state", "complete_after"], unique=False
    )
    op.create_table(
        "job",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("study_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("rule", sa.String(length=128), nullable=False),
        sa.Column("rule_revision", sa.Integer(), nullable=False),
        sa.Column("engine", sa.String(length=64), nullable=False),
        sa.Column("series_key", sa.String(length=64), nullable=False),
        sa.Column("series_instance_uids", sa.JSON(), nullable=False),
        sa.Column("destinations", sa.JSON(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("max_attempts", sa.Integer(), nullable=False),
        sa.Column("worker", sa.String(length=128), nullable=False),
        sa.Column("token", sa.Integer(), nullable=False),
        sa.Column("error_class", sa.String(length=32), nullable=True),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("not_before", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("summary", sa.JSON(), nullable=False),
        sa.Column("timings", sa.JSON(), nullable=False),
        sa.CheckConstraint(
            "state IN ('queued', 'running', 'succeeded', 'refused', 'failed', 'dead', 'superseded')",
            name="ck_job_state_known",
        ),
        sa.ForeignKeyConstraint(
            ["rule_revision"], ["rule_revision.revision"], name="fk_job_rule_revision_rule_revision"
        ),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"], name="fk_job_study_id_study"),
        sa.PrimaryKeyConstraint("id", name="pk_job"),
        sa.UniqueConstraint(
            "study_id",
            "revision",
            "rule",
            "engine",
            "series_key",
            name="uq_job_study_id_revision_rule_engine_series_key",
        ),
    )
    op.create_index("ix_job_state_lease_until", "job", ["state", "lease_until"], unique=False)
    op.create_index(
        "ix_job_state_not_before_priority", "job", ["state", "not_before", "priority"], unique=False
    )
    op.create_table(
        "series",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("study_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("series_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("modality", sa.Text(), nullable=False),
        sa.Column("series_number", sa.Text(), nullable=False),
        sa.Column("series_description", sa.Text(), nullable=False),
        sa.Column("body_part_examined", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"], name="fk_series_study_id_study"),
        sa.PrimaryKeyConstraint("id", name="pk_series"),
        sa.UniqueConstraint(
            "study_id", "series_instance_uid", name="uq_series_study_id_series_instance_uid"
        ),
    )
    op.create_table(
        "instance",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("study_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column(
            "series_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False
        ),
        sa.Column(
            "association_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True
        ),
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("sop_class_uid", sa.String(length=64), nullable=False),
        sa.Column("transfer_syntax_uid", sa.String(length=64), nullable=False),
        sa.Column("instance_number", sa.Text(), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("pack", sa.String(length=32), nullable=False),
        sa.Column("pack_offset", sa.BigInteger(), nullable=False),
        sa.Column("length", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.CheckConstraint("state IN ('current', 'conflict')", name="ck_instance_state_known"),
        sa.ForeignKeyConstraint(
            ["association_id"], ["association.id"], name="fk_instance_association_id_association"
        ),
        sa.ForeignKeyConstraint(["series_id"], ["series.id"], name="fk_instance_series_id_series"),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"], name="fk_instance_study_id_study"),
        sa.PrimaryKeyConstraint("id", name="pk_instance"),
        sa.UniqueConstraint(
            "series_id",
            "sop_instance_uid",
            "digest",
            name="uq_instance_series_id_sop_instance_uid_digest",
        ),
    )
    op.create_index("ix_instance_association_id", "instance", ["association_id"], unique=False)
    op.create_index("ix_instance_study_id_state", "instance", ["study_id", "state"], unique=False)
    op.create_index(
        "uq_instance_current",
        "instance",
        ["series_id", "sop_instance_uid"],
        unique=True,
        sqlite_where=sa.text("state = 'current'"),
        postgresql_where=sa.text("state = 'current'"),
    )
    op.create_table(
        "result",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("job_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("writer", sa.String(length=64), nullable=False),
        sa.Column("sop_class_uid", sa.String(length=64), nullable=False),
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("series_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("transfer_syntax_uid", sa.String(length=64), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("superseded", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name="fk_result_job_id_job"),
        sa.PrimaryKeyConstraint("id", name="pk_result"),
        sa.UniqueConstraint("job_id", "sop_instance_uid", name="uq_result_job_id_sop_instance_uid"),
    )
    op.create_index("ix_result_digest", "result", ["digest"], unique=False)
    op.create_index("ix_result_sop_instance_uid", "result", ["sop_instance_uid"], unique=False)
    op.create_table(
        "delivery",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column(
            "result_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False
        ),
        sa.Column("destination", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("token", sa.Integer(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("not_before", sa.DateTime(timezone=True), nullable=False),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "state IN ('queued', 'sending', 'sent', 'warned', 'confirmed', 'failed', 'parked', 'superseded')",
            name="ck_delivery_state_known",
        ),
        sa.ForeignKeyConstraint(["result_id"], ["result.id"], name="fk_delivery_result_id_result"),
        sa.PrimaryKeyConstraint("id", name="pk_delivery"),
        sa.UniqueConstraint("result_id", "destination", name="uq_delivery_result_id_destination"),
    )
    op.create_index(
        "ix_delivery_destination_state_not_before",
        "delivery",
        ["destination", "state", "not_before"],
        unique=False,
    )
    op.create_index(
        "ix_delivery_state_lease_until", "delivery", ["state", "lease_until"], unique=False
    )
    op.create_table(
        "event",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("study_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("job_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column(
            "delivery_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True
        ),
        sa.Column("action", sa.String(length=64), nullable=False),
        sa.Column("actor", sa.String(length=128), nullable=False),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["delivery_id"], ["delivery.id"], name="fk_event_delivery_id_delivery"
        ),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name="fk_event_job_id_job"),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"], name="fk_event_study_id_study"),
        sa.PrimaryKeyConstraint("id", name="pk_event"),
    )
    op.create_index("ix_event_study_id_id", "event", ["study_id", "id"], unique=False)
    _create_triggers()


def _create_triggers() -> None:
    dialect = op.get_bind().dialect.name
    for table, transitions in TRANSITIONS.items():
        for statement in transition_trigger(dialect, table, transitions):
            op.execute(statement)
    for table in APPEND_ONLY:
        for statement in append_only_triggers(dialect, table):
            op.execute(statement)


def _drop_triggers() -> None:
    dialect = op.get_bind().dialect.name
    names = [(table, "transition") for table in TRANSITIONS]
    names += [(table, name) for table in APPEND_ONLY for name in ("no_update", "no_delete")]
    for table, name in names:
        for statement in drop_trigger(dialect, table, name):
            op.execute(statement)


def downgrade() -> None:  # long: one line a table or index
    """Take the change back."""
    _drop_triggers()
    op.drop_index("ix_event_study_id_id", table_name="event")
    op.drop_table("event")
    op.drop_index("ix_delivery_state_lease_until", table_name="delivery")
    op.drop_index("ix_delivery_destination_state_not_before", table_name="delivery")
    op.drop_table("delivery")
    op.drop_index("ix_result_sop_instance_uid", table_name="result")
    op.drop_index("ix_result_digest", table_name="result")
    op.drop_table("result")
    op.drop_index(
        "uq_instance_current",
        table_name="instance",
        sqlite_where=sa.text("state = 'current'"),
        postgresql_where=sa.text("state = 'current'"),
    )
    op.drop_index("ix_instance_study_id_state", table_name="instance")
    op.drop_index("ix_instance_association_id", table_name="instance")
    op.drop_table("instance")
    op.drop_table("series")
    op.drop_index("ix_job_state_not_before_priority", table_name="job")
    op.drop_index("ix_job_state_lease_until", table_name="job")
    op.drop_table("job")
    op.drop_index("ix_study_state_complete_after", table_name="study")
    op.drop_index("ix_study_patient_id", table_name="study")
    op.drop_index("ix_study_last_received_at", table_name="study")
    op.drop_index("ix_study_accession_number", table_name="study")
    op.drop_table("study")
    op.drop_index("ix_receipt_outcome", table_name="receipt")
    op.drop_table("receipt")
    op.drop_table("quarantine")
    op.drop_index("ix_expectation_said_at", table_name="expectation")
    op.drop_index("ix_expectation_reference_uid", table_name="expectation")
    op.drop_table("expectation")
    op.drop_table("rule_revision")
    op.drop_table("engine")
    op.drop_table("destination")
    op.drop_table("pack")
    op.drop_index("ix_association_state", table_name="association")
    op.drop_table("association")
