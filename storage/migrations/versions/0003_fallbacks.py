"""Deliveries that wait in reserve, and go in the place of one that was refused."""

from __future__ import annotations

from typing import Final

from alembic import op

from storage.migrations.known_states import know_states
from storage.migrations.triggers import Transitions, drop_trigger, transition_trigger

revision: Final = "0003"
down_revision: Final = "0002"
branch_labels: Final = None
depends_on: Final = None

BEFORE: Final[Transitions] = {
    "queued": ("parked", "sending", "superseded"),
    "sending": ("failed", "queued", "sent", "superseded", "warned"),
    "sent": ("confirmed", "queued"),
    "warned": ("confirmed", "queued"),
    "confirmed": ("queued",),
    "failed": ("queued",),
    "parked": ("queued", "superseded"),
    "superseded": (),
}
TRANSITIONS: Final = {
    "delivery": {
        **BEFORE,
        "sending": ("failed", "queued", "replaced", "sent", "superseded", "warned"),
        "reserved": ("not_needed", "queued", "superseded"),
        "replaced": ("queued",),
        "not_needed": ("queued",),
    }
}
KNOWN_BEFORE: Final = (
    "state IN ('queued', 'sending', 'sent', 'warned', 'confirmed', 'failed', 'parked',"
    " 'superseded')"
)
KNOWN: Final = f"{KNOWN_BEFORE[:-1]}, 'reserved', 'replaced', 'not_needed')"


def upgrade() -> None:
    """Bring the schema here."""
    op.execute("ALTER TABLE delivery ADD COLUMN fallbacks JSON DEFAULT '[]' NOT NULL")
    know_states("delivery", KNOWN_BEFORE, KNOWN)
    _allow(TRANSITIONS["delivery"])


def downgrade() -> None:
    """Take the change back: what was replaced has failed, what was in reserve is not sent."""
    for statement in drop_trigger(op.get_bind().dialect.name, "delivery", "transition"):
        op.execute(statement)
    op.execute("UPDATE delivery SET state = 'failed' WHERE state = 'replaced'")
    op.execute("UPDATE delivery SET state = 'superseded' WHERE state IN ('reserved', 'not_needed')")
    know_states("delivery", KNOWN, KNOWN_BEFORE)
    for statement in transition_trigger(op.get_bind().dialect.name, "delivery", BEFORE):
        op.execute(statement)
    op.drop_column("delivery", "fallbacks")


def _allow(transitions: Transitions) -> None:
    dialect = op.get_bind().dialect.name
    for statement in drop_trigger(dialect, "delivery", "transition"):
        op.execute(statement)
    for statement in transition_trigger(dialect, "delivery", transitions):
        op.execute(statement)
