"""From the last instance to the jobs: quiet time, evidence, routing, over the real stores."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from node.completion import Completion, Patience
from node.interfaces import Intake, Source
from node.planning import Planner, RuleBooks
from node.sandbox import Sandbox
from storage.events import EventStore
from storage.expectations import ExpectationStore
from storage.jobs import JobStore
from storage.records import StudyRecord
from storage.rules import RuleStore
from storage.states import StudyState
from tests.factories import make_ct_series
from tests.node.taking_in import TakingIn

RULES = """
[[rules]]
name = "ct"
engines = ["e"]
destinations = ["pacs"]
conditions = {field = "Modality", op = "equals", value = "CT"}
"""


class Bench:
    """Everything between a listener and the workers, with a clock that the test moves."""

    def __init__(self, folder: Path) -> None:
        self.now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
        self.taking_in = TakingIn(
            folder,
            clock=self.clock,
            quiet_time=lambda modality, _: 10.0 if modality == "CT" else 60.0,
        ).start()
        self.ingest = self.taking_in.ingest
        self.database = self.taking_in.database
        self.studies = self.taking_in.studies
        self.jobs = JobStore(self.database, self.clock)
        self.rules = RuleStore(self.database, self.clock)
        self.events = EventStore(self.database, self.clock)
        self.sandbox = Sandbox(memory_mib=4096)
        self.expectations = ExpectationStore(self.database, self.clock)
        self.planner = Planner(
            studies=self.studies,
            packs=self.taking_in.packs,
            rules=RuleBooks(self.rules),
            sandbox=self.sandbox,
            clock=self.clock,
            max_attempts=3,
        )
        self.completion = Completion(
            studies=self.studies,
            expectations=self.expectations,
            planner=self.planner,
            patience=Patience(
                quiet_time=lambda modality, _: 10.0 if modality == "CT" else 60.0,
                missing=30.0,
                step=100.0,
            ),
            clock=self.clock,
            settled=lambda: self.ingest.settle(10),
        )

    def clock(self) -> datetime:
        return self.now

    def receive(self, files: list[Path], intake: Intake | None = None) -> None:
        if intake is not None:
            self.taking_in.store(intake, files)
            intake.settle(10)
            return
        for file in files:
            self.taking_in.accept(file)

    def study(self) -> StudyRecord:
        return self.studies.list()[0]

    def sweep_after(self, seconds: float) -> StudyRecord:
        self.now += timedelta(seconds=seconds)
        self.completion.sweep()
        return self.study()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    made.rules.save(RULES, by="test")
    yield made
    made.sandbox.close()
    made.taking_in.close()


@pytest.fixture
def series(tmp_path: Path) -> list[Path]:
    return make_ct_series(tmp_path / "ct", slices=3, rows=16, columns=16)


def test_study_is_complete_after_its_quiet_time_and_gets_its_jobs(
    bench: Bench, series: list[Path]
) -> None:
    bench.receive(series)
    assert bench.sweep_after(9).state is StudyState.RECEIVING
    study = bench.sweep_after(2)
    assert study.state is StudyState.ROUTED
    assert study.evidence["kind"] == "quiet time"
    (job,) = bench.jobs.list()
    assert (job.rule, job.engine, job.rule_revision) == ("ct", "e", 1)


def test_headers_are_read_before_the_quiet_time_is_over(
    bench: Bench, series: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    call = bench.sandbox.call

    def counted(operation: str, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401
        asked.append(operation)
        return call(operation, *arguments, **options)

    monkeypatch.setattr(bench.sandbox, "call", counted)
    bench.receive(series)
    bench.sweep_after(8)
    assert (asked, bench.completion.next_due()) == ([], bench.now + timedelta(seconds=2))
    assert bench.sweep_after(1.5).state is StudyState.RECEIVING
    assert asked == ["read_values"]
    assert bench.sweep_after(0.5).state is StudyState.ROUTED
    assert asked == ["read_values"]


def test_each_instance_starts_the_quiet_time_again(bench: Bench, series: list[Path]) -> None:
    bench.receive(series[:1])
    bench.now += timedelta(seconds=8)
    bench.receive(series[1:])
    assert bench.sweep_after(8).state is StudyState.RECEIVING


def test_open_association_holds_its_study_however_long(bench: Bench, series: list[Path]) -> None:
    intake = bench.ingest.open(Source(listener="test"))
    bench.receive(series, intake)
    assert bench.sweep_after(3600).state is StudyState.RECEIVING
    intake.close(aborted=True)
    intake.settle(10)
    assert bench.sweep_after(1).state is StudyState.ROUTED


def test_rule_can_ask_for_a_longer_quiet_time(bench: Bench, series: list[Path]) -> None:
    bench.rules.save(RULES + "quiet_seconds = 100\n", by="test")
    bench.receive(series)
    assert bench.sweep_after(50).state is StudyState.RECEIVING
    assert bench.sweep_after(51).state is StudyState.ROUTED


def test_study_that_no_rule_wants_says_which_revision_did_not(
    bench: Bench, series: list[Path]
) -> None:
    bench.rules.save(RULES.replace('"CT"', '"MR"'), by="test")
    bench.receive(series)
    study = bench.sweep_after(11)
    assert study.state is StudyState.UNMATCHED
    assert "revision 2" in study.reason
    assert bench.studies.conservation().discarded == 3


def test_operator_completes_a_study_at_once(bench: Bench, series: list[Path]) -> None:
    bench.receive(series)
    bench.studies.complete_now(bench.study().study_instance_uid, by="anna")
    study = bench.sweep_after(0.1)
    assert study.state is StudyState.ROUTED
    assert study.evidence == {"kind": "operator", "by": "anna"}


def test_study_waits_when_there_are_no_rules(tmp_path: Path, series: list[Path]) -> None:
    bench = Bench(tmp_path)
    try:
        bench.receive(series)
        assert bench.sweep_after(11).state is StudyState.RECEIVING
    finally:
        bench.sandbox.close()
        bench.taking_in.close()


def test_instance_whose_bytes_were_damaged_is_named_and_its_siblings_go_on(
    bench: Bench, series: list[Path]
) -> None:
    bench.receive(series)
    broken, *_ = bench.studies.instances(bench.study().id)
    with bench.taking_in.packs.path(broken.location).open("r+b") as pack:
        pack.seek(broken.location.offset)
        pack.write(b"damaged" * 30)
    study = bench.sweep_after(11)
    assert study.state is StudyState.ROUTED
    assert list(study.explanation["unreadable_instances"]) == [broken.sop_instance_uid]  # type: ignore[arg-type]  # JSON


def test_replay_routes_the_same_study_again_as_a_new_revision(
    bench: Bench, series: list[Path]
) -> None:
    bench.receive(series)
    uid = bench.sweep_after(11).study_instance_uid
    bench.studies.reopen(uid, reason="asked for", by="anna")
    study = bench.sweep_after(1)
    assert (study.state, study.revision) == (StudyState.ROUTED, 2)
    assert [job.revision for job in bench.jobs.list()] == [2, 1]
    actions = [event.action for event in bench.events.timeline(study.id)]
    assert "study.reopened" in actions
    assert "job.superseded" in actions
