"""Retention: what was deleted and why, studies that are held, packs that go.

Columns are added in plain SQL: SQLite adds one with its foreign key only where it is declared.
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

from storage.migrations.triggers import deletion_triggers, drop_trigger

revision: Final = "0002"
down_revision: Final = "0001"
branch_labels: Final = None
depends_on: Final = None

ID: Final = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
MARKED: Final = ("instance", "quarantine", "result")
"""Tables whose rows say that their bytes are gone."""
INDEXES: Final = (
    ("ix_instance_pack", "instance", "pack", "deletion_id IS NULL"),
    ("ix_quarantine_pack", "quarantine", "pack", "deletion_id IS NULL"),
    ("ix_result_kept", "result", "created_at", "deletion_id IS NULL"),
    ("ix_study_kept", "study", "last_received_at", "emptied_at IS NULL"),
)


def upgrade() -> None:
    """Bring the schema here."""
    op.create_table(
        "deletion",
        sa.Column("id", ID, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("rule", sa.String(length=32), nullable=False),
        sa.Column("study_id", ID, nullable=True),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("places", sa.JSON(), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "kind IN ('instances', 'results', 'quarantine', 'duplicates')",
            name="ck_deletion_kind_known",
        ),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"], name="fk_deletion_study_id_study"),
        sa.PrimaryKeyConstraint("id", name="pk_deletion"),
    )
    op.create_index("ix_deletion_study_id", "deletion", ["study_id"])
    op.create_index("ix_deletion_finished_at", "deletion", ["finished_at"])
    op.create_table(
        "hold",
        sa.Column("study_id", ID, autoincrement=False, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("by", sa.String(length=128), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"], name="fk_hold_study_id_study"),
        sa.PrimaryKeyConstraint("study_id", name="pk_hold"),
    )
    _add_columns()
    for name, table, column, kept in INDEXES:
        where = sa.text(kept)
        op.create_index(name, table, [column], sqlite_where=where, postgresql_where=where)
    for statement in deletion_triggers(op.get_bind().dialect.name):
        op.execute(statement)


def _add_columns() -> None:
    dialect = op.get_bind().dialect.name
    integer = "INTEGER" if dialect == "sqlite" else "BIGINT"
    for table in MARKED:
        constraint = f"fk_{table}_deletion_id_deletion"
        op.execute(
            f"ALTER TABLE {table} ADD COLUMN deletion_id {integer}"
            f" CONSTRAINT {constraint} REFERENCES deletion (id)"
        )
    moment = sa.DateTime(timezone=True)
    op.add_column("study", sa.Column("emptied_at", moment, nullable=True))
    op.add_column("pack", sa.Column("tidied_at", moment, nullable=True))
    op.add_column("pack", sa.Column("removed_at", moment, nullable=True))


def downgrade() -> None:
    """Take the change back: what was deleted stays deleted, and is not known to be any more."""
    for name in ("no_delete", "no_change"):
        for statement in drop_trigger(op.get_bind().dialect.name, "deletion", name):
            op.execute(statement)
    for name, table, _, _ in INDEXES:
        op.drop_index(name, table_name=table)
    op.drop_column("pack", "removed_at")
    op.drop_column("pack", "tidied_at")
    op.drop_column("study", "emptied_at")
    for table in MARKED:
        op.drop_column(table, "deletion_id")
    op.drop_table("hold")
    op.drop_index("ix_deletion_finished_at", table_name="deletion")
    op.drop_index("ix_deletion_study_id", table_name="deletion")
    op.drop_table("deletion")
