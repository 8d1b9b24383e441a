"""Changes which states a table takes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op


def know_states(table: str, before: str, after: str) -> None:
    """Put one check of the column `state` in the place of another.

    SQLite has no statement for that. Its manual (ALTER TABLE, section 7) has this way for a change
    that does not touch what is on the disk; a table made anew would take with it the rows that
    refer to it.

    Args:
        table: whose check is named `ck_<table>_state_known`.
        before: the check as it stands in the table, SQL.
        after: the check that takes its place.
    """
    connection = op.get_bind()
    if connection.dialect.name != "sqlite":
        op.drop_constraint(f"ck_{table}_state_known", table, type_="check")
        op.create_check_constraint(f"ck_{table}_state_known", table, after)
        return
    version = connection.exec_driver_sql("PRAGMA schema_version").scalar_one()
    connection.exec_driver_sql("PRAGMA writable_schema = ON")
    changed = connection.execute(
        sa.text(
            "UPDATE sqlite_master SET sql = replace(sql, :before, :after)"
            " WHERE type = 'table' AND name = :table AND instr(sql, :before) > 0"
        ),
        {"before": before, "after": after, "table": table},
    )
    connection.exec_driver_sql(f"PRAGMA schema_version = {int(version) + 1}")
    connection.exec_driver_sql("PRAGMA writable_schema = OFF")
    if changed.rowcount != 1:
        raise RuntimeError(f"the table {table} is not the one that was made here")
