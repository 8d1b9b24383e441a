"""Results that are given to nobody: those of an engine on trial."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0005"
down_revision: Final = "0004"
branch_labels: Final = None
depends_on: Final = None


def upgrade() -> None:
    """Bring the schema here: jobs of engines on trial say so in their summary."""
    op.add_column(
        "result", sa.Column("withheld", sa.Boolean(), server_default=sa.false(), nullable=False)
    )
    job = sa.table("job", sa.column("id", sa.BigInteger()), sa.column("summary", sa.JSON()))
    result = sa.table(
        "result", sa.column("job_id", sa.BigInteger()), sa.column("withheld", sa.Boolean())
    )
    on_trial = sa.select(job.c.id).where(job.c.summary["shadow"].as_boolean().is_(True))
    op.execute(sa.update(result).where(result.c.job_id.in_(on_trial)).values(withheld=True))


def downgrade() -> None:
    """Take the change back."""
    op.drop_column("result", "withheld")
