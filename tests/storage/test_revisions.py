"""Two transactions at once on PostgreSQL: the second is stopped in the middle of the first.

SQLite has one writer at a time, so there is no middle there.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime

import pytest
from sqlalchemy.orm import Session

from storage import revisions
from storage.models import Study
from storage.records import LeaseLostError
from storage.states import DeliveryState, ErrorClass, JobState
from tests.storage.conftest import empty
from tests.storage.holding import STUDY, Holding, failed, outcome, routing

SOON = 10.0


class Reopening:
    """A late instance whose transaction stands still once its study is locked and changed."""

    def __init__(self, held: Holding, patch: pytest.MonkeyPatch) -> None:
        self._held = held
        self._locked, self._go = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._record)
        original = revisions._supersede_open_work

        def stop_first(session: Session, at: datetime, study: Study) -> None:
            session.flush()
            self._locked.set()
            assert self._go.wait(SOON)
            original(session, at, study)

        patch.setattr(revisions, "_supersede_open_work", stop_first)

    def _record(self) -> None:
        self._held.receive(99)

    def __enter__(self) -> None:
        self._thread.start()
        assert self._locked.wait(SOON)

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Let it go on, and wait for its end."""
        self._go.set()
        self._thread.join(SOON)
        assert not self._thread.is_alive()


class Meanwhile:
    """A call in a thread of its own."""

    def __init__(self, call: Callable[[], object]) -> None:
        self._call = call
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._call()
        except BaseException as error:  # noqa: BLE001 - raised again in the test's own thread
            self._error = error

    def ends(self, within: float = SOON) -> bool:
        """Say whether the call came to its end; raise what it raised."""
        self._thread.join(within)
        if self._error is not None:
            raise self._error
        return not self._thread.is_alive()


@pytest.fixture
def held(postgres_url: str) -> Iterator[Holding]:
    empty(postgres_url)
    holding = Holding(postgres_url)
    yield holding
    holding.close()


def test_a_job_ends_while_its_study_is_being_opened_again(
    held: Holding, monkeypatch: pytest.MonkeyPatch
) -> None:
    held.deliveries.set_destinations([("PACS", "dimse")])
    held.receive()
    held.route(jobs=3)
    done, broken, given = held.lease(), held.lease(), held.lease()
    with Reopening(held, monkeypatch):
        # Each writes an event, whose key locks the study's row: it must not wait for that.
        assert Meanwhile(lambda: held.jobs.finish(done.job.id, done.token, outcome(done))).ends()
        assert Meanwhile(
            lambda: held.jobs.fail(
                broken.job.id, broken.token, error_class=ErrorClass.CRASH, error="", retry_in=0
            )
        ).ends()
        assert Meanwhile(lambda: held.jobs.give_back(given.job.id, given.token)).ends()
    assert held.jobs.counts() == {JobState.SUCCEEDED: 1, JobState.SUPERSEDED: 2}
    assert held.deliveries.counts() == {DeliveryState.SUPERSEDED: 1}


def test_leases_expire_while_a_study_is_being_opened_again(
    held: Holding, monkeypatch: pytest.MonkeyPatch
) -> None:
    held.receive()
    held.route()
    held.lease(seconds=10)
    held.clock.advance(11)
    with Reopening(held, monkeypatch):
        assert Meanwhile(held.jobs.expire_leases).ends()
    assert held.jobs.counts() == {JobState.SUPERSEDED: 1}


def test_a_delivery_that_fails_while_its_study_is_being_opened_again_is_superseded(
    held: Holding, monkeypatch: pytest.MonkeyPatch
) -> None:
    held.deliverable()
    leased = held.send()
    with Reopening(held, monkeypatch):
        answer = Meanwhile(
            lambda: held.deliveries.record(leased.delivery.id, leased.token, failed())
        )
        assert not answer.ends(within=0.3)
    assert answer.ends()
    assert held.deliveries.counts() == {DeliveryState.SUPERSEDED: 1}


def test_a_delivery_that_expires_while_its_study_is_being_opened_again_is_superseded(
    held: Holding, monkeypatch: pytest.MonkeyPatch
) -> None:
    held.deliverable()
    held.send(seconds=10)
    held.clock.advance(11)
    with Reopening(held, monkeypatch):
        sweep = Meanwhile(held.deliveries.expire_leases)
        assert not sweep.ends(within=0.3)
    assert sweep.ends()
    assert held.deliveries.counts() == {DeliveryState.SUPERSEDED: 1}


def test_a_destination_is_parked_while_a_study_is_being_opened_again(
    held: Holding, monkeypatch: pytest.MonkeyPatch
) -> None:
    held.deliverable(results=3)
    with Reopening(held, monkeypatch):
        assert Meanwhile(lambda: held.deliveries.park("PACS", held.clock(), "down")).ends()
    assert held.deliveries.counts() == {DeliveryState.SUPERSEDED: 3}


def test_a_job_that_was_superseded_first_takes_no_outcome(
    held: Holding, monkeypatch: pytest.MonkeyPatch
) -> None:
    held.receive()
    held.route()
    leased = held.lease()
    with Reopening(held, monkeypatch):
        pass
    with pytest.raises(LeaseLostError):
        held.jobs.finish(leased.job.id, leased.token, outcome(leased))
    assert held.jobs.results(study_id=held.studies.get(STUDY).id) == []


class Traffic:
    """Four kinds of writers on the same studies, each in a loop until the first has ended."""

    def __init__(self, held: Holding) -> None:
        self._held = held
        self.stop = threading.Event()

    def receive(self) -> None:
        """Send late instances to four studies, and route each anew."""
        for number in range(12):
            for study in (f"{STUDY}.{index}" for index in range(4)):
                self._held.receive(number, study=study)
                self._held.studies.complete_now(study, by="test")
                record = self._held.studies.get(study)
                self._held.studies.route(record.id, record.revision, routing(1, 2))
        self.stop.set()

    def work(self) -> None:
        """Finish jobs, some of them too late."""
        while not self.stop.is_set():
            leased = self._held.jobs.lease("worker", 60)
            if leased is not None:
                with suppress(LeaseLostError):
                    self._held.jobs.finish(leased.job.id, leased.token, outcome(leased))

    def dispatch(self) -> None:
        """Fail to send."""
        while not self.stop.is_set():
            for leased in self._held.deliveries.lease("PACS", limit=3, seconds=60):
                self._held.deliveries.record(leased.delivery.id, leased.token, failed(retry_in=0))

    def sweep(self) -> None:
        """Open and close the breaker, and look for lost leases."""
        while not self.stop.is_set():
            self._held.deliveries.park("PACS", self._held.clock(), "down")
            self._held.jobs.expire_leases()
            self._held.deliveries.expire_leases()
            self._held.deliveries.unpark("PACS")


def test_receiving_finishing_sending_and_sweeping_at_once_never_deadlock(held: Holding) -> None:
    held.deliveries.set_destinations([("PACS", "dimse")])
    held.rules.save("rules", by="test")
    traffic = Traffic(held)
    calls = (traffic.receive, traffic.work, traffic.dispatch, traffic.sweep)
    threads = [Meanwhile(call) for call in calls]
    try:
        assert threads[0].ends(within=40)
    finally:
        traffic.stop.set()
    assert all(thread.ends() for thread in threads)
    assert held.studies.conservation().missing == 0
