"""The database: engine, sessions, one `transaction()`, and the schema's revision."""

from __future__ import annotations

import importlib.resources
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, Row, Select, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import (
    DataError,
    DBAPIError,
    IntegrityError,
    NotSupportedError,
    ProgrammingError,
    StatementError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session

from storage.errors import (
    ConstraintError,
    DataRefusedError,
    OutOfResourcesError,
    SchemaError,
    StorageError,
)

SQLITE_BUSY_SECONDS: Final = 30
READING: Final = "wetread_reading"


class Database:
    """A pool of connections and the one way to use them."""

    def __init__(self, url: str) -> None:
        self._engine = open_engine(url)

    @property
    def dialect(self) -> str:
        """`sqlite` or `postgresql`."""
        return self._engine.dialect.name

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """Open a session, commit it at the end, roll it back on any error.

        Raises:
            OutOfResourcesError: the database is locked, full, gone or read-only.
            ConstraintError: another transaction wrote the same row, or a trigger forbids it.
            DataRefusedError: a value that the database cannot hold.
        """
        with self._session() as session:
            yield session

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """Open a session that only reads, and sees one moment of the database throughout.

        On SQLite it takes no write lock.

        Raises:
            OutOfResourcesError: the database is gone or locked.
        """
        with self._session() as session:
            options: dict[str, Any] = {READING: True}
            if self.dialect == "postgresql":
                options |= {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
            session.connection(execution_options=options)
            yield session

    def finds(self, query: Select[Any], **values: object) -> bool:
        """Say whether a query finds anything.

        Raises:
            OutOfResourcesError: the database is gone or locked.
        """
        return self.first(query.limit(1), **values) is not None

    def first(self, query: Select[Any], **values: object) -> Row[Any] | None:
        """Return the first row that a query finds: what idle loops ask, and no session for it.

        Raises:
            OutOfResourcesError: the database is gone or locked.
        """
        try:
            with self._engine.connect() as connection:
                looking = connection.execution_options(**{READING: True})
                return looking.execute(query, values).first()
        except (StatementError, PoolTimeoutError) as error:
            raise _translated(error) from error

    @contextmanager
    def _session(self) -> Iterator[Session]:
        session = Session(self._engine, expire_on_commit=False)
        try:
            with session, session.begin():
                yield session
        except (StatementError, PoolTimeoutError) as error:
            raise _translated(error) from error

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()


def _translated(error: StatementError | PoolTimeoutError) -> StorageError:
    """Return what an error of SQLAlchemy means here. Its text may hold patient data: left out."""
    if isinstance(error, PoolTimeoutError):
        return OutOfResourcesError("the database cannot take data: every connection is in use")
    name = type(error.orig).__name__
    if isinstance(error, IntegrityError):
        return ConstraintError(f"the database refuses the change: {name}")
    if isinstance(error, DataError | ProgrammingError | NotSupportedError):
        return DataRefusedError(f"the database cannot hold this value: {name}")
    if isinstance(error, DBAPIError):  # locked, full, gone; also read-only (InternalError)
        return OutOfResourcesError(f"the database cannot take data: {name}")
    return DataRefusedError(f"the value cannot be stored: {error.orig}")  # refused by a column type


def open_engine(url: str) -> Engine:
    """Make an engine with the settings that each database needs to be durable and fair."""
    if not url.startswith("sqlite"):
        return create_engine(url, pool_pre_ping=True, pool_size=10, max_overflow=20)
    engine = create_engine(
        url,
        connect_args={"timeout": SQLITE_BUSY_SECONDS, "isolation_level": None},
        pool_size=20,
        max_overflow=40,
    )
    event.listen(engine, "connect", _on_sqlite_connect)
    event.listen(engine, "begin", _on_sqlite_begin)
    return engine


def _on_sqlite_connect(connection: Any, _: object) -> None:  # noqa: ANN401 - the driver's own type
    cursor = connection.cursor()
    for pragma in (
        "journal_mode=WAL",
        f"busy_timeout={SQLITE_BUSY_SECONDS * 1000}",
        "foreign_keys=on",
        "synchronous=FULL",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _on_sqlite_begin(connection: Any) -> None:  # noqa: ANN401 - SQLAlchemy's event hands it over
    reading = connection.get_execution_options().get(READING, False)
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")


def migrate(url: str, revision: str = "head") -> None:
    """Bring the schema up to a revision.

    Raises:
        OutOfResourcesError: the database is gone, locked, full or failing.
    """
    try:
        command.upgrade(_config(url), revision)
    except DBAPIError as error:
        raise _translated(error) from error


def downgrade(url: str, revision: str) -> None:
    """Take the schema back to an older revision; `base` removes it.

    Raises:
        OutOfResourcesError: the database is gone, locked, full or failing.
    """
    try:
        command.downgrade(_config(url), revision)
    except DBAPIError as error:
        raise _translated(error) from error


def check_schema(url: str) -> None:
    """Refuse to work on a schema that is not this version's.

    Raises:
        SchemaError: saying what to run.
    """
    scripts = ScriptDirectory.from_config(_config(url))
    wanted = scripts.get_current_head()
    engine = open_engine(url)
    try:
        with engine.connect() as connection:
            there = MigrationContext.configure(connection).get_current_revision()
    except DBAPIError as error:
        shown = make_url(url).render_as_string(hide_password=True)
        raise SchemaError(
            f"{shown}: cannot be opened ({type(error.orig).__name__}); a node that never ran has "
            "no database yet: run `wetread migrate`"
        ) from error
    finally:
        engine.dispose()
    if there == wanted:
        return
    if there is None:
        raise SchemaError("the database has no schema: run `wetread migrate`")
    known = {
        script.revision for script in ScriptDirectory.from_config(_config(url)).walk_revisions()
    }
    if there in known:
        raise SchemaError(f"the schema is at {there}, not {wanted}: run `wetread migrate`")
    raise SchemaError(
        f"the schema is at {there}, which this version does not know: run the newer version, "
        "or take the schema back with it"
    )


def _config(url: str) -> Config:
    config = Config()
    scripts = importlib.resources.files("storage") / "migrations"
    config.set_main_option("script_location", str(scripts).replace("%", "%%"))
    config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
    return config
