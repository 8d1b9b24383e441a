"""Every store test runs on SQLite and on PostgreSQL; a PostgreSQL that is missing is an error."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest
from sqlalchemy import text

from storage.database import Database, migrate
from storage.models import Base
from tests.storage.holding import Holding
from tests.storage.keeping import Keeping
from tests.storage.postgres import PostgresServer

FreshUrl: TypeAlias = Callable[[], str]


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    server = PostgresServer()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "wetread.db"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def postgres_url(postgres: PostgresServer) -> str:
    url = postgres.create("wetread")
    migrate(url)
    return url


@pytest.fixture(params=["sqlite", "postgresql"])
def dialect(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def url(dialect: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Give an empty database at today's schema."""
    if dialect == "sqlite":
        path = tmp_path / "wetread.db"
        shutil.copy(request.getfixturevalue("sqlite_template"), path)
        return f"sqlite:///{path}"
    url = str(request.getfixturevalue("postgres_url"))
    empty(url)
    return url


@pytest.fixture
def bare_url(dialect: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Give a database without any schema."""
    if dialect == "sqlite":
        return f"sqlite:///{tmp_path / 'bare.db'}"
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.create(f"bare_{abs(hash(request.node.nodeid)):x}")


@pytest.fixture
def held(url: str) -> Iterator[Holding]:
    """Give the stores over an empty database."""
    holding = Holding(url)
    yield holding
    holding.close()


@pytest.fixture
def held_again(url: str, held: Holding) -> Iterator[Holding]:
    """Give a second node's stores over the same database and the same clock."""
    holding = Holding(url)
    holding.clock.now = held.clock.now
    yield holding
    holding.close()


@pytest.fixture
def keeping(held: Holding, tmp_path: Path) -> Iterator[Keeping]:
    """Give the stores with real packs and objects under them."""
    keeping = Keeping(held, tmp_path / "objects")
    yield keeping
    keeping.seal()


def empty(url: str) -> None:
    """Remove every row of a PostgreSQL database; triggers on rows do not see TRUNCATE."""
    database = Database(url)
    names = ", ".join(f'"{table.name}"' for table in Base.metadata.sorted_tables)
    with database.transaction() as session:
        session.execute(text(f"TRUNCATE {names} RESTART IDENTITY CASCADE"))
    database.close()
