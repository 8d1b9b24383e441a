"""Jobs that run while their engine is recalled: what they make then is sent nowhere (A14)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from storage.recall_records import RecallScope
from storage.records import LeasedJob
from storage.states import JobState
from tests.storage.holding import STUDY, Holding, at_once, digest, outcome
from tests.storage.recalling import LIVER, recall, sent, states, waiting


def running(held: Holding, jobs: int = 1) -> LeasedJob:
    """Take one study as far as a job that runs; others of it wait."""
    held.deliveries.set_destinations([("PACS", "dimse")])
    held.receive()
    held.route(jobs=jobs)
    return held.lease()


def end(held: Holding, leased: LeasedJob) -> Sequence[int]:
    return held.jobs.finish(leased.job.id, leased.token, outcome(leased, 2))


def sendable(held: Holding) -> int:
    return len(held.deliveries.lease("PACS", limit=9, seconds=60))


def test_what_a_job_makes_that_ran_at_the_recall_is_withdrawn_as_it_ends(held: Holding) -> None:
    """Also where the engine has made nothing else."""
    leased = running(held)
    done = recall(held)
    assert (done.running, done.studies) == (1, ())
    end(held, leased)
    assert held.jobs.get(leased.job.id).state is JobState.SUCCEEDED
    assert states(held) == ["withdrawn", "withdrawn"]
    assert sendable(held) == 0
    assert {row.recall_id for row in held.jobs.results()} == {done.recall_id}
    assert waiting(held) == []
    (record,) = held.recalls.list(study_id=held.studies.get(STUDY).id)
    assert (record.studies, record.results, record.reason) == (1, 2, "it draws too much")


def test_both_the_recall_and_its_effect_stand_on_the_timeline(held: Holding) -> None:
    leased = running(held)
    recall(held)
    end(held, leased)
    events = {event.action: event for event in held.events.timeline(held.studies.get(STUDY).id)}
    for action in ("job.recalled", "results.recalled"):
        assert (events[action].actor, events[action].job_id) == ("anna", leased.job.id)
        assert events[action].details["reason"] == "it draws too much"
    assert events["results.recalled"].details["withdrawn"] == 2
    assert "delivery.withdrawn" in events


def test_a_look_before_counts_running_jobs_and_a_second_recall_does_not(held: Holding) -> None:
    running(held)
    assert held.recalls.affected(LIVER).running == 1
    recall(held)
    again = recall(held)
    assert (again.recall_id, again.running) == (None, 0)


def test_which_version_ran_is_known_as_it_ends_and_the_recall_of_it_counts(held: Holding) -> None:
    """As a version, or as the beginning of the package's digest."""
    leased = running(held)
    for version in ("2.0", digest("liver 2.0")[:8], digest("liver 1.0")[:8], "1.0"):
        assert recall(held, RecallScope(engine="liver", version=version)).running == 1
    end(held, leased)
    assert sendable(held) == 0
    assert {row.recall_id for row in held.jobs.results()} == {3}


def test_a_run_of_another_version_than_is_meant_is_sent(held: Holding) -> None:
    leased = running(held)
    recall(held, RecallScope(engine="liver", version="2.0"))
    end(held, leased)
    assert sendable(held) == 2
    assert {row.recall_id for row in held.jobs.results()} == {None}


def test_time_and_study_narrow_it_for_running_jobs_too(held: Holding) -> None:
    leased = running(held)
    now, minute = held.clock(), timedelta(minutes=1)
    for scope, found in (
        (RecallScope(engine="liver", until=now), 0),
        (RecallScope(engine="liver", until=now + minute), 1),
        (RecallScope(engine="liver", since=now - minute), 1),
        (RecallScope(engine="liver", study_instance_uid=STUDY), 1),
    ):
        assert held.recalls.affected(scope).running == found
    recall(held, RecallScope(engine="liver", until=now + minute))
    held.clock.advance(61)
    end(held, leased)
    assert sendable(held) == 2


def test_jobs_that_wait_at_the_recall_are_counted_and_run_and_are_sent(held: Holding) -> None:
    """A recall is about what was made; what is installed when they run is up to the admin."""
    running(held, jobs=2)
    done = recall(held)
    assert (done.running, done.queued) == (1, 1)
    end(held, held.lease())
    assert sendable(held) == 2


def test_a_later_run_of_a_job_that_ran_at_the_recall_is_sent(held: Holding) -> None:
    """Its worker fell silent: whoever takes it up runs what is installed by then."""
    running(held)
    recall(held)
    held.clock.advance(61)
    held.jobs.expire_leases()
    end(held, held.lease())
    assert sendable(held) == 2


def test_a_run_that_ends_in_the_moment_of_the_recall_is_taken_back_either_way(
    held: Holding, held_again: Holding
) -> None:
    leased = running(held)
    at_once(lambda: recall(held_again) and None, lambda: end(held, leased) and None)
    assert sendable(held) == 0
    assert states(held) == ["withdrawn", "withdrawn"]
    assert all(row.recall_id for row in held.jobs.results())


def test_what_is_taken_back_as_it_is_made_has_no_older_result_rejected(held: Holding) -> None:
    """Nothing comes in the place of the older one, which was made by another version."""
    held.deliverable()
    sent(held)
    held.receive(2)
    held.route()
    leased = held.lease()
    recall(held, RecallScope(engine="liver", version="2.0"))
    made = replace(outcome(leased), engine_version="2.0", rejecting=("PACS",))
    held.jobs.finish(leased.job.id, leased.token, made)
    assert states(held) == ["sent", "withdrawn"]
    assert waiting(held) == []
