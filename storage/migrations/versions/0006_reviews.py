"""Results that are held back until a person has seen them."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0006"
down_revision: Final = "0005"
branch_labels: Final = None
depends_on: Final = None

ID: Final = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
STATES: Final = "state IN ('waiting', 'released', 'discarded', 'superseded')"


def upgrade() -> None:
    """Bring the schema here."""
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "review",
        sa.Column("id", ID, nullable=False),
        sa.Column("job_id", ID, nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("told_at", moment, nullable=True),
        sa.Column("decided_at", moment, nullable=True),
        sa.Column("decided_by", sa.String(length=128), nullable=False),
        sa.Column("comment", sa.Text(), nullable=False),
        sa.CheckConstraint(STATES, name="ck_review_state_known"),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name="fk_review_job_id_job"),
        sa.PrimaryKeyConstraint("id", name="pk_review"),
    )
    op.create_index("ix_review_job_id", "review", ["job_id"])
    op.create_index("ix_review_state_created_at", "review", ["state", "created_at"])
    integer = "INTEGER" if op.get_bind().dialect.name == "sqlite" else "BIGINT"
    op.execute(
        f"ALTER TABLE result ADD COLUMN review_id {integer}"
        " CONSTRAINT fk_result_review_id_review REFERENCES review (id)"
    )
    op.create_index("ix_result_review_id", "result", ["review_id"])


def downgrade() -> None:
    """Take the change back: what waits for a person stays withheld."""
    op.drop_index("ix_result_review_id", table_name="result")
    op.drop_column("result", "review_id")
    op.drop_index("ix_review_state_created_at", table_name="review")
    op.drop_index("ix_review_job_id", table_name="review")
    op.drop_table("review")
