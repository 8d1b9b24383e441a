from __future__ import annotations

import time
from typing import TypeAlias
from unittest.mock import create_autospec

from node.catalogue import Catalogue
from node.pool import WorkerPool
from storage.errors import OutOfResourcesError

Answers: TypeAlias = list[Exception | None]


def catalogue(answers: Answers) -> Catalogue:
    """Return a catalogue whose golden cases end so, one time after the other."""
    made: Catalogue = create_autospec(Catalogue, instance=True, spec_set=True)
    made.verify.side_effect = answers  # type: ignore[attr-defined]
    return made


def test_a_database_that_is_away_at_the_start_only_delays_the_engines() -> None:
    pool = WorkerPool(catalogue([OutOfResourcesError("away"), None]), list)
    pool.start()
    until = time.monotonic() + 30
    while not pool.ready() and time.monotonic() < until:
        time.sleep(0.05)
    assert pool.ready()
    pool.stop()


def test_a_pool_that_still_waits_for_the_database_can_be_stopped() -> None:
    pool = WorkerPool(catalogue([OutOfResourcesError("away")] * 100), list)
    pool.start()
    pool.stop()
    assert not pool.ready()
