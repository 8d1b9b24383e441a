from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import inspect

from storage.database import check_schema, downgrade, migrate, open_engine
from storage.models import Base
from storage.records import ConstraintError, SchemaError
from storage.states import (
    ASSOCIATION_TRANSITIONS,
    DELIVERY_TRANSITIONS,
    JOB_TRANSITIONS,
    STUDY_TRANSITIONS,
    AssociationState,
)
from tests.storage.holding import STUDY, Holding

TODAY: Mapping[str, Mapping[Any, frozenset[Any]]] = {
    "association": ASSOCIATION_TRANSITIONS,
    "study": STUDY_TRANSITIONS,
    "job": JOB_TRANSITIONS,
    "delivery": DELIVERY_TRANSITIONS,
}


def filled(url: str) -> Holding:
    held = Holding(url)
    held.deliverable()
    return held


def tables(url: str) -> Sequence[str]:
    engine = open_engine(url)
    try:
        return sorted(set(inspect(engine).get_table_names()) - {"alembic_version"})
    finally:
        engine.dispose()


def test_migrations_go_up_down_and_up_again_with_data(bare_url: str) -> None:
    migrate(bare_url)
    filled(bare_url).close()
    migrate(bare_url)
    downgrade(bare_url, "base")
    assert tables(bare_url) == []
    migrate(bare_url)
    check_schema(bare_url)
    held = filled(bare_url)
    assert held.studies.get(STUDY).instances == 1
    held.close()


def test_a_database_of_the_first_schema_is_taken_over_with_its_data_and_back(bare_url: str) -> None:
    migrate(bare_url)
    filled(bare_url).close()
    downgrade(bare_url, "0001")
    migrate(bare_url)
    held = Holding(bare_url)
    held.clock.advance(1000)
    (result,) = held.jobs.results()
    assert held.studies.get(STUDY).instances == 1
    assert held.send().digest == result.digest
    held.close()


def test_an_engine_on_trial_takes_no_jobs_in_an_older_schema(bare_url: str) -> None:
    migrate(bare_url)
    held = filled(bare_url)
    held.execute(
        "INSERT INTO engine (name, version, digest, task, runtime, intended_use, state, reason,"
        " golden) VALUES ('lungs', '1', 'x', 'segmentation', 'onnxruntime', 'x', 'shadow', '',"
        " '{}')"
    )
    held.close()
    downgrade(bare_url, "0003")
    migrate(bare_url)
    held = Holding(bare_url)
    assert held.execute("SELECT state FROM engine WHERE name = 'lungs'") == [("verified",)]
    held.close()


@pytest.mark.parametrize("summary", ["{}", '{"shadow": true}'])
def test_what_an_engine_on_trial_found_is_withheld_in_a_database_taken_over(
    bare_url: str, summary: str
) -> None:
    migrate(bare_url)
    held = filled(bare_url)
    held.execute("UPDATE job SET summary = :summary", summary=summary)
    held.close()
    downgrade(bare_url, "0004")
    migrate(bare_url)
    held = Holding(bare_url)
    (result,) = held.jobs.results()
    assert result.withheld is ("shadow" in summary)
    held.close()


def test_the_migrated_schema_is_that_of_the_models(held: Holding) -> None:
    engine = open_engine(held.url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
    engine.dispose()


def test_the_transitions_of_the_migration_are_those_of_the_states() -> None:
    first = import_module("storage.migrations.versions.0001_the_first_schema")
    recalls = import_module("storage.migrations.versions.0007_recalls")
    today = {
        table: {old.value: {new.value for new in allowed} for old, allowed in transitions.items()}
        for table, transitions in TODAY.items()
    }
    in_migration = {
        table: {old: set(allowed) for old, allowed in transitions.items()}
        for table, transitions in {**first.TRANSITIONS, **recalls.TRANSITIONS}.items()
    }
    assert in_migration == today


def test_a_database_without_a_schema_says_what_to_run(bare_url: str) -> None:
    with pytest.raises(SchemaError, match="no schema: run `wetread migrate`"):
        check_schema(bare_url)


def test_a_newer_schema_is_refused_with_what_to_run(held: Holding) -> None:
    ((today,),) = held.execute("SELECT version_num FROM alembic_version")
    held.execute("UPDATE alembic_version SET version_num = '9999'")
    try:
        with pytest.raises(SchemaError, match="9999, which this version does not know: run the n"):
            check_schema(held.url)
    finally:
        held.execute("UPDATE alembic_version SET version_num = :today", today=today)


def test_a_database_that_cannot_be_opened_is_named_without_its_password() -> None:
    url = "postgresql+psycopg://wetread:secret@127.0.0.1:1/wetread?connect_timeout=2"
    with pytest.raises(SchemaError, match="cannot be opened") as raised:
        check_schema(url)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("table", "state"),
    [("study", "routed"), ("job", "succeeded"), ("delivery", "sent"), ("association", "open")],
)
def test_the_database_itself_refuses_a_forbidden_transition(
    held: Holding, table: str, state: str
) -> None:
    association = held.associations.opened(
        listener="dimse", calling_ae="A", called_ae="B", peer_address="::1"
    )
    held.deliverable()
    held.associations.closed(association, AssociationState.RELEASED)
    if table == "study":
        held.receive(2)  # RECEIVING again
    if table == "delivery":
        assert held.deliveries.list()[0].state == "queued"
    if table == "job":
        held.execute("UPDATE job SET max_attempts = 9")  # other columns may change
        state = "running"
    with pytest.raises(ConstraintError):
        held.execute(f"UPDATE {table} SET state = '{state}'")  # noqa: S608 - our own words


@pytest.mark.parametrize("table", ["event", "receipt"])
@pytest.mark.parametrize("statement", ["UPDATE {} SET id = id + 1000", "DELETE FROM {}"])
def test_the_timeline_and_the_receipts_are_append_only(
    held: Holding, table: str, statement: str
) -> None:
    held.receive()
    with pytest.raises(ConstraintError):
        held.execute(statement.format(table))


def test_an_unknown_state_is_refused_by_the_database(held: Holding) -> None:
    held.receive()
    with pytest.raises(ConstraintError):
        held.execute(
            "INSERT INTO association"
            " VALUES (1, '', '', '', '', '', '', 'lost', '2024-01-01', NULL, 0)"
        )
