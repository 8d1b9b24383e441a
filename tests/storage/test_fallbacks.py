"""A refused result is replaced by the next of its set; what was in reserve never outlasts that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import pytest

from storage.database import downgrade, migrate
from storage.fallbacks import TAKEN, Standing, judge
from storage.records import (
    ClassRecord,
    DeliveryAttempt,
    LeasedDelivery,
    NewDelivery,
)
from storage.states import DeliveryState
from tests.storage.holding import SEGMENTATION, STUDY, Holding, arrived, at_once, failed, outcome
from tests.storage.keeping import DAY, Keeping

REFUSED: Final = DeliveryAttempt(
    state=DeliveryState.FAILED, status=0x0122, error="SOP class not supported"
)
CHAIN: Final = (
    NewDelivery(destination="PACS", result=0, fallbacks=((1,), (2,))),
    NewDelivery(destination="PACS", result=1, fallbacks=((2,),), reserved=True),
    NewDelivery(destination="PACS", result=2, reserved=True),
)
"""A set of three objects: the first is sent, the others are held in reserve."""


def planned(held: Holding, *deliveries: NewDelivery) -> Sequence[int]:
    """Take a study to results with these deliveries; return them."""
    held.deliveries.set_destinations([("PACS", "dimse"), ("OTHER", "dimse")])
    held.receive()
    held.route()
    leased = held.lease()
    made = outcome(leased, 1 + max(new.result for new in deliveries))
    return held.jobs.finish(leased.job.id, leased.token, replace(made, deliveries=deliveries))


def states(held: Holding) -> list[str]:
    return [row.state.value for row in sorted(held.deliveries.list(), key=lambda row: row.id)]


def answer(held: Holding, attempt: DeliveryAttempt = REFUSED) -> LeasedDelivery:
    """Send what waits first, and get this answer."""
    leased = held.send()
    held.deliveries.record(leased.delivery.id, leased.token, attempt)
    return leased


def test_without_a_plan_every_result_goes_to_every_destination(held: Holding) -> None:
    held.deliverable(results=2)
    assert states(held) == ["queued", "queued"]


def test_what_is_held_in_reserve_is_not_sent(held: Holding) -> None:
    planned(held, *CHAIN)
    assert states(held) == ["queued", "reserved", "reserved"]
    assert len(held.deliveries.lease("PACS", limit=9, seconds=60)) == 1


def test_a_refused_object_is_replaced_by_the_next_and_both_say_so(held: Holding) -> None:
    """VIEW-02, NET-18."""
    first, second, third = planned(held, *CHAIN)
    answer(held)
    assert states(held) == ["replaced", "queued", "reserved"]
    answer(held, arrived())
    assert states(held) == ["replaced", "sent", "not_needed"]
    refused, sent, spare = sorted(held.deliveries.list(), key=lambda row: row.id)
    assert (refused.attempts, refused.status, refused.error) == (
        1,
        0x0122,
        "SOP class not supported",
    )
    assert (sent.attempts, sent.status, spare.attempts, spare.status) == (1, 0, 0, None)
    assert {row.finished_at for row in (refused, sent, spare)} == {held.clock()}
    told = [
        (event.action, event.delivery_id, event.details)
        for event in held.events.timeline(held.studies.get(STUDY).id)
        if event.action.startswith("delivery.")
    ]
    code = {"destination": "PACS", "attempt": 1}
    assert told == [
        ("delivery.replaced", first, {**code, "status": "0x0122", "instead": [second]}),
        ("delivery.released", second, {"destination": "PACS", "instead_of": first}),
        ("delivery.sent", second, {**code, "status": "0x0000"}),
        ("delivery.not_needed", third, {"destination": "PACS"}),
    ]


def test_what_arrives_needs_no_reserve(held: Holding) -> None:
    planned(held, *CHAIN)
    answer(held, arrived())
    assert states(held) == ["sent", "not_needed", "not_needed"]


def test_where_all_are_refused_the_last_one_has_failed(held: Holding) -> None:
    planned(held, *CHAIN)
    for _ in range(3):
        answer(held)
    assert states(held) == ["replaced", "replaced", "failed"]


def test_an_attempt_that_is_made_again_releases_nothing(held: Holding) -> None:
    planned(held, *CHAIN)
    answer(held, failed(retry_in=5))
    assert states(held) == ["queued", "reserved", "reserved"]


def test_what_is_stuck_is_tried_on_and_what_stands_in_for_it_goes_too(held: Holding) -> None:
    first, second, _ = planned(held, *CHAIN)
    stuck = replace(failed(retry_in=5), stuck=True)
    answer(held, stuck)
    assert states(held) == ["queued", "queued", "reserved"]
    assert held.actions()[-2:] == ["delivery.retried", "delivery.released"]
    leased = held.send()
    assert leased.delivery.id == second
    held.deliveries.record(leased.delivery.id, leased.token, arrived())
    assert states(held) == ["queued", "sent", "reserved"], "the first one may be refused yet"
    held.clock.advance(5)
    answer(held, stuck)
    assert states(held) == ["queued", "sent", "reserved"], "once is enough"
    held.clock.advance(5)
    assert answer(held, arrived()).delivery.id == first
    assert states(held) == ["sent", "sent", "not_needed"]


def test_a_fallback_that_went_anyway_is_not_sent_twice(held: Holding) -> None:
    planned(
        held,
        NewDelivery(destination="PACS", result=0, fallbacks=((1,),)),
        NewDelivery(destination="PACS", result=1),
    )
    answer(held)
    assert states(held) == ["replaced", "queued"]
    answer(held, arrived())
    assert states(held) == ["replaced", "sent"]


def test_several_objects_of_one_writer_go_together(held: Holding) -> None:
    planned(
        held,
        NewDelivery(destination="PACS", result=0, fallbacks=((1, 2), (3,))),
        *(
            NewDelivery(destination="PACS", result=each, fallbacks=((3,),), reserved=True)
            for each in (1, 2)
        ),
        NewDelivery(destination="PACS", result=3, reserved=True),
    )
    answer(held)
    assert states(held) == ["replaced", "queued", "queued", "reserved"]
    answer(held, arrived())
    assert states(held) == ["replaced", "sent", "queued", "reserved"]
    answer(held)
    assert states(held) == ["replaced", "sent", "replaced", "queued"]


def test_destinations_are_judged_apart(held: Holding) -> None:
    other = [replace(new, destination="OTHER") for new in CHAIN]
    planned(held, *CHAIN, *other)
    answer(held)
    assert states(held) == ["replaced", "queued", "reserved", "queued", "reserved", "reserved"]


def test_a_newer_revision_ends_what_is_in_reserve(held: Holding) -> None:
    planned(held, *CHAIN)
    leased = held.send()
    held.receive(2)
    assert states(held) == ["sending", "superseded", "superseded"]
    held.deliveries.record(leased.delivery.id, leased.token, REFUSED)
    assert states(held) == ["failed", "superseded", "superseded"]


def test_a_person_sends_again_and_what_was_not_needed_is_wanted_after_all(held: Holding) -> None:
    first, *_ = planned(held, *CHAIN)
    answer(held, arrived())
    held.deliveries.retry(first, by="admin")
    answer(held)
    assert states(held) == ["replaced", "queued", "not_needed"]
    held.deliveries.retry(first, by="admin")
    answer(held, arrived())
    assert states(held) == ["sent", "queued", "not_needed"]


def test_two_senders_that_end_at_once_leave_nothing_in_reserve(held: Holding) -> None:
    planned(
        held,
        NewDelivery(destination="PACS", result=0, fallbacks=((2,),)),
        NewDelivery(destination="PACS", result=1, fallbacks=((2,),)),
        NewDelivery(destination="PACS", result=2, reserved=True),
    )
    both = held.deliveries.lease("PACS", limit=2, seconds=60)
    assert len(both) == 2

    def ends(item: LeasedDelivery) -> None:
        held.deliveries.record(item.delivery.id, item.token, arrived())

    at_once(lambda: ends(both[0]), lambda: ends(both[1]))
    assert states(held) == ["sent", "sent", "not_needed"]


def test_bytes_in_reserve_are_kept_and_those_not_needed_go(keeping: Keeping, held: Holding) -> None:
    held.deliveries.set_destinations([("PACS", "dimse")])
    keeping.receive()
    held.route()
    leased = held.lease()
    made = replace(outcome(leased, 3), deliveries=CHAIN)
    results = [replace(new, digest=f"{index}" * 64) for index, new in enumerate(made.results)]
    held.jobs.finish(leased.job.id, leased.token, replace(made, results=tuple(results)))
    held.clock.advance(30 * DAY)
    assert [item for item in keeping.retention().plan() if item.kind == "results"] == []
    answer(held, arrived())
    held.clock.advance(3 * DAY)
    (item,) = [item for item in keeping.retention().plan() if item.kind == "results"]
    assert item.count == 3


def test_a_destinations_classes_are_learnt_from_its_answers(held: Holding) -> None:
    """VIEW-01."""
    planned(held, *CHAIN)
    answer(held)
    then = held.clock()
    held.clock.advance(1)
    (found,) = held.deliveries.sop_classes()
    assert found == ClassRecord(
        destination="PACS",
        sop_class_uid=SEGMENTATION,
        taken=0,
        refused=1,
        last_taken_at=None,
        last_refused_at=then,
        error="SOP class not supported",
    )
    assert found.refuses
    answer(held, arrived())
    (found,) = held.deliveries.sop_classes()
    assert (found.taken, found.refused, found.refuses) == (1, 1, False)


def test_an_older_schema_knows_the_new_states_as_its_own(bare_url: str) -> None:
    migrate(bare_url)
    held = Holding(bare_url)
    planned(held, *CHAIN)
    answer(held)
    held.close()
    downgrade(bare_url, "0002")
    older = Holding(bare_url)
    rows = older.execute("SELECT state FROM delivery ORDER BY id")
    older.close()
    assert [state for (state,) in rows] == ["failed", "queued", "superseded"]
    migrate(bare_url)


@pytest.mark.parametrize("state", sorted(TAKEN))
def test_a_destination_that_takes_everything_needs_no_reserve(state: DeliveryState) -> None:
    standings = {
        number: Standing(
            delivery_id=number,
            result_id=number,
            state=DeliveryState.RESERVED if number == 2 else DeliveryState.QUEUED,
            fallbacks=((2,),) if number < 2 else (),
        )
        for number in range(3)
    }
    first = judge(0, state, list(standings.values()))
    assert first.not_needed == ()
    standings[0] = replace(standings[0], state=state)
    assert judge(1, state, list(standings.values())).not_needed == (2,)
