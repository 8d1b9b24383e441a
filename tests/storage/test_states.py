from __future__ import annotations

import pytest

from storage.states import (
    DELIVERY_TRANSITIONS,
    JOB_TRANSITIONS,
    STUDY_TRANSITIONS,
    DeliveryState,
    JobState,
    StudyState,
    TransitionError,
    check_transition,
)


def test_every_state_has_its_transitions() -> None:
    assert set(STUDY_TRANSITIONS) == set(StudyState)
    assert set(JOB_TRANSITIONS) == set(JobState)
    assert set(DELIVERY_TRANSITIONS) == set(DeliveryState)


def test_what_is_superseded_never_comes_back() -> None:
    assert JOB_TRANSITIONS[JobState.SUPERSEDED] == frozenset()
    assert DELIVERY_TRANSITIONS[DeliveryState.SUPERSEDED] == frozenset()


def test_a_transition_that_is_not_in_the_table_names_both_states() -> None:
    with pytest.raises(TransitionError, match="StudyState: receiving -> routed"):
        check_transition(STUDY_TRANSITIONS, StudyState.RECEIVING, StudyState.ROUTED)
    check_transition(STUDY_TRANSITIONS, StudyState.RECEIVING, StudyState.COMPLETE)
