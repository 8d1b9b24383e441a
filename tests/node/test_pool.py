from __future__ import annotations

import time
from typing import TypeAlias
from unittest.mock import create_autospec

from node.bell import Bell
from node.breaker import BreakerLimits, EngineBreaker
from node.catalogue import Catalogue
from node.clock import system_clock
from node.pool import WorkerPool
from storage.errors import OutOfResourcesError
from storage.states import ErrorClass

Answers: TypeAlias = list[Exception | None]


def catalogue(answers: Answers) -> Catalogue:
    """Return a catalogue whose golden cases end so, one time after the other."""
    made: Catalogue = create_autospec(Catalogue, instance=True, spec_set=True)
    made.verify.side_effect = answers  # type: ignore[attr-defined]
    return made


def breaker(seconds: float = 600.0) -> EngineBreaker:
    return EngineBreaker(
        limits=BreakerLimits(studies=1, seconds=seconds),
        clock=system_clock,
        quarantine=lambda _name, _reason: None,
    )


def test_a_database_that_is_away_at_the_start_only_delays_the_engines() -> None:
    pool = WorkerPool(catalogue([OutOfResourcesError("away"), None]), breaker(), list)
    pool.start()
    until = time.monotonic() + 30
    while not pool.ready() and time.monotonic() < until:
        time.sleep(0.05)
    assert pool.ready()
    pool.stop()


def test_a_pool_that_still_waits_for_the_database_can_be_stopped() -> None:
    pool = WorkerPool(catalogue([OutOfResourcesError("away")] * 100), breaker(), list)
    pool.start()
    pool.stop()
    assert not pool.ready()


def test_an_engine_that_rested_is_verified_again_and_its_jobs_are_called_for() -> None:
    installed, rests, work = catalogue([None]), breaker(0.01), Bell()
    installed.verify_engine.side_effect = [  # type: ignore[attr-defined]
        OutOfResourcesError("away"),
        False,
        True,
    ]
    rests.failed("lungs", 1, ErrorClass.CRASH)
    pool = WorkerPool(installed, rests, list, work)
    pool.start()
    until = time.monotonic() + 30
    while rests.resting() and time.monotonic() < until:
        time.sleep(0.05)
    pool.stop()
    assert not rests.resting()
    assert installed.verify_engine.call_count == 3  # type: ignore[attr-defined]
    assert work.rings >= 2
