from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from node.breaker import BreakerLimits, EngineBreaker
from storage.states import ErrorClass

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class Ward:
    """A breaker with a clock that is set, and what it told."""

    def __init__(self) -> None:
        self.now = START
        self.told: list[tuple[str, str]] = []
        self.breaker = EngineBreaker(
            limits=BreakerLimits(studies=3, seconds=600),
            clock=lambda: self.now,
            quarantine=lambda name, reason: self.told.append((name, reason)),
        )

    def fail(self, *studies: int, engine: str = "lungs") -> None:
        for study in studies:
            self.breaker.failed(engine, study, ErrorClass.CRASH)


@pytest.fixture
def ward() -> Ward:
    return Ward()


def test_failures_on_three_studies_in_a_row_end_in_a_rest_with_its_reason(ward: Ward) -> None:
    ward.fail(1, 2)
    assert ward.breaker.resting() == frozenset()
    ward.fail(3)
    assert ward.breaker.resting() == {"lungs"}
    ((name, reason),) = ward.told
    assert name == "lungs"
    assert reason.startswith("quarantined: the last 3 studies in a row failed, at last by crash")
    assert "golden case again at 03:14 UTC" in reason


def test_a_study_that_is_tried_again_and_again_counts_once(ward: Ward) -> None:
    ward.fail(1, 1, 1, 1)
    assert not ward.breaker.resting()


def test_a_success_between_breaks_the_row(ward: Ward) -> None:
    ward.fail(1, 2)
    ward.breaker.succeeded("lungs")
    ward.fail(3, 4)
    assert not ward.breaker.resting()


def test_another_engine_is_not_concerned(ward: Ward) -> None:
    ward.fail(1, 2)
    ward.fail(3, engine="liver")
    assert not ward.breaker.resting()
    ward.fail(3)
    assert ward.breaker.resting() == {"lungs"}


@pytest.mark.parametrize("error_class", ErrorClass)
def test_a_disk_or_database_that_fails_is_not_held_against_it(
    error_class: ErrorClass, ward: Ward
) -> None:
    for study in (1, 2, 3):
        ward.breaker.failed("lungs", study, error_class)
    assert bool(ward.breaker.resting()) is (error_class is not ErrorClass.TRANSIENT)


def test_it_is_due_after_its_rest_and_not_before(ward: Ward) -> None:
    ward.fail(1, 2, 3)
    ward.now = START + timedelta(seconds=599)
    assert ward.breaker.due() == ()
    ward.now = START + timedelta(seconds=600)
    assert ward.breaker.due() == ("lungs",)


def test_not_passed_it_rests_on(ward: Ward) -> None:
    ward.fail(1, 2, 3)
    ward.now = START + timedelta(seconds=600)
    ward.breaker.tried("lungs", passed=False)
    assert ward.breaker.due() == ()
    assert ward.breaker.resting() == {"lungs"}
    ward.now = START + timedelta(seconds=1200)
    assert ward.breaker.due() == ("lungs",)


def test_passed_it_takes_jobs_but_one_more_failure_sends_it_back(ward: Ward) -> None:
    ward.fail(1, 2, 3)
    ward.breaker.tried("lungs", passed=True)
    assert not ward.breaker.resting()
    ward.fail(4)
    assert ward.breaker.resting() == {"lungs"}
    assert len(ward.told) == 2


def test_a_success_ends_its_probation(ward: Ward) -> None:
    ward.fail(1, 2, 3)
    ward.breaker.tried("lungs", passed=True)
    ward.breaker.succeeded("lungs")
    ward.fail(4, 5)
    assert not ward.breaker.resting()


def test_what_was_under_way_when_its_rest_began_changes_nothing(ward: Ward) -> None:
    ward.fail(1, 2, 3)
    ward.breaker.succeeded("lungs")
    ward.fail(4)
    assert ward.breaker.resting() == {"lungs"}
    assert len(ward.told) == 1
