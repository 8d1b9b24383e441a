"""What sources say decides when a study is complete, and what stands on its timeline."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from node.completion import Completion, Patience
from node.interfaces import Source
from storage.expectations import Said, SeriesSaid
from storage.records import StudyRecord
from storage.states import ExpectationSource, ExpectationState, StudyState
from tests.factories import make_ct_series
from tests.node.test_completion import RULES, Bench

RECEIVING, ROUTED, UNMATCHED = StudyState.RECEIVING, StudyState.ROUTED, StudyState.UNMATCHED
COUNTED, DISCONTINUED = ExpectationState.COUNTED, ExpectationState.DISCONTINUED
STEP = ExpectationSource.PROCEDURE_STEP
QUIET, WAIT, HELD, ANSWER, EVERY = 10, 30, 100, 8, 5
STRICT = RULES.replace('name = "ct"', 'name = "ct"\nrequire_complete = true')


class Assembly(Bench):
    """The bench, with sources that say what the test wants them to."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.rules.save(RULES, by="test")
        self.asks_archive(asks=False)
        self.files = make_ct_series(folder / "ct", slices=8, rows=8, columns=8)
        headers = [dcmread(file, stop_before_pixels=True) for file in self.files]
        self.uid, self.series = str(headers[0].StudyInstanceUID), str(headers[0].SeriesInstanceUID)
        self.uids = [str(header.SOPInstanceUID) for header in headers]

    def asks_archive(self, *, asks: bool = True) -> None:
        self.completion = Completion(
            studies=self.studies,
            expectations=self.expectations,
            planner=self.planner,
            patience=Patience(
                quiet_time=lambda *_: QUIET,
                missing=WAIT,
                step=HELD,
                archive=ANSWER if asks else 0,
                every=EVERY,
            ),
            clock=self.clock,
        )

    def archive_says(self, number: int | None, why: str = "") -> None:
        self.expectations.answered(
            Said(
                study_instance_uid=self.uid,
                source=ExpectationSource.ARCHIVE,
                state=ExpectationState.NOT_KNOWN if number is None else COUNTED,
                instances=number,
                note=why,
            )
        )

    def available(self, uid: str, uids: Sequence[str]) -> None:
        self.expectations.announced(
            Said(
                study_instance_uid=self.uid,
                source=ExpectationSource.AVAILABILITY,
                state=COUNTED,
                reference_uid=uid,
                series={
                    self.series: SeriesSaid(instances=len(uids), sop_instance_uids=tuple(uids))
                },
            )
        )

    def step_begins(self, uid: str = "2.25.1") -> None:
        self.expectations.announced(
            Said(
                study_instance_uid=self.uid,
                source=STEP,
                state=ExpectationState.IN_PROGRESS,
                reference_uid=uid,
            )
        )

    def step_ends(
        self, uids: Sequence[str], state: ExpectationState = COUNTED, uid: str = "2.25.1"
    ) -> None:
        named = {self.series: SeriesSaid(instances=len(uids), sop_instance_uids=tuple(uids))}
        self.expectations.updated(STEP, uid, state, named)

    def told(self, action: str) -> list[Any]:
        timeline = self.events.timeline(self.study().id)
        return [event.details for event in timeline if event.action == action]

    def after(self, seconds: int) -> StudyRecord:
        """Let time pass, with a sweep after each second."""
        for _ in range(seconds):
            self.sweep_after(1)
        return self.study()


@pytest.fixture
def assembly(tmp_path: Path) -> Iterator[Assembly]:
    made = Assembly(tmp_path)
    yield made
    made.sandbox.close()
    made.database.close()


# ---------------------------------------------------------------- an archive


def test_a_count_that_is_repeated_completes_before_the_quiet_time(assembly: Assembly) -> None:
    assembly.receive(assembly.files)
    assembly.archive_says(8)
    assert assembly.after(EVERY).state is RECEIVING  # an archive counts what it has so far
    assembly.archive_says(8)
    study = assembly.after(1)
    assert study.state is ROUTED
    assert (study.evidence["verdict"], study.evidence["kind"]) == ("complete", "expected count")
    assert study.evidence["quiet_seconds"] == EVERY + 1
    (completed,) = assembly.told("study.completed")
    assert completed == study.evidence


def test_an_open_association_holds_a_study_whatever_the_count(assembly: Assembly) -> None:
    intake = assembly.ingest.open(Source(listener="test"))
    assembly.receive(assembly.files, intake)
    assembly.archive_says(8)
    assert assembly.after(EVERY).state is RECEIVING
    assembly.archive_says(8)
    assert assembly.after(60).state is RECEIVING
    intake.close(aborted=False)
    intake.settle(10)
    assert assembly.after(1).state is ROUTED


def test_a_count_that_is_larger_is_waited_for_and_the_late_instance_completes(
    assembly: Assembly,
) -> None:
    assembly.receive(assembly.files[:-1])
    assembly.archive_says(8)
    assert assembly.after(QUIET + 10).state is RECEIVING
    assembly.receive(assembly.files[-1:])
    assembly.archive_says(8)
    study = assembly.after(2)
    assert (study.state, study.evidence["verdict"]) == (ROUTED, "complete")
    assert study.revision == 1  # nothing was read twice
    (waits,) = assembly.told("study.waits")  # told once, however often it was looked at
    assert waits["missing"] == [{"by": "c-find", "expected": 8, "received": 7, "instances": 1}]


def test_what_never_comes_is_not_waited_for_for_ever(assembly: Assembly) -> None:
    assembly.receive(assembly.files[:-1])
    assembly.archive_says(8)
    assert assembly.after(QUIET + WAIT - 1).state is RECEIVING
    study = assembly.after(4)
    assert (study.state, study.evidence["verdict"]) == (ROUTED, "known missing")
    assert study.evidence["kind"] == "quiet time"
    (completed,) = assembly.told("study.completed")
    assert completed["verdict"] == "known missing"
    assert completed["missing"][0]["instances"] == 1


def test_an_archive_that_is_down_is_no_obstacle(assembly: Assembly) -> None:
    assembly.asks_archive()
    assembly.receive(assembly.files)
    assembly.archive_says(None, "it does not answer")
    study = assembly.after(QUIET)
    assert (study.state, study.evidence["verdict"]) == (ROUTED, "probably complete")
    (source,) = assembly.told("study.completed")[0]["sources"]
    assert (source["standing"], source["why"]) == ("not known", "it does not answer")


def test_the_answer_of_an_archive_is_waited_for_a_short_while(assembly: Assembly) -> None:
    assembly.asks_archive()
    assembly.receive(assembly.files[:-1])
    assembly.archive_says(7)
    assembly.after(1)
    assembly.receive(assembly.files[-1:])  # the answer is older than this one
    assert assembly.after(QUIET + ANSWER - 2).state is RECEIVING
    study = assembly.after(4)
    assert (study.state, study.evidence["verdict"]) == (ROUTED, "probably complete")


# ---------------------------------------------------------------- procedure steps


def test_a_step_in_progress_holds_its_study_and_its_list_completes_it(assembly: Assembly) -> None:
    assembly.step_begins()
    assembly.receive(assembly.files)
    assert assembly.after(QUIET + 20).state is RECEIVING
    assembly.step_ends(assembly.uids)
    study = assembly.after(1)
    assert (study.state, study.evidence["verdict"]) == (ROUTED, "complete")


def test_a_step_that_never_ends_holds_its_study_for_a_bounded_time(assembly: Assembly) -> None:
    assembly.step_begins()
    assembly.receive(assembly.files)
    assert assembly.after(HELD - 1).state is RECEIVING
    study = assembly.after(4)
    assert (study.state, study.evidence["verdict"]) == (ROUTED, "probably complete")


def test_the_count_of_an_archive_does_not_outrun_a_step_in_progress(assembly: Assembly) -> None:
    assembly.step_begins()
    assembly.receive(assembly.files)
    assembly.archive_says(8)
    assembly.after(EVERY)
    assembly.archive_says(8)
    assert assembly.after(HELD - EVERY - 2).state is RECEIVING


def test_one_step_that_goes_on_holds_a_study_whose_other_has_ended(assembly: Assembly) -> None:
    assembly.step_begins("2.25.1")
    assembly.step_begins("2.25.2")
    assembly.receive(assembly.files)
    assembly.step_ends(assembly.uids, uid="2.25.1")
    assert assembly.after(QUIET + 20).state is RECEIVING
    assembly.step_ends([], DISCONTINUED, uid="2.25.2")
    assert assembly.after(1).evidence["verdict"] == "complete"


def test_a_step_that_lists_another_instance_is_known_missing(assembly: Assembly) -> None:
    assembly.step_begins()
    assembly.receive(assembly.files)
    assembly.step_ends([*assembly.uids[:-1], "2.25.99"])  # as many, but not these
    assert assembly.after(QUIET + WAIT - 1).state is RECEIVING
    assert assembly.after(4).evidence["verdict"] == "known missing"


def test_a_notification_completes_a_study_unless_another_one_follows(assembly: Assembly) -> None:
    assembly.receive(assembly.files[:4])
    assembly.available("2.25.1", assembly.uids[:4])
    assert assembly.after(3).state is RECEIVING
    assembly.available("2.25.2", assembly.uids[4:])
    assert assembly.after(4).state is RECEIVING
    assembly.receive(assembly.files[4:])
    study = assembly.after(2)
    assert (study.state, study.evidence["verdict"]) == (ROUTED, "complete")
    assert study.instances == 8


# ---------------------------------------------------------------- headers and rules


def test_a_slice_that_is_missing_inside_is_waited_for(assembly: Assembly) -> None:
    lost = assembly.files.pop(3)
    assembly.receive(assembly.files)
    assert assembly.after(QUIET + 5).state is RECEIVING
    (waits,) = assembly.told("study.waits")
    assert (waits["verdict"], waits["missing"][0]["by"]) == ("known missing", "slice positions")
    assembly.receive([lost])
    study = assembly.after(QUIET + 1)
    assert (study.state, study.evidence["verdict"]) == (ROUTED, "probably complete")


def test_a_count_does_not_hide_a_gap(assembly: Assembly) -> None:
    del assembly.files[3]
    assembly.receive(assembly.files)
    assembly.archive_says(7)
    assembly.after(EVERY)
    assembly.archive_says(7)
    assert assembly.after(4).state is RECEIVING
    assert assembly.after(QUIET + WAIT).evidence["verdict"] == "known missing"


def test_a_rule_that_requires_a_complete_study_does_not_run_on_another(
    assembly: Assembly,
) -> None:
    assembly.rules.save(STRICT, by="test")
    assembly.receive(assembly.files)
    assembly.archive_says(9)
    study = assembly.after(QUIET + WAIT + 3)
    assert study.state is UNMATCHED
    assert assembly.jobs.list() == []
    explanation: Any = study.explanation
    assert "known missing" in explanation["rules"][0]["why"]


def test_an_operator_completes_a_study_for_a_rule_that_requires_it(assembly: Assembly) -> None:
    assembly.rules.save(STRICT, by="test")
    assembly.receive(assembly.files)
    assembly.archive_says(9)
    assembly.studies.complete_now(assembly.uid, by="anna")
    assert assembly.after(1).state is ROUTED


def test_the_series_that_a_strict_rule_wants_is_waited_for(
    assembly: Assembly, tmp_path: Path
) -> None:
    assembly.rules.save(
        STRICT
        + "[rules.series]\nconditions = {field = 'SeriesDescription', op = 'equals', "
        + "value = 'thin'}\n",
        by="test",
    )
    assembly.receive(assembly.files)
    assert assembly.after(QUIET + 5).state is RECEIVING
    assert assembly.told("study.waits")[0]["missing"] == [
        {"by": "rule", "rule": "ct", "lacks": "its series"}
    ]
    options = {"slices": 4, "rows": 8, "columns": 8, "series": 2}
    thin = make_ct_series(tmp_path / "2", series_description="thin", **options)  # type: ignore[arg-type]  # typed dict
    assembly.receive(thin)
    study = assembly.after(QUIET + 1)
    assert (study.state, study.evidence["verdict"]) == (ROUTED, "probably complete")


def test_a_study_that_is_read_again_does_not_wait_again(assembly: Assembly) -> None:
    assembly.receive(assembly.files)
    assembly.archive_says(9)
    assembly.after(QUIET + WAIT + 3)
    assembly.studies.reopen(assembly.uid, reason="asked for", by="anna")
    study = assembly.after(1)
    assert (study.state, study.revision) == (ROUTED, 2)
    assert study.evidence["verdict"] == "known missing"


def test_headers_are_read_once_for_completeness_and_routing(
    assembly: Assembly, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    call = assembly.sandbox.call

    def counted(operation: str, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401
        calls.append(operation)
        return call(operation, *arguments, **options)

    monkeypatch.setattr(assembly.sandbox, "call", counted)
    del assembly.files[3]  # it is looked at again and again
    assembly.receive(assembly.files)
    assert assembly.after(QUIET + WAIT + 3).state is ROUTED
    assert calls == ["read_values"]
