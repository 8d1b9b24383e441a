"""Engines on trial: their jobs run, and their results are sent nowhere."""

from __future__ import annotations

from typing import Final

from alembic import op

from storage.migrations.known_states import know_states

revision: Final = "0004"
down_revision: Final = "0003"
branch_labels: Final = None
depends_on: Final = None

BEFORE: Final = "state IN ('registered', 'verified', 'active', 'unavailable', 'retired')"
AFTER: Final = "state IN ('registered', 'verified', 'shadow', 'active', 'unavailable', 'retired')"


def upgrade() -> None:
    """Bring the schema here."""
    know_states("engine", BEFORE, AFTER)


def downgrade() -> None:
    """Take the change back: an engine on trial has passed its golden case, and takes no jobs."""
    op.execute("UPDATE engine SET state = 'verified' WHERE state = 'shadow'")
    know_states("engine", AFTER, BEFORE)
