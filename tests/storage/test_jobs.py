from __future__ import annotations

from datetime import timedelta

import pytest

from storage.records import JobOutcome, LeaseLostError, NotFoundError, SupersededError
from storage.states import ErrorClass, JobState, TransitionError
from tests.storage.holding import STUDY, Holding, at_once, outcome, routing


def fail(held: Holding, retry_in: float | None = 0.0) -> tuple[int, JobState]:
    leased = held.lease()
    state = held.jobs.fail(
        leased.job.id,
        leased.token,
        error_class=ErrorClass.TRANSIENT,
        error="out of\0 luck",
        retry_in=retry_in,
    )
    return leased.job.id, state


def test_two_hundred_jobs_by_four_threads_are_leased_once_each(held: Holding) -> None:
    held.receive()
    expected = held.route(jobs=200)

    def drain() -> list[int]:
        found = []
        while (leased := held.jobs.lease("worker", 60)) is not None:
            found.append(leased.job.id)
        return found

    leased = [job_id for found in at_once(*[drain] * 4) for job_id in found]
    assert sorted(leased) == sorted(expected)


def test_the_most_urgent_job_is_leased_first_then_the_oldest(held: Holding) -> None:
    held.receive()
    first, second, third = held.route(jobs=3)
    held.execute("UPDATE job SET priority = 5 WHERE id = :id", id=third)
    assert [held.lease().job.id for _ in range(3)] == [third, first, second]
    assert held.jobs.lease("worker-1", 60) is None


def test_jobs_of_engines_that_are_left_out_stay_queued(held: Holding) -> None:
    held.receive()
    first, second = held.route(jobs=2)
    held.execute("UPDATE job SET engine = 'lungs' WHERE id = :id", id=second)
    leased = held.jobs.lease("worker-1", 60, without={"liver"})
    assert leased is not None
    assert leased.job.id == second
    assert held.jobs.lease("worker-1", 60, without={"liver"}) is None
    waiting = held.jobs.get(first)
    assert (waiting.state, waiting.attempts) == (JobState.QUEUED, 0)
    assert held.lease().job.id == first


def test_a_leased_job_carries_all_that_its_worker_needs(held: Holding) -> None:
    held.receive(2)
    held.receive(1)
    held.receive(1, data="conflict")
    held.receive(1, series=2)
    (job_id,) = held.route()
    leased = held.lease(seconds=90)
    assert (leased.job.id, leased.job.state, leased.job.attempts) == (job_id, JobState.RUNNING, 1)
    assert leased.lease_until == held.clock() + timedelta(seconds=90)
    assert leased.study.study_instance_uid == STUDY
    assert [row.sop_instance_uid for row in leased.instances] == [f"{STUDY}.1.1", f"{STUDY}.1.2"]
    assert leased.predecessors == ()
    assert leased.series_created_at == leased.job.created_at


def test_finishing_writes_results_and_deliveries_together(held: Holding) -> None:
    held.receive()
    study = held.complete()
    held.rules.save("rules", by="test")
    held.studies.route(study.id, 1, routing(1, 1, destinations=("PACS", "ARCHIVE")))
    deliveries = held.finish(results=2)
    assert len(deliveries) == 4
    assert held.jobs.counts() == {JobState.SUCCEEDED: 1}
    assert len(held.jobs.results(study_id=study.id)) == 2
    assert sorted(row.destination for row in held.deliveries.list(study_id=study.id)) == [
        "ARCHIVE",
        "ARCHIVE",
        "PACS",
        "PACS",
    ]


def test_a_refusal_is_an_end_with_its_own_results(held: Holding) -> None:
    held.receive()
    held.route()
    leased = held.lease()
    refused = JobOutcome(
        state=JobState.REFUSED, results=(), summary={"code": "too few slices"}, timings={}
    )
    assert held.jobs.finish(leased.job.id, leased.token, refused) == []
    job = held.jobs.get(leased.job.id)
    assert (job.state, job.summary) == (JobState.REFUSED, {"code": "too few slices"})


def test_a_stragglers_token_changes_nothing(held: Holding) -> None:
    held.receive()
    held.route()
    old = held.lease(seconds=10)
    held.clock.advance(11)
    assert held.jobs.expire_leases() == [old.job.id]
    new = held.lease()
    before, events = held.jobs.get(old.job.id), held.actions()
    with pytest.raises(LeaseLostError):
        held.jobs.finish(old.job.id, old.token, outcome(old))
    with pytest.raises(LeaseLostError):
        held.jobs.fail(old.job.id, old.token, error_class=ErrorClass.CRASH, error="", retry_in=None)
    with pytest.raises(LeaseLostError):
        held.jobs.give_back(old.job.id, old.token)
    assert not held.jobs.renew(old.job.id, old.token, 60)
    assert (held.jobs.get(old.job.id), held.actions()) == (before, events)
    assert (held.jobs.results(), held.deliveries.list()) == ([], [])
    held.jobs.finish(new.job.id, new.token, outcome(new))


def test_a_renewed_lease_does_not_expire(held: Holding) -> None:
    held.receive()
    held.route()
    leased = held.lease(seconds=10)
    held.clock.advance(9)
    assert held.jobs.renew(leased.job.id, leased.token, 10)
    held.clock.advance(9)
    assert held.jobs.expire_leases() == []


def test_a_failed_attempt_waits_until_its_time_and_then_runs_again(held: Holding) -> None:
    held.receive()
    held.route()
    job_id, state = fail(held, retry_in=20)
    job = held.jobs.get(job_id)
    assert (state, job.error, job.error_class) == (
        JobState.QUEUED,
        "out of luck",
        ErrorClass.TRANSIENT,
    )
    assert held.jobs.lease("worker-1", 60) is None
    held.clock.advance(20)
    again = held.lease()
    assert (again.job.attempts, again.job.error, again.token) == (2, "", 2)


def test_a_job_is_dead_when_its_attempts_are_spent(held: Holding) -> None:
    held.receive()
    held.route(max_attempts=2)
    assert [fail(held)[1] for _ in range(2)] == [JobState.QUEUED, JobState.DEAD]
    assert held.actions()[-2:] == ["job.leased", "job.dead"]


def test_a_deterministic_failure_is_not_tried_again(held: Holding) -> None:
    held.receive()
    held.route()
    job_id, state = fail(held, retry_in=None)
    assert state is JobState.FAILED
    assert held.jobs.get(job_id).finished_at == held.clock()


def test_an_expired_lease_counts_its_attempt(held: Holding) -> None:
    held.receive()
    (job_id,) = held.route(max_attempts=2)
    for expected in (JobState.QUEUED, JobState.DEAD):
        held.lease(seconds=10)
        held.clock.advance(11)
        assert held.jobs.expire_leases() == [job_id]
        assert held.jobs.get(job_id).state is expected
    assert held.jobs.get(job_id).error_class is ErrorClass.CRASH


def test_a_job_given_back_keeps_its_attempt(held: Holding) -> None:
    held.receive()
    held.route()
    leased = held.lease()
    held.jobs.give_back(leased.job.id, leased.token)
    again = held.lease()
    assert (again.job.attempts, again.token) == (1, 2)


def test_a_retry_by_hand_forgets_the_failure_and_has_every_attempt(held: Holding) -> None:
    held.receive()
    held.route(max_attempts=1)
    job_id, state = fail(held)
    assert state is JobState.DEAD
    held.jobs.retry(job_id, by="dr.meyer")
    job = held.jobs.get(job_id)
    assert (job.state, job.attempts, job.error, job.error_class, job.finished_at) == (
        JobState.QUEUED,
        0,
        "",
        None,
        None,
    )
    assert held.events.recent(1)[0].actor == "dr.meyer"
    with pytest.raises(TransitionError):
        held.jobs.retry(job_id, by="dr.meyer")
    with pytest.raises(NotFoundError):
        held.jobs.retry(404, by="dr.meyer")


def test_a_job_of_an_older_revision_cannot_be_retried(held: Holding) -> None:
    held.receive()
    held.route()
    job_id, _ = fail(held, retry_in=None)
    held.receive(2)
    with pytest.raises(SupersededError, match="revision 1; the study is at 2"):
        held.jobs.retry(job_id, by="dr.meyer")
    assert held.jobs.get(job_id).state is JobState.FAILED


def test_no_running_job_of_an_older_revision_comes_back_to_the_queue(held: Holding) -> None:
    held.receive()
    held.route(jobs=3)
    given, broken, silent = (held.lease(seconds=10) for _ in range(3))
    held.receive(2)
    with pytest.raises(LeaseLostError):
        held.jobs.give_back(given.job.id, given.token)
    with pytest.raises(LeaseLostError):
        held.jobs.fail(
            broken.job.id, broken.token, error_class=ErrorClass.CRASH, error="", retry_in=0
        )
    held.clock.advance(11)
    assert held.jobs.expire_leases() == []
    assert held.jobs.get(silent.job.id).state is JobState.SUPERSEDED


def test_a_job_that_is_not_there_is_not_found(held: Holding) -> None:
    with pytest.raises(NotFoundError):
        held.jobs.get(404)
    with pytest.raises(NotFoundError):
        held.jobs.fail(404, 1, error_class=ErrorClass.CRASH, error="", retry_in=0)
