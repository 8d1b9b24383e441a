"""What is past its deadline is told once, on the timeline of its study."""

from __future__ import annotations

from storage.events import EventStore
from storage.overdue import OverdueLimits, OverdueStore
from tests.storage.holding import Holding

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
