from __future__ import annotations

import pytest

from storage.associations import AssociationStore
from storage.states import AssociationState, TransitionError
from tests.storage.holding import Holding


def opened(held: Holding, calling_ae: str = "SCANNER") -> int:
    return held.associations.opened(
        listener="dimse", calling_ae=calling_ae, called_ae="WETREAD", peer_address="10.0.0.1"
    )


def test_associations_are_listed_newest_first_with_how_they_ended(held: Holding) -> None:
    first, second = opened(held), opened(held, "CT2\0" + "x" * 100)
    held.clock.advance(5)
    held.associations.closed(first, AssociationState.RELEASED)
    newest, oldest = held.associations.recent()
    assert (newest.id, newest.state, newest.closed_at) == (second, AssociationState.OPEN, None)
    assert newest.calling_ae == "CT2" + "x" * 61
    assert (oldest.id, oldest.state) == (first, AssociationState.RELEASED)
    assert oldest.closed_at == held.clock()


def test_an_association_ends_once(held: Holding) -> None:
    association_id = opened(held)
    held.associations.closed(association_id, AssociationState.RELEASED)
    held.associations.closed(association_id, AssociationState.ABORTED)
    assert held.associations.recent()[0].state is AssociationState.RELEASED
    with pytest.raises(TransitionError):
        held.associations.closed(association_id, AssociationState.OPEN)


def test_a_start_ends_what_an_earlier_process_left_open(held: Holding) -> None:
    opened(held)
    held.associations.closed(opened(held), AssociationState.RELEASED)
    assert held.associations.abandon_open() == 1
    assert held.associations.abandon_open() == 0
    assert [row.state for row in held.associations.recent()] == [
        AssociationState.RELEASED,
        AssociationState.ABORTED,
    ]


def test_a_start_leaves_the_associations_of_another_node_alone(held: Holding) -> None:
    opened(held)
    other = AssociationStore(held.database, held.clock, owner="OTHER")
    assert other.abandon_open() == 0
    assert held.associations.recent()[0].state is AssociationState.OPEN
    assert held.associations.abandon_open() == 1
