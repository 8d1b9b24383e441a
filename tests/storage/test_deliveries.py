from __future__ import annotations

from datetime import timedelta

import pytest

from storage.records import DeliveryAttempt, LeaseLostError, NotFoundError, SupersededError
from storage.states import DeliveryState, TransitionError
from tests.storage.holding import STUDY, Holding, arrived, at_once, failed


def state_of(held: Holding, delivery_id: int) -> DeliveryState:
    return {row.id: row.state for row in held.deliveries.list()}[delivery_id]


def reopened_while_sending(held: Holding) -> tuple[int, int]:
    """Return a delivery, and its token, whose study was opened again while it was sent."""
    held.deliverable()
    leased = held.send(seconds=10)
    held.receive(2)
    assert state_of(held, leased.delivery.id) is DeliveryState.SENDING
    return leased.delivery.id, leased.token


def test_a_result_is_sent_once_and_its_status_kept(held: Holding) -> None:
    (delivery_id,) = held.deliverable()
    leased = held.send()
    assert held.deliveries.lease("PACS", limit=9, seconds=60) == []
    held.deliveries.record(leased.delivery.id, leased.token, arrived())
    (row,) = held.deliveries.list(destination="PACS", state=DeliveryState.SENT)
    assert (row.id, row.attempts, row.status) == (delivery_id, 1, 0)
    assert row.finished_at == held.clock()
    assert held.events.recent(1)[0].details == {
        "destination": "PACS",
        "attempt": 1,
        "status": "0x0000",
    }


def test_a_hundred_deliveries_by_four_threads_are_claimed_once_and_never_too_many(
    held: Holding,
) -> None:
    expected = held.deliverable(results=100)

    def drain() -> list[list[int]]:
        batches = []
        while batch := held.deliveries.lease("PACS", limit=7, seconds=60):
            batches.append([item.delivery.id for item in batch])
        return batches

    batches = [batch for found in at_once(*[drain] * 4) for batch in found]
    assert max(len(batch) for batch in batches) <= 7
    claimed = [delivery_id for batch in batches for delivery_id in batch]
    assert sorted(claimed) == sorted(expected)


def test_a_failed_attempt_waits_and_its_text_stays_in_the_row(held: Holding) -> None:
    held.deliverable()
    leased = held.send()
    held.deliveries.record(leased.delivery.id, leased.token, failed(retry_in=20))
    (row,) = held.deliveries.list()
    assert (row.state, row.error, row.status) == (
        DeliveryState.QUEUED,
        "out of resources",
        0xA700,
    )
    assert held.deliveries.lease("PACS", limit=1, seconds=60) == []
    held.clock.advance(20)
    assert held.send().delivery.attempts == 2
    timeline = held.events.timeline(held.studies.get(STUDY).id)
    retried = next(event for event in timeline if event.action == "delivery.retried")
    assert retried.details == {"destination": "PACS", "attempt": 1, "status": "0xA700"}


def test_a_stragglers_answer_changes_nothing(held: Holding) -> None:
    (delivery_id,) = held.deliverable()
    old = held.send(seconds=10)
    held.clock.advance(11)
    assert held.deliveries.expire_leases() == 1
    new = held.send()
    before = held.deliveries.list()
    with pytest.raises(LeaseLostError):
        held.deliveries.record(delivery_id, old.token, arrived())
    with pytest.raises(LeaseLostError):
        held.deliveries.record(404, 1, arrived())
    assert held.deliveries.list() == before
    held.deliveries.record(delivery_id, new.token, arrived())


def test_a_lost_lease_stands_on_the_studys_timeline(held: Holding) -> None:
    (delivery_id,) = held.deliverable()
    held.send(seconds=10)
    assert held.deliveries.expire_leases() == 0
    held.clock.advance(11)
    assert held.deliveries.expire_leases() == 1
    assert state_of(held, delivery_id) is DeliveryState.QUEUED
    assert held.actions()[-1] == "delivery.lease_expired"


@pytest.mark.parametrize("state", [DeliveryState.PARKED, DeliveryState.CONFIRMED])
def test_an_attempt_cannot_end_in_a_state_that_is_none_of_its_ends(
    held: Holding, state: DeliveryState
) -> None:
    (delivery_id,) = held.deliverable()
    leased = held.send()
    with pytest.raises(TransitionError):
        held.deliveries.record(delivery_id, leased.token, DeliveryAttempt(state=state))


def test_a_delivery_that_fails_after_its_study_was_opened_again_is_not_sent_any_more(
    held: Holding,
) -> None:
    delivery_id, token = reopened_while_sending(held)
    held.deliveries.record(delivery_id, token, failed())
    assert state_of(held, delivery_id) is DeliveryState.SUPERSEDED
    assert held.actions()[-1] == "delivery.superseded"
    held.clock.advance(3600)
    assert held.deliveries.lease("PACS", limit=9, seconds=60) == []


def test_a_delivery_that_arrives_after_its_study_was_opened_again_did_arrive(
    held: Holding,
) -> None:
    delivery_id, token = reopened_while_sending(held)
    held.deliveries.record(delivery_id, token, arrived())
    assert state_of(held, delivery_id) is DeliveryState.SENT


def test_a_delivery_whose_lease_ends_after_its_study_was_opened_again_is_superseded(
    held: Holding,
) -> None:
    delivery_id, _ = reopened_while_sending(held)
    held.clock.advance(11)
    assert held.deliveries.expire_leases() == 1
    assert state_of(held, delivery_id) is DeliveryState.SUPERSEDED


def test_an_old_result_cannot_be_sent_again_by_hand(held: Holding) -> None:
    delivery_id, token = reopened_while_sending(held)
    held.deliveries.record(delivery_id, token, arrived())
    with pytest.raises(SupersededError, match="revision 1; the study is at 2"):
        held.deliveries.retry(delivery_id, by="dr.meyer")
    assert state_of(held, delivery_id) is DeliveryState.SENT


def test_a_retry_by_hand_stands_on_the_studys_timeline(held: Holding) -> None:
    (delivery_id,) = held.deliverable()
    leased = held.send()
    refused = DeliveryAttempt(state=DeliveryState.FAILED, status=0xC000, error="no")
    held.deliveries.record(delivery_id, leased.token, refused)
    held.deliveries.retry(delivery_id, by="dr.meyer")
    (row,) = held.deliveries.list()
    assert (row.state, row.status, row.error, row.finished_at) == (
        DeliveryState.QUEUED,
        None,
        "",
        None,
    )
    last = held.events.timeline(held.studies.get(STUDY).id)[-1]
    assert (last.action, last.actor) == ("delivery.retried", "dr.meyer")
    with pytest.raises(TransitionError):
        held.deliveries.retry(delivery_id, by="dr.meyer")
    with pytest.raises(NotFoundError):
        held.deliveries.retry(404, by="dr.meyer")


def test_a_parked_destination_is_sent_nothing_until_it_is_back(held: Holding) -> None:
    held.deliverable(results=2)
    until = held.clock() + timedelta(seconds=60)
    assert held.deliveries.park("PACS", until, "connection\0 refused") == 2
    assert held.deliveries.counts() == {DeliveryState.PARKED: 2}
    (record,) = held.deliveries.destinations()
    assert (record.failures, record.parked_until) == (1, until)
    assert record.last_error == "connection refused"
    held.clock.advance(3600)
    assert held.deliveries.lease("PACS", limit=9, seconds=60) == []
    assert held.deliveries.unpark("PACS") == 2
    (record,) = held.deliveries.destinations()
    assert (record.failures, record.parked_until, record.last_error) == (0, None, "")
    assert len(held.deliveries.lease("PACS", limit=9, seconds=60)) == 2


def test_parking_stands_on_the_timeline_of_each_study_and_once_for_the_destination(
    held: Holding,
) -> None:
    held.deliverable(results=2)
    study_id = held.studies.get(STUDY).id
    for _ in range(2):
        held.deliveries.park("PACS", held.clock(), "Error Comment: Doe^Jane")
    held.deliveries.unpark("PACS")
    told = [
        (event.action, event.study_id, event.details)
        for event in reversed(held.events.recent())
        if event.action.startswith("destination.")
    ]
    details = {"destination": "PACS", "deliveries": 2}
    assert told == [
        ("destination.parked", None, details),
        ("destination.parked", study_id, details),
        ("destination.unparked", None, details),
        ("destination.unparked", study_id, details),
    ]


def test_a_destination_that_comes_back_is_sent_what_waits_at_once(held: Holding) -> None:
    held.deliverable()
    leased = held.send()
    held.deliveries.record(leased.delivery.id, leased.token, failed(retry_in=3600))
    held.deliveries.park("PACS", held.clock(), "down")
    held.deliveries.unpark("PACS")
    assert held.send().delivery.attempts == 2


def test_a_parked_result_is_superseded_with_its_revision(held: Holding) -> None:
    held.deliverable()
    held.deliveries.park("PACS", held.clock(), "down")
    held.receive(2)
    assert held.deliveries.unpark("PACS") == 0
    assert held.deliveries.counts() == {DeliveryState.SUPERSEDED: 1}


def test_a_destination_that_went_stays_while_deliveries_refer_to_it(held: Holding) -> None:
    held.deliverable()
    held.deliveries.set_destinations([("PACS", "dimse"), ("ARCHIVE", "folder")])
    held.deliveries.set_destinations([])
    assert [(row.name, row.kind) for row in held.deliveries.destinations()] == [("PACS", "dimse")]
    with pytest.raises(NotFoundError):
        held.deliveries.park("ARCHIVE", held.clock(), "")
    assert held.deliveries.lease("ARCHIVE", limit=1, seconds=1) == []
