"""The outbox over a real database, towards a target whose answers the test chooses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import ClassVar

import pytest
from sqlalchemy import text

from node.dispatch import Dispatcher, DispatchLimits, backoff
from node.interfaces import (
    DeliveryTarget,
    Outgoing,
    PluginSettings,
    ReportSent,
    SendVerdict,
    Sent,
)
from storage.database import Database, migrate
from storage.deliveries import DeliveryStore
from storage.jobs import JobStore
from storage.objects import ObjectStore
from storage.records import (
    DeliveryRecord,
    JobOutcome,
    Location,
    NewInstance,
    NewJob,
    NewResult,
    Routing,
    SeriesAttributes,
    StudyAttributes,
)
from storage.rules import RuleStore
from storage.states import DeliveryState, JobState
from storage.studies import StudyStore

LIMITS = DispatchLimits(
    batch=10,
    lease_seconds=30,
    idle_seconds=0.01,
    retry_first_seconds=10,
    retry_max_seconds=3600,
    breaker_failures=2,
    breaker_seconds=30,
)
ACCEPTED = Sent(verdict=SendVerdict.ACCEPTED, status=0)
DOWN = Sent(verdict=SendVerdict.UNREACHABLE, message="TCP: Connection refused")


class ScriptedTarget(DeliveryTarget[PluginSettings]):
    """Answers with what the test put into `answers`; None answers nothing at all."""

    name: ClassVar[str] = "scripted"
    settings_type: ClassVar[type[PluginSettings]] = PluginSettings

    def __init__(self, settings: PluginSettings) -> None:
        del settings
        self.answers: list[Sent | None] = []
        self.calls: list[list[str]] = []
        self.probed = DOWN

    def send(self, objects: Sequence[Outgoing], report: ReportSent) -> None:
        self.calls.append([item.sop_instance_uid for item in objects])
        for index in range(len(objects)):
            answer = self.answers.pop(0)
            if answer is not None:
                report(index, answer)

    def probe(self) -> Sent:
        return self.probed

    def address(self) -> str:
        return "scripted"


class Clockwork:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


class Bench:
    """A database with two results waiting for one destination."""

    def __init__(self, folder: Path) -> None:
        url = f"sqlite:///{folder}/test.db"
        migrate(url)
        self.clock = Clockwork()
        self.database = Database(url)
        self.deliveries = DeliveryStore(self.database, self.clock)
        self.target = ScriptedTarget(PluginSettings())
        self.dispatcher = Dispatcher(
            destination="pacs",
            target=self.target,
            deliveries=self.deliveries,
            objects=ObjectStore(folder / "objects"),
            clock=self.clock,
            limits=LIMITS,
        )
        self._fill()

    def _fill(self) -> None:
        studies = StudyStore(self.database, self.clock)
        RuleStore(self.database, self.clock).save("# rules", by="test")
        self.deliveries.set_destinations([("pacs", "scripted")])
        recorded = studies.record(
            NewInstance(
                study_instance_uid="1.2.3",
                series_instance_uid="1.2.3.4",
                sop_instance_uid="1.2.3.4.5",
                sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
                transfer_syntax_uid="1.2.840.10008.1.2.1",
                digest="a" * 64,
                size=1,
                study=StudyAttributes(),
                series=SeriesAttributes(modality="CT"),
                listener="test",
                location=Location(pack="0" * 32, offset=64, length=400),
                quiet_seconds=1,
            )
        )
        self.clock.now += timedelta(seconds=2)
        studies.complete(recorded.study_id, 1, {"kind": "test"})
        job = NewJob(
            rule="r",
            engine="e",
            priority=1,
            series_instance_uids=("1.2.3.4",),
            destinations=("pacs",),
        )
        studies.route(recorded.study_id, 1, Routing(rule_revision=1, jobs=(job,), explanation={}))
        jobs = JobStore(self.database, self.clock)
        leased = jobs.lease("w", 60)
        assert leased is not None
        jobs.finish(
            leased.job.id,
            leased.token,
            JobOutcome(state=JobState.SUCCEEDED, results=_two_results(), summary={}, timings={}),
        )

    def rows(self) -> Sequence[DeliveryRecord]:
        return sorted(self.deliveries.list(), key=lambda row: row.id)

    def states(self) -> list[DeliveryState]:
        return [row.state for row in self.rows()]

    def reached(self) -> list[str]:
        with self.database.reading() as session:
            return list(session.scalars(text("SELECT reached FROM delivery ORDER BY id")))


def _two_results() -> tuple[NewResult, ...]:
    return tuple(
        NewResult(
            writer=writer,
            sop_class_uid="1.2.840.10008.5.1.4.1.1.66.4",
            sop_instance_uid=f"2.25.{number}",
            series_instance_uid="2.25.9",
            transfer_syntax_uid="1.2.840.10008.1.2.1",
            digest=str(number) * 64,
            size=1,
        )
        for number, writer in enumerate(("seg", "sr"), start=1)
    )


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.database.close()


def test_objects_go_in_one_call_in_order_and_are_sent_once(bench: Bench) -> None:
    bench.target.answers = [ACCEPTED, ACCEPTED]
    assert bench.dispatcher.empty() == 2
    assert bench.dispatcher.empty() == 0
    assert bench.target.calls == [["2.25.1", "2.25.2"]]
    assert bench.states() == [DeliveryState.SENT, DeliveryState.SENT]


def test_each_object_has_its_own_verdict(bench: Bench) -> None:
    bench.target.answers = [
        Sent(verdict=SendVerdict.WARNED, status=0xB000),
        Sent(verdict=SendVerdict.REFUSED, status=0xA900, message="does not match"),
    ]
    bench.dispatcher.empty()
    assert bench.states() == [DeliveryState.WARNED, DeliveryState.FAILED]
    assert [row.status for row in bench.rows()] == [0xB000, 0xA900]


def test_out_of_resources_waits_longer_each_time(bench: Bench) -> None:
    busy = Sent(verdict=SendVerdict.RETRY, status=0xA700)
    waits = []
    for _ in range(4):
        bench.target.answers = [busy, busy]
        assert bench.dispatcher.empty() == 2
        waits.append((bench.rows()[0].not_before - bench.clock.now).total_seconds())
        bench.clock.now = max(row.not_before for row in bench.rows())
    for number, wait in enumerate(waits):
        assert 5 * 2**number <= wait <= 10 * 2**number
    assert bench.rows()[0].attempts == 4


def test_object_without_an_answer_is_tried_again_and_may_be_there(bench: Bench) -> None:
    bench.target.answers = [ACCEPTED, None]
    bench.dispatcher.empty()
    assert bench.states() == [DeliveryState.SENT, DeliveryState.QUEUED]
    assert bench.reached() == ["yes", "perhaps"]


def test_what_was_refused_or_not_begun_is_not_there(bench: Bench) -> None:
    bench.target.answers = [
        Sent(verdict=SendVerdict.REFUSED, message="no such class"),
        Sent(verdict=SendVerdict.RETRY, message="not sent", begun=False),
    ]
    bench.dispatcher.empty()
    assert bench.reached() == ["no", "no"]


def test_target_that_raises_loses_nothing(bench: Bench) -> None:
    bench.target.answers = [ACCEPTED]  # the second object finds no answer: IndexError
    bench.dispatcher.empty()
    assert bench.states() == [DeliveryState.SENT, DeliveryState.QUEUED]


def test_what_was_not_begun_because_of_another_goes_at_once(bench: Bench) -> None:
    """One object that ends the association holds up no other; itself it waits."""
    bench.target.answers = [
        Sent(verdict=SendVerdict.UNREACHABLE, message="no answer", cut_short=True),
        Sent(verdict=SendVerdict.RETRY, message="not sent", begun=False),
        ACCEPTED,
    ]
    assert bench.dispatcher.empty() == 2
    assert bench.dispatcher.empty() == 1
    assert bench.target.calls[1] == ["2.25.2"]
    assert bench.states() == [DeliveryState.QUEUED, DeliveryState.SENT]
    assert [row.attempts for row in bench.rows()] == [1, 2]


def test_where_nothing_was_begun_everything_waits(bench: Bench) -> None:
    """A destination that ends each association before the first object is not asked at once."""
    not_begun = Sent(verdict=SendVerdict.RETRY, message="not sent", begun=False)
    bench.target.answers = [not_begun, not_begun]
    assert bench.dispatcher.empty() == 2
    assert bench.dispatcher.empty() == 0


def test_dead_destination_is_parked_and_comes_back_after_a_probe(bench: Bench) -> None:
    for _ in range(2):
        bench.target.answers = [DOWN, DOWN]
        bench.dispatcher.empty()
        bench.clock.now += timedelta(seconds=30)
    assert bench.states() == [DeliveryState.PARKED, DeliveryState.PARKED]
    calls = len(bench.target.calls)
    bench.dispatcher.empty()
    bench.clock.now += timedelta(hours=1)
    bench.dispatcher.knock()
    assert len(bench.target.calls) == calls
    assert bench.states() == [DeliveryState.PARKED, DeliveryState.PARKED]
    bench.target.probed = ACCEPTED
    bench.clock.now += timedelta(hours=1)
    bench.dispatcher.knock()
    bench.target.answers = [ACCEPTED, ACCEPTED]
    assert bench.dispatcher.empty() == 2
    assert bench.states() == [DeliveryState.SENT, DeliveryState.SENT]


def test_backoff_is_bounded_however_often_it_failed() -> None:
    assert backoff(LIMITS, 1, lambda: 1.0) == 10
    assert backoff(LIMITS, 10_000, lambda: 1.0) == 3600
    assert backoff(LIMITS, 10_000, lambda: 0.0) == 1800
