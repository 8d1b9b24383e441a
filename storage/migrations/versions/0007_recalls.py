"""Results that were recalled or superseded, and the notes that tell their destinations so."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

from storage.migrations.known_states import know_states
from storage.migrations.triggers import Transitions, drop_trigger, transition_trigger

revision: Final = "0007"
down_revision: Final = "0006"
branch_labels: Final = None
depends_on: Final = None

ID: Final = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
BEFORE: Final[Transitions] = {
    "queued": ("parked", "sending", "superseded"),
    "sending": ("failed", "queued", "replaced", "sent", "superseded", "warned"),
    "sent": ("confirmed", "queued"),
    "warned": ("confirmed", "queued"),
    "confirmed": ("queued",),
    "failed": ("queued",),
    "parked": ("queued", "superseded"),
    "superseded": (),
    "reserved": ("not_needed", "queued", "superseded"),
    "replaced": ("queued",),
    "not_needed": ("queued",),
}
TRANSITIONS: Final = {
    "delivery": {
        **BEFORE,
        "queued": (*BEFORE["queued"], "withdrawn"),
        "sending": (*BEFORE["sending"], "withdrawn"),
        "parked": (*BEFORE["parked"], "withdrawn"),
        "reserved": (*BEFORE["reserved"], "withdrawn"),
        "withdrawn": (),
    }
}
KNOWN_BEFORE: Final = (
    "state IN ('queued', 'sending', 'sent', 'warned', 'confirmed', 'failed', 'parked',"
    " 'superseded', 'reserved', 'replaced', 'not_needed')"
)
KNOWN: Final = f"{KNOWN_BEFORE[:-1]}, 'withdrawn')"
REFERENCES: Final = (
    ("result", "recall_id", "recall"),
    ("result", "withdrawal_id", "withdrawal"),
    ("delivery", "withdrawal_id", "withdrawal"),
)
REACHED: Final = (
    "UPDATE delivery SET reached = 'perhaps' WHERE attempts > 1 OR (attempts = 1 AND status IS NULL)",
    "UPDATE delivery SET reached = 'yes' WHERE state IN ('sent', 'warned', 'confirmed') OR id IN"
    " (SELECT delivery_id FROM event WHERE action IN ('delivery.sent', 'delivery.warned'))",
)
"""What older attempts brought there: of a single one that was answered the status says it."""


def upgrade() -> None:
    """Bring the schema here."""
    _create_tables()
    _create_recalled_jobs()
    integer = "INTEGER" if op.get_bind().dialect.name == "sqlite" else "BIGINT"
    for table, column, of in REFERENCES:
        op.execute(
            f"ALTER TABLE {table} ADD COLUMN {column} {integer}"
            f" CONSTRAINT fk_{table}_{column}_{of} REFERENCES {of} (id)"
        )
    op.execute(
        "ALTER TABLE delivery ADD COLUMN reached VARCHAR(8) DEFAULT 'no' NOT NULL"
        " CONSTRAINT ck_delivery_reached_known CHECK (reached IN ('no', 'perhaps', 'yes'))"
    )
    for statement in REACHED:
        op.execute(statement)
    op.execute("ALTER TABLE job ADD COLUMN engine_version VARCHAR(64) DEFAULT '' NOT NULL")
    op.execute("ALTER TABLE job ADD COLUMN engine_digest VARCHAR(64) DEFAULT '' NOT NULL")
    op.create_index("ix_job_engine", "job", ["engine"])
    op.create_index("ix_delivery_withdrawal_id", "delivery", ["withdrawal_id"])
    know_states("delivery", KNOWN_BEFORE, KNOWN)
    _allow(TRANSITIONS["delivery"])


def downgrade() -> None:
    """Take the change back: what was withdrawn is not sent; notes stay as results of their jobs."""
    for statement in drop_trigger(op.get_bind().dialect.name, "delivery", "transition"):
        op.execute(statement)
    op.execute("UPDATE delivery SET state = 'superseded' WHERE state = 'withdrawn'")
    know_states("delivery", KNOWN, KNOWN_BEFORE)
    _allow(BEFORE)
    op.drop_index("ix_delivery_withdrawal_id", table_name="delivery")
    op.drop_index("ix_job_engine", table_name="job")
    op.drop_column("delivery", "reached")
    op.drop_column("job", "engine_digest")
    op.drop_column("job", "engine_version")
    for table, column, _ in REFERENCES:
        op.drop_column(table, column)
    op.drop_index("ix_withdrawal_made_at", table_name="withdrawal")
    op.drop_index("ix_withdrawal_study_id", table_name="withdrawal")
    op.drop_table("withdrawal")
    op.drop_index("ix_recalled_job_job_id", table_name="recalled_job")
    op.drop_table("recalled_job")
    op.drop_table("recall")


def _create_tables() -> None:
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "recall",
        sa.Column("id", ID, nullable=False),
        sa.Column("at", moment, nullable=False),
        sa.Column("by", sa.String(length=128), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("code", sa.String(length=16), nullable=False),
        sa.Column("engine", sa.String(length=64), nullable=False),
        sa.Column("version", sa.String(length=64), nullable=False),
        sa.Column("study_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("since", moment, nullable=True),
        sa.Column("until", moment, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_recall"),
    )
    op.create_table(
        "withdrawal",
        sa.Column("id", ID, nullable=False),
        sa.Column("recall_id", ID, nullable=True),
        sa.Column("study_id", ID, nullable=False),
        sa.Column("destination", sa.String(length=64), nullable=False),
        sa.Column("at", moment, nullable=False),
        sa.Column("made_at", moment, nullable=True),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("alerted_at", moment, nullable=True),
        sa.ForeignKeyConstraint(
            ["recall_id"], ["recall.id"], name="fk_withdrawal_recall_id_recall"
        ),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"], name="fk_withdrawal_study_id_study"),
        sa.PrimaryKeyConstraint("id", name="pk_withdrawal"),
        sa.UniqueConstraint(
            "recall_id",
            "study_id",
            "destination",
            name="uq_withdrawal_recall_id_study_id_destination",
        ),
    )
    op.create_index("ix_withdrawal_study_id", "withdrawal", ["study_id"])
    op.create_index("ix_withdrawal_made_at", "withdrawal", ["made_at"])


def _create_recalled_jobs() -> None:
    op.create_table(
        "recalled_job",
        sa.Column("recall_id", ID, nullable=False),
        sa.Column("job_id", ID, nullable=False),
        sa.Column("token", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["recall_id"], ["recall.id"], name="fk_recalled_job_recall_id_recall"
        ),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name="fk_recalled_job_job_id_job"),
        sa.PrimaryKeyConstraint("recall_id", "job_id", name="pk_recalled_job"),
    )
    op.create_index("ix_recalled_job_job_id", "recalled_job", ["job_id"])


def _allow(transitions: Transitions) -> None:
    dialect = op.get_bind().dialect.name
    for statement in drop_trigger(dialect, "delivery", "transition"):
        op.execute(statement)
    for statement in transition_trigger(dialect, "delivery", transitions):
        op.execute(statement)
