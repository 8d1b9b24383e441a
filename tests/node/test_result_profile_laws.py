"""Whatever a profile says and a destination answers, every delivery ends and nothing is silent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import Final

from hypothesis import given
from hypothesis import strategies as st

from node.result_profiles import plan
from storage.fallbacks import ON_ITS_WAY, TAKEN, Standing, judge
from storage.states import DELIVERY_TRANSITIONS, DeliveryState, check_transition

ENDS: Final = (DeliveryState.SENT, DeliveryState.WARNED, DeliveryState.FAILED)
WRITERS: Final = ("a", "b", "c", "d", "e")
SETS = st.lists(
    st.lists(st.sampled_from(WRITERS), min_size=1, max_size=4, unique=True),
    min_size=1,
    max_size=5,
)
MADE = st.lists(st.sampled_from(WRITERS), min_size=1, max_size=8)


def standings_of(sets: Sequence[Sequence[str]], made: Sequence[str]) -> dict[int, Standing]:
    """Return the deliveries of a plan as their rows would stand; ids are the results'."""
    return {
        new.result: Standing(
            delivery_id=new.result,
            result_id=new.result,
            state=DeliveryState.RESERVED if new.reserved else DeliveryState.QUEUED,
            fallbacks=new.fallbacks,
        )
        for new in plan(sets, "pacs", made)
    }


def going(standings: Mapping[int, Standing]) -> list[int]:
    return sorted(key for key, item in standings.items() if item.state in ON_ITS_WAY)


def end_one(
    standings: Mapping[int, Standing], ended: int, state: DeliveryState
) -> dict[int, Standing]:
    """Return the standings after one delivery has ended, each change as the table allows."""
    verdict = judge(ended, state, list(standings.values()))
    changes = {
        ended: verdict.state,
        **dict.fromkeys(verdict.released, DeliveryState.QUEUED),
        **dict.fromkeys(verdict.not_needed, DeliveryState.NOT_NEEDED),
    }
    after = dict(standings)
    for delivery_id, new in changes.items():
        old = DeliveryState.SENDING if delivery_id == ended else after[delivery_id].state
        check_transition(DELIVERY_TRANSITIONS, old, new)
        after[delivery_id] = replace(after[delivery_id], state=new)
    return after


def found(standings: Mapping[int, Standing]) -> set[DeliveryState]:
    return {item.state for item in standings.values()}


@given(SETS, MADE, st.data())
def test_every_order_of_answers_brings_every_delivery_to_an_end(
    sets: list[list[str]], made: list[str], data: st.DataObject
) -> None:
    standings, steps = standings_of(sets, made), 0
    while open_ones := going(standings):
        ended = data.draw(st.sampled_from(open_ones))
        standings = end_one(standings, ended, data.draw(st.sampled_from(ENDS)))
        steps += 1
    assert steps <= len(standings), "something was sent twice"
    assert DeliveryState.RESERVED not in found(standings)
    if standings and not found(standings) & TAKEN:
        assert DeliveryState.FAILED in found(standings), "silence that nobody is told of"


@given(SETS, MADE, st.randoms(use_true_random=False))
def test_a_destination_that_refuses_everything_was_sent_everything(
    sets: list[list[str]], made: list[str], chance: Random
) -> None:
    standings = standings_of(sets, made)
    while open_ones := going(standings):
        standings = end_one(standings, chance.choice(open_ones), DeliveryState.FAILED)
    assert found(standings) <= {DeliveryState.FAILED, DeliveryState.REPLACED}


@given(SETS, MADE, st.sets(st.sampled_from(WRITERS)), st.randoms(use_true_random=False))
def test_each_set_gets_something_where_any_of_it_is_taken(
    sets: list[list[str]], made: list[str], taken: set[str], chance: Random
) -> None:
    """VIEW-02: whatever the order of the answers."""
    standings = standings_of(sets, made)
    while open_ones := going(standings):
        ended = chance.choice(open_ones)
        state = DeliveryState.SENT if made[ended] in taken else DeliveryState.FAILED
        standings = end_one(standings, ended, state)
    arrived = {made[key] for key, item in standings.items() if item.state in TAKEN}
    for each in sets:
        wanted = [name for name in each if name in made and name in taken]
        assert not wanted or arrived & set(wanted), (sets, arrived)


@given(SETS, MADE, st.data())
def test_a_destination_that_takes_everything_gets_the_first_of_each_set(
    sets: list[list[str]], made: list[str], data: st.DataObject
) -> None:
    standings = standings_of(sets, made)
    while open_ones := going(standings):
        ended = data.draw(st.sampled_from(open_ones))
        standings = end_one(standings, ended, DeliveryState.SENT)
    arrived = {made[key] for key, item in standings.items() if item.state in TAKEN}
    there = [[name for name in each if name in made] for each in sets]
    assert arrived == {each[0] for each in there if each}
