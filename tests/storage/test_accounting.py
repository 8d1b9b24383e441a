from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from typing import TypeAlias

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage.records import Location, NotFoundError, QuarantinedInstance, StorageError
from storage.states import StudyState, TransitionError
from tests.storage.conftest import empty
from tests.storage.holding import STUDY, Holding, digest, outcome, routing

Step: TypeAlias = tuple[str, int, int]

STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["receive", "conflict", "own", "close", "route", "drop", "break", "replay", "junk"]
        ),
        st.integers(0, 1),
        st.integers(0, 2),
    ),
    max_size=12,
)


def receive(held: Holding, study: str, number: int) -> None:
    held.receive(number, study=study)


def conflict(held: Holding, study: str, number: int) -> None:
    held.receive(number, study=study, data=f"other {number}")


def own(held: Holding, study: str, number: int) -> None:
    del number
    leased = held.jobs.lease("worker", 60)
    if leased is not None:
        held.jobs.finish(leased.job.id, leased.token, outcome(leased))
    for result in held.jobs.results()[:1]:
        held.receive(study=study, sop_instance_uid=result.sop_instance_uid)


def close(held: Holding, study: str, number: int) -> None:
    del number
    held.studies.complete_now(study, by="test")


def route(held: Holding, study: str, number: int) -> None:
    record = held.studies.get(study)
    rules = held.rules.save("rules", by="test")
    held.studies.route(record.id, record.revision, routing(rules.revision, number))


def drop(held: Holding, study: str, number: int) -> None:
    del number
    route(held, study, 0)


def fail(held: Holding, study: str, number: int) -> None:
    del number
    record = held.studies.get(study)
    held.studies.fail_routing(record.id, record.revision, "cannot be compared")


def replay(held: Holding, study: str, number: int) -> None:
    held.studies.reopen(study, reason=str(number), by="test")


def junk(held: Holding, study: str, number: int) -> None:
    item = QuarantinedInstance(
        location=Location(pack="1" * 32, offset=64, length=404),
        digest=digest(f"{study} {number}"),
        size=1,
        reason="junk",
        listener="dimse",
    )
    held.studies.quarantine(item)


ACTS: dict[str, Callable[[Holding, str, int], None]] = {
    "receive": receive,
    "conflict": conflict,
    "own": own,
    "close": close,
    "route": route,
    "drop": drop,
    "break": fail,
    "replay": replay,
    "junk": junk,
}


def wipe(held: Holding) -> None:
    """Empty the database behind the stores' back, append-only tables too."""
    if held.database.dialect == "postgresql":
        empty(held.url)
        return
    triggers = held.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'")
    for name, _ in triggers:
        held.execute(f"DROP TRIGGER {name}")
    for table in (
        *("event", "delivery", "result", "instance", "series", "job", "study", "receipt"),
        *("quarantine", "rule_revision"),
    ):
        held.execute(f"DELETE FROM {table}")  # noqa: S608 - our own names
    for _, sql in triggers:
        held.execute(sql.replace(":", "\\:"))


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=STEPS)
def test_what_came_in_is_somewhere_after_every_step(held: Holding, steps: list[Step]) -> None:
    wipe(held)
    acknowledged = 0
    for act, study, number in steps:
        before = held.studies.conservation().received
        try:
            ACTS[act](held, f"{STUDY}.{study}", number)
        except (NotFoundError, TransitionError):
            assert held.studies.conservation().received == before
        counts = held.studies.conservation()
        assert counts.missing == 0
        assert counts.received >= acknowledged
        acknowledged = counts.received


def test_every_place_is_counted_apart(held: Holding) -> None:
    held.deliverable()
    (result,) = held.jobs.results()
    held.receive()
    held.receive(data="other")
    held.receive(sop_instance_uid=result.sop_instance_uid)
    held.receive(study="1.2.1")
    held.receive(study="1.2.2")
    held.route("1.2.2", jobs=0)
    study_id = held.receive(study="1.2.3").study_id
    held.complete("1.2.3")
    held.studies.fail_routing(study_id, 1, "no")
    junk(held, "junk", 1)
    counts = held.studies.conservation()
    assert (counts.received, counts.missing) == (7, 0)
    assert (counts.routed, counts.in_progress, counts.discarded, counts.failed) == (1, 1, 1, 1)
    assert (counts.duplicates, counts.conflicts, counts.own_results) == (1, 1, 1)
    assert counts.quarantined == 1
    assert held.studies.counts()[StudyState.UNMATCHED] == 1


def test_nothing_is_missing_for_a_moment_while_instances_come_in(held: Holding) -> None:
    stop = threading.Event()
    errors: list[StorageError] = []

    def send() -> None:
        for number in itertools.count():
            if stop.is_set():
                return
            try:
                held.receive(number % 7, study=f"{STUDY}.{number % 3}", data=str(number % 20))
            except StorageError as error:
                errors.append(error)

    threads = [threading.Thread(target=send) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        missing = {held.studies.conservation().missing for _ in range(60)}
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert (missing, errors) == ({0}, [])
