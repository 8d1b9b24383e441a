from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
from sqlalchemy import create_engine, event, select, text
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from storage import database
from storage.database import Database, migrate
from storage.models import Association
from storage.records import (
    ConstraintError,
    DataRefusedError,
    OutOfResourcesError,
    StorageError,
)
from storage.states import AssociationState
from tests.storage.holding import Holding, SetClock


@pytest.fixture
def postgres_held(postgres_url: str) -> Iterator[Holding]:
    holding = Holding(postgres_url)
    yield holding
    holding.close()


def test_a_reading_session_sees_one_moment(held: Holding, held_again: Holding) -> None:
    held.receive()
    count = text("SELECT count(*) FROM receipt")
    with held.database.reading() as session:
        assert session.scalar(count) == 1
        held_again.receive(2)
        assert session.scalar(count) == 1
    with held.database.reading() as session:
        assert session.scalar(count) == 2


def test_a_reading_session_cannot_write_on_postgresql(postgres_held: Holding) -> None:
    with pytest.raises(StorageError), postgres_held.database.reading() as session:
        session.execute(text("UPDATE study SET revision = 1"))
    postgres_held.execute("UPDATE study SET revision = revision")  # the next one may write again


def test_a_transaction_that_raises_leaves_nothing(held: Holding) -> None:
    held.receive()

    def stop_on_the_way() -> None:
        with held.database.transaction() as session:
            session.execute(text("UPDATE study SET revision = 9"))
            raise KeyError("on the way")

    with pytest.raises(KeyError):
        stop_on_the_way()
    assert held.studies.list()[0].revision == 1


def test_a_database_that_is_not_there_is_out_of_resources(tmp_path: Path) -> None:
    for url in (
        "postgresql+psycopg://nobody@127.0.0.1:1/nothing?connect_timeout=2",
        f"sqlite:///{tmp_path}/no/such/folder/wetread.db",
    ):
        missing = Database(url)
        with pytest.raises(OutOfResourcesError) as raised, missing.reading() as session:
            session.execute(text("SELECT 1"))
        assert raised.value.__cause__ is not None
        missing.close()


def test_a_database_that_is_full_is_out_of_resources(tmp_path: Path) -> None:
    full = Database(f"sqlite:///{tmp_path / 'full.db'}")
    with full.transaction() as session:
        session.execute(text("CREATE TABLE filler (bytes BLOB)"))

    def fill() -> None:
        with full.transaction() as session:
            session.execute(text("PRAGMA max_page_count = 10"))
            session.execute(text("INSERT INTO filler VALUES (zeroblob(10000000))"))

    with pytest.raises(OutOfResourcesError):
        fill()
    full.close()


def test_a_pool_without_a_free_connection_is_out_of_resources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = create_engine(
        f"sqlite:///{tmp_path / 'pool.db'}", pool_size=1, max_overflow=0, pool_timeout=0.05
    )
    monkeypatch.setattr(database, "open_engine", lambda _: engine)
    small = Database("sqlite://")
    with (
        small.reading(),
        pytest.raises(OutOfResourcesError, match="every connection is in use") as raised,
        small.reading(),
    ):
        pass
    assert isinstance(raised.value.__cause__, PoolTimeoutError)
    small.close()


def test_a_value_that_postgresql_cannot_hold_is_refused_for_good(postgres_held: Holding) -> None:
    statement = "INSERT INTO destination VALUES (:name, 'dimse', 0, NULL, '')"
    with pytest.raises(DataRefusedError, match="cannot hold this value") as raised:
        postgres_held.execute(statement, name="Doe^Jane" * 20)
    assert "Doe" not in str(raised.value)
    with pytest.raises(DataRefusedError):
        postgres_held.execute("SELECT nothing FROM nowhere")


def test_a_name_that_is_too_long_is_refused_on_both(held: Holding) -> None:
    with pytest.raises(DataRefusedError, match="longer than 64 characters"):
        held.deliveries.set_destinations([("N" * 65, "dimse")])
    assert held.deliveries.destinations() == []


def test_a_second_row_under_the_same_key_is_a_constraint(held: Holding) -> None:
    statement = "INSERT INTO destination VALUES ('PACS', 'dimse', 0, NULL, '')"
    held.execute(statement)
    with pytest.raises(ConstraintError):
        held.execute(statement)
    held.execute("DELETE FROM destination")


def test_a_moment_without_a_zone_is_refused(held: Holding) -> None:
    held.clock.now = datetime(2024, 3, 1)  # noqa: DTZ001 - what is refused
    with pytest.raises(DataRefusedError, match="without a time zone"):
        held.receive()


def test_moments_come_back_in_utc(held: Holding) -> None:
    held.associations.opened(listener="d", calling_ae="A", called_ae="B", peer_address="::1")
    with held.database.reading() as session:
        row = session.scalars(select(Association)).one()
        assert row.opened_at == SetClock().now
        assert row.opened_at.utcoffset() is not None
        assert row.state == AssociationState.OPEN


def test_sqlite_syncs_every_commit_and_checks_keys(tmp_path: Path) -> None:
    engine = database.open_engine(f"sqlite:///{tmp_path / 'set.db'}")
    with engine.connect() as connection:
        values = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    assert values == {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "busy_timeout": 30000,
    }
    assert event.contains(engine, "begin", database._on_sqlite_begin)
    engine.dispose()


def test_a_schema_that_cannot_be_brought_up_to_date_is_told_without_a_traceback(
    tmp_path: Path,
) -> None:
    (tmp_path / "test.db").mkdir()  # what cannot be opened as a database, whoever asks
    with pytest.raises(OutOfResourcesError):
        migrate(f"sqlite:///{tmp_path}/test.db")
