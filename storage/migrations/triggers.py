"""Triggers that hold the line in the database: transitions by table, events append-only (T27).

A migration calls these with the transitions of its own time, so that an old migration does not
change when the tables in `storage.states` grow.
"""

from __future__ import annotations

from collections.abc import Mapping

Transitions = Mapping[str, tuple[str, ...]]


def transition_trigger(dialect: str, table: str, transitions: Transitions) -> list[str]:
    """Return the statements that refuse a change of `state` which the transitions do not allow."""
    pairs = " OR ".join(
        f"(OLD.state = '{old}' AND NEW.state = '{new}')"
        for old, allowed in transitions.items()
        for new in allowed
    )
    refused = f"OLD.state <> NEW.state AND NOT ({pairs})"
    message = f"{table}: this change of state is not allowed"
    return _trigger(
        dialect, table, "transition", operation="UPDATE", condition=refused, message=message
    )


def append_only_triggers(dialect: str, table: str) -> list[str]:
    """Return the statements that refuse change and removal of rows."""
    message = f"{table} is append-only"
    return [
        *_trigger(dialect, table, "no_update", operation="UPDATE", condition=None, message=message),
        *_trigger(dialect, table, "no_delete", operation="DELETE", condition=None, message=message),
    ]


def deletion_triggers(dialect: str) -> list[str]:
    """Return the statements that keep what retention wrote: only its end may be added."""
    changed = " OR ".join(
        f"OLD.{column} <> NEW.{column}" for column in ("id", "at", "kind", "rule", "count", "size")
    )
    condition = f"OLD.finished_at IS NOT NULL OR {changed}"
    message = "deletion: what was deleted cannot be changed"
    return [
        *_trigger(
            dialect,
            "deletion",
            "no_change",
            operation="UPDATE",
            condition=condition,
            message=message,
        ),
        *_trigger(
            dialect, "deletion", "no_delete", operation="DELETE", condition=None, message=message
        ),
    ]


def drop_trigger(dialect: str, table: str, name: str) -> list[str]:
    """Return the statements that remove a trigger made by the functions above."""
    if dialect == "sqlite":
        return [f"DROP TRIGGER IF EXISTS {table}_{name}"]
    return [
        f"DROP TRIGGER IF EXISTS {table}_{name} ON {table}",
        f"DROP FUNCTION IF EXISTS {table}_{name}()",
    ]


def _trigger(
    dialect: str, table: str, name: str, *, operation: str, condition: str | None, message: str
) -> list[str]:
    trigger = f"{table}_{name}"
    when = f"WHEN ({condition}) " if condition else ""
    if dialect == "sqlite":
        return [
            f"CREATE TRIGGER {trigger} BEFORE {operation} ON {table} FOR EACH ROW {when}"
            f"BEGIN SELECT RAISE(ABORT, '{message}'); END"
        ]
    return [
        f"CREATE FUNCTION {trigger}() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION '{message}' USING ERRCODE = 'check_violation'; END $$",
        f"CREATE TRIGGER {trigger} BEFORE {operation} ON {table} FOR EACH ROW {when}"
        f"EXECUTE FUNCTION {trigger}()",
    ]
