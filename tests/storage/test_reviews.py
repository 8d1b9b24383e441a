"""What cannot be true waits for a person: released it goes out, discarded it never does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from storage.holdings import HoldingStore
from storage.records import (
    ConstraintError,
    NewDelivery,
    NewReview,
    NotFoundError,
    ResultRecord,
    SupersededError,
)
from storage.reviews import ReviewRecord
from storage.states import DeliveryState, ReviewState
from tests.storage.holding import STUDY, Holding, outcome
from tests.storage.recalling import recall


@pytest.fixture
def review(held: Holding) -> int:
    held.deliveries.set_destinations([("PACS", "dimse")])
    held.receive()
    held.route()
    return held.hold_back()


def everything(found: ReviewRecord, results: Sequence[ResultRecord]) -> Sequence[NewDelivery]:
    """Send the first result, and keep the second in reserve for it."""
    assert len(results) == 2
    (destination,) = found.destinations
    return (
        NewDelivery(destination=destination, result=0, fallbacks=((1,),)),
        NewDelivery(destination=destination, result=1, reserved=True),
    )


def release(held: Holding, review: int) -> Sequence[int]:
    return held.reviews.release(review, by="dr", comment="it is a small lung", plan=everything)


def actions(held: Holding) -> list[str]:
    return [event.action for event in held.events.timeline(held.studies.get(STUDY).id)]


def sent_classes(held: Holding) -> int:
    """Count the results that somebody who asks is given."""
    found = HoldingStore(held.database).instances(STUDY)
    return sum(item.location is None for item in found)


def test_what_is_held_back_is_given_to_nobody_but_what_tells_of_it_goes(
    held: Holding, review: int
) -> None:
    assert held.reviews.waiting() == 1
    (found,) = held.reviews.list(waiting=True)
    assert (found.id, found.state, found.kind) == (review, ReviewState.WAITING, "segmentation")
    assert found.reason == "a lung of 9 ml"
    assert [item.withheld for item in held.reviews.results(review)] == [True, True]
    results = held.jobs.results()
    assert sorted(item.withheld for item in results) == [False, True, True]
    (delivery,) = held.deliveries.list()
    assert delivery.result_id not in {item.id for item in held.reviews.results(review)}
    assert sent_classes(held) == 1
    assert "review.opened" in actions(held)


def test_what_is_released_goes_as_its_profile_says(held: Holding, review: int) -> None:
    ids = release(held, review)
    states = {item.id: item.state for item in held.deliveries.list()}
    assert [states[item] for item in ids] == [DeliveryState.QUEUED, DeliveryState.RESERVED]
    assert held.reviews.waiting() == 0
    found = held.reviews.get(review)
    assert (found.state, found.decided_by) == (ReviewState.RELEASED, "dr")
    assert found.comment == "it is a small lung"
    assert found.decided_at == held.clock.now
    assert sent_classes(held) == 3
    assert "review.released" in actions(held)


def test_what_is_discarded_stays_with_the_node(held: Holding, review: int) -> None:
    held.reviews.discard(review, by="dr", comment="nonsense")
    assert held.reviews.get(review).state is ReviewState.DISCARDED
    assert held.reviews.waiting() == 0
    assert sent_classes(held) == 1
    assert len(held.deliveries.list()) == 1
    assert "review.discarded" in actions(held)


def test_a_decision_is_made_once(held: Holding, review: int) -> None:
    held.reviews.discard(review, by="dr", comment="")
    with pytest.raises(ConstraintError, match="is discarded already"):
        release(held, review)
    with pytest.raises(ConstraintError, match="is discarded already"):
        held.reviews.discard(review, by="other", comment="")
    assert sent_classes(held) == 1
    assert held.reviews.get(review).decided_by == "dr"


def test_what_a_newer_revision_replaces_is_not_released(held: Holding, review: int) -> None:
    held.receive(2)
    assert held.reviews.get(review).state is ReviewState.SUPERSEDED
    with pytest.raises(SupersededError):
        release(held, review)
    assert "review.superseded" in actions(held)
    assert held.reviews.waiting() == 0


def test_a_review_that_is_not_there_is_named(held: Holding) -> None:
    with pytest.raises(NotFoundError, match="there is no review 7"):
        held.reviews.get(7)
    with pytest.raises(NotFoundError, match="there is no review 7"):
        release(held, 7)


def test_what_is_recalled_waits_for_nobody_and_cannot_be_released(
    held: Holding, review: int
) -> None:
    recall(held)
    found = held.reviews.get(review)
    assert (found.state, found.decided_by) == (ReviewState.DISCARDED, "anna")
    assert found.comment == "it draws too much"
    assert actions(held).count("review.discarded") == 1
    with pytest.raises(ConstraintError):
        release(held, review)


def test_what_is_held_back_by_a_job_that_ran_at_the_recall_cannot_be_released(
    held: Holding,
) -> None:
    held.deliveries.set_destinations([("PACS", "dimse")])
    held.receive()
    held.route()
    leased = held.lease()
    recall(held)
    made = outcome(leased)
    what = NewReview(kind="segmentation", reason="a lung of 9 ml", results=made.results)
    held.jobs.finish(leased.job.id, leased.token, replace(made, results=(), review=what))
    (found,) = held.reviews.list()
    assert found.state is ReviewState.DISCARDED
    assert all(item.recall_id for item in held.reviews.results(found.id))


def test_what_was_released_and_is_then_recalled_is_taken_out_of_the_queue(
    held: Holding, review: int
) -> None:
    release(held, review)
    recall(held)
    states = {item.state for item in held.deliveries.list()}
    assert states == {DeliveryState.WITHDRAWN}
