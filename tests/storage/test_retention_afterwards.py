"""What comes after its study was deleted: kept again, tried again, or refused in words."""

from __future__ import annotations

import pytest

from storage.records import BytesDeletedError
from storage.states import (
    DeletionRule,
    ReceiptOutcome,
    StudyState,
)
from tests.storage.holding import STUDY, Holding
from tests.storage.keeping import DAY, Keeping, rules_of


def test_a_study_without_its_bytes_cannot_be_replayed_and_says_why(
    keeping: Keeping, held: Holding
) -> None:
    keeping.receive(1)
    keeping.receive(2)
    keeping.read()
    held.clock.advance(2 * DAY)
    keeping.retention().sweep()
    with pytest.raises(BytesDeletedError, match=r"of 2 of 2 instances .*\(studies_days\)"):
        held.studies.reopen(STUDY, reason="again", by="anna")
    assert held.studies.get(STUDY).revision == 1


def test_bytes_that_come_again_are_kept_again_and_change_nothing_else(
    keeping: Keeping, held: Holding
) -> None:
    keeping.receive(1)
    keeping.receive(2)
    keeping.read()
    held.clock.advance(2 * DAY)
    keeping.retention().sweep()
    back = keeping.receive(1)
    study = held.studies.get(STUDY)
    assert (study.revision, study.state, study.emptied_at) == (1, StudyState.ROUTED, None)
    assert keeping.bytes_there() == [True, False]
    assert held.studies.instances(study.id)[0].location == back
    assert held.actions()[-1] == "study.bytes_returned"
    assert "of 1 of 2 instances" in held.studies.gone(study.id)
    keeping.receive(2)
    assert held.studies.gone(study.id) == ""
    conservation = held.studies.conservation()
    assert (conservation.duplicates, conservation.missing) == (2, 0)
    held.studies.reopen(STUDY, reason="again", by="anna")
    assert held.studies.get(STUDY).revision == 2


def test_bytes_that_came_again_go_again(keeping: Keeping, held: Holding) -> None:
    keeping.receive(1)
    keeping.read()
    held.clock.advance(2 * DAY)
    keeping.retention().sweep()
    keeping.receive(1)
    assert keeping.retention().plan() == []
    held.clock.advance(1.1 * DAY)
    assert DeletionRule.STUDIES in rules_of(keeping)
    keeping.retention().sweep()
    assert keeping.bytes_there() == [False]
    assert len(keeping.holds.deletions(study_id=held.studies.get(STUDY).id)) == 3


def test_a_study_that_failed_for_want_of_bytes_is_tried_again_when_they_come(
    keeping: Keeping, held: Holding
) -> None:
    keeping.receive(1)
    keeping.read()
    held.clock.advance(2 * DAY)
    keeping.retention().sweep()
    keeping.receive(2)
    record = held.complete()
    assert record.revision == 2
    assert held.studies.gone(record.id)
    held.studies.fail_routing(record.id, 2, "BYTES_DELETED", code="BYTES_DELETED")
    assert held.events.timeline(record.id)[-1].details["code"] == "BYTES_DELETED"
    keeping.receive(1)
    record = held.studies.get(STUDY)
    assert (record.revision, record.state) == (3, StudyState.RECEIVING)
    assert held.studies.gone(record.id) == ""


def test_late_bytes_of_an_emptied_study_go_in_their_turn(keeping: Keeping, held: Holding) -> None:
    keeping.receive(1)
    keeping.read()
    held.clock.advance(2 * DAY)
    keeping.retention().sweep()
    keeping.receive(2)
    record = held.complete()
    held.studies.fail_routing(record.id, 2, "BYTES_DELETED")
    held.clock.advance(11 * DAY)
    assert DeletionRule.FAILED in rules_of(keeping)
    keeping.retention().sweep()
    assert keeping.bytes_there() == [False, False]


def test_a_conflict_goes_with_its_study(keeping: Keeping, held: Holding) -> None:
    keeping.receive(1)
    keeping.receive(1, data=b"other bytes" * 100)
    assert held.studies.conservation().conflicts == 1
    keeping.read()
    held.clock.advance(2 * DAY)
    keeping.retention().sweep()
    assert keeping.bytes_there() == [False, False]
    assert held.studies.conservation().missing == 0


def test_the_receipts_of_what_comes_again_say_duplicate(keeping: Keeping, held: Holding) -> None:
    keeping.receive(1)
    keeping.read()
    held.clock.advance(2 * DAY)
    keeping.retention().sweep()
    keeping.receive(1)
    outcomes = held.execute("SELECT outcome FROM receipt ORDER BY id")
    assert [row[0] for row in outcomes] == [ReceiptOutcome.STORED, ReceiptOutcome.DUPLICATE]
