"""Holds, and what people see of deletions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.records import ConstraintError, NotFoundError
from storage.states import DeletionKind, DeletionRule
from tests.storage.holding import STUDY, Holding
from tests.storage.keeping import DAY, Keeping


@pytest.fixture
def keeping(held: Holding, tmp_path: Path) -> Iterator[Keeping]:
    keeping = Keeping(held, tmp_path / "objects")
    keeping.receive(1)
    keeping.read(results=2)
    yield keeping
    keeping.seal()


def test_a_hold_says_who_and_why_and_the_newest_reason_stands(
    keeping: Keeping, held: Holding
) -> None:
    keeping.holds.hold(STUDY, by="anna", reason="complaint 17")
    held.clock.advance(5)
    keeping.holds.hold(STUDY, by="bert", reason="complaint 17, court")
    (hold,) = keeping.holds.list()
    assert (hold.study_instance_uid, hold.by) == (STUDY, "bert")
    assert (hold.reason, hold.at) == ("complaint 17, court", held.clock.now)
    assert keeping.holds.list(study_id=held.studies.get(STUDY).id) == [hold]
    assert keeping.holds.list(study_id=404) == []
    assert keeping.holds.count() == 1
    events = held.events.timeline(held.studies.get(STUDY).id)
    assert [(item.action, item.actor) for item in events[-2:]] == [
        ("study.held", "anna"),
        ("study.held", "bert"),
    ]


def test_releasing_what_is_not_held_changes_nothing(keeping: Keeping, held: Holding) -> None:
    before = held.actions()
    assert not keeping.holds.release(STUDY, by="anna")
    assert held.actions() == before


def test_a_study_that_never_came_cannot_be_held_or_released(keeping: Keeping) -> None:
    with pytest.raises(NotFoundError, match=r"there is no study 1\.2\.3"):
        keeping.holds.hold("1.2.3", by="anna", reason="")
    with pytest.raises(NotFoundError, match=r"there is no study 1\.2\.3"):
        keeping.holds.release("1.2.3", by="anna")


def test_deletions_are_listed_and_summed_by_rule(keeping: Keeping, held: Holding) -> None:
    assert keeping.holds.totals() == []
    assert keeping.holds.oldest_kept() == held.studies.get(STUDY).last_received_at
    held.clock.advance(3 * DAY)
    keeping.retention().sweep()
    results, instances = keeping.holds.deletions()
    assert (instances.kind, instances.rule) == (DeletionKind.INSTANCES, DeletionRule.STUDIES)
    assert (results.kind, results.rule) == (DeletionKind.RESULTS, DeletionRule.RESULTS)
    assert (results.study_instance_uid, results.count) == (STUDY, 2)
    assert results.finished_at == held.clock.now
    assert {(item.kind, item.count) for item in keeping.holds.totals()} == {
        (DeletionKind.INSTANCES, 1),
        (DeletionKind.RESULTS, 2),
    }
    assert keeping.holds.named([instances.id, None, instances.id]) == [instances]
    assert keeping.holds.oldest_kept() is None


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE deletion SET rule = 'studies_days'",
        "UPDATE deletion SET finished_at = at",
        "DELETE FROM deletion",
    ],
)
def test_the_database_refuses_to_change_what_was_deleted(
    statement: str, keeping: Keeping, held: Holding
) -> None:
    held.clock.advance(3 * DAY)
    keeping.retention().sweep()
    with pytest.raises(ConstraintError):
        held.execute(statement)
