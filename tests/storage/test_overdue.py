"""What is past its deadline is told once, on the timeline of its study."""

from __future__ import annotations

import pytest

from storage.events import EventStore
from storage.overdue import OverdueLimits, OverdueStore
from storage.records import DeliveryAttempt
from storage.states import DeliveryState, Reached
from tests.storage.holding import STUDY, Holding
from tests.storage.recalling import notes, recall, sent

LIMITS = OverdueLimits(study=900, job=7200, delivery=3600, review=1800)


def told(held: Holding) -> list[tuple[str, str]]:
    found = OverdueStore(held.database, held.clock).raise_alerts(LIMITS)
    return [(item.kind, item.state) for item in found]


def alerts(held: Holding, study_id: int) -> int:
    events = EventStore(held.database, held.clock).timeline(study_id)
    return sum(event.action == "alert.overdue" for event in events)


def test_study_that_should_have_been_complete_is_told_once(held: Holding) -> None:
    study_id = held.receive().study_id
    held.clock.advance(600)
    assert told(held) == []
    held.clock.advance(600)
    assert told(held) == [("study", "receiving")]
    assert told(held) == []
    assert alerts(held, study_id) == 1


def test_study_is_told_again_after_a_new_instance(held: Holding) -> None:
    held.receive()
    held.clock.advance(2000)
    assert told(held) == [("study", "receiving")]
    held.receive(2)
    assert told(held) == []
    held.clock.advance(2000)
    assert told(held) == [("study", "receiving")]


def test_job_that_nobody_takes_is_told_once(held: Holding) -> None:
    held.receive()
    held.route()
    assert told(held) == []
    held.clock.advance(7300)
    assert told(held) == [("job", "queued")]
    assert told(held) == []


def test_delivery_that_does_not_arrive_is_told_once_and_a_sent_one_never(held: Holding) -> None:
    held.deliverable()
    held.clock.advance(3700)
    kinds = told(held)
    assert kinds
    assert set(kinds) == {("delivery", "queued")}
    assert told(held) == []


@pytest.mark.parametrize(("error", "state"), [("", "waiting"), ("the sandbox ended", "not made")])
def test_note_that_is_not_made_is_told_once(error: str, state: str, held: Holding) -> None:
    """UID-06: who has a recalled result has not been told."""
    held.deliverable()
    sent(held)
    recall(held)
    (pending,) = held.withdrawals.pending(limit=9)
    held.withdrawals.failed(pending.withdrawal.id, error)
    assert told(held) == []
    held.clock.advance(3700)
    assert told(held) == [("withdrawal", state)]
    assert told(held) == []
    study = held.studies.get(STUDY)
    assert alerts(held, study.id) == 1
    held.receive(2)
    held.clock.advance(2000)
    assert told(held) == [("study", "receiving")]


def refused(held: Holding) -> int:
    attempt = DeliveryAttempt(state=DeliveryState.FAILED, reached=Reached.NO, status=0xA900)
    return sent(held, attempt)


def test_note_that_is_refused_is_told_at_once_and_the_notice_in_its_place_too(
    held: Holding,
) -> None:
    """UID-06: where a notice goes instead, the archive goes on showing what is rejected."""
    held.deliverable()
    sent(held)
    recall(held)
    (pending,) = held.withdrawals.pending(limit=9)
    held.withdrawals.made(pending.withdrawal.id, [notes()])
    refused(held)
    assert told(held) == [("note", "replaced")]
    assert told(held) == []
    held.clock.advance(3700)
    assert told(held) == [("delivery", "queued")]
    held.clock.advance(1)
    refused(held)
    assert told(held) == [("note", "failed")]
    assert told(held) == []


def test_result_that_is_refused_is_no_note(held: Holding) -> None:
    held.deliverable()
    refused(held)
    assert told(held) == []


def test_what_no_person_judges_is_told_once(held: Holding) -> None:
    study_id = held.receive().study_id
    held.route()
    review = held.hold_back()
    assert told(held) == []
    held.clock.advance(1900)
    found = OverdueStore(held.database, held.clock).raise_alerts(LIMITS)
    assert [(item.kind, item.id, item.study_id) for item in found] == [("review", review, study_id)]
    assert [item.kind for item in found] == ["review"]
    assert told(held) == []
    assert alerts(held, study_id) == 1
    held.receive(2)
    held.clock.advance(2000)
    assert ("study", "receiving") in told(held)
