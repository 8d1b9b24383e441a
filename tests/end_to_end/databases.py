"""Databases of a node under test, and how each of them goes away for some seconds."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, TypeAlias

from tests.storage.postgres import FORGETFUL, PostgresServer

Disturb: TypeAlias = Callable[[float], None]
"""Takes the database away for so many seconds, then gives it back."""


@contextlib.contextmanager
def sqlite(folder: Path) -> Iterator[tuple[str, Disturb]]:
    """Use the node's own SQLite; it goes away when another process holds its lock."""

    def lock(seconds: float) -> None:
        connection = sqlite3.connect(folder / "data/wetread.db", 60.0, isolation_level=None)
        with contextlib.closing(connection):
            connection.execute("BEGIN EXCLUSIVE")
            time.sleep(seconds)
            connection.execute("ROLLBACK")

    yield "", lock


@contextlib.contextmanager
def postgresql(_: Path) -> Iterator[tuple[str, Disturb]]:
    """Use a PostgreSQL server; it goes away when it is ended at once, without a checkpoint."""
    server = PostgresServer(FORGETFUL)

    def restart(seconds: float) -> None:
        server.crash()
        time.sleep(seconds)
        server.start()

    try:
        yield f'[database]\nurl = "{server.create("wetread")}"', restart
    finally:
        server.stop()


DATABASES: Final = {"sqlite": sqlite, "postgresql": postgresql}
