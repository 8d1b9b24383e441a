from __future__ import annotations

from datetime import timedelta

import pytest

from storage.expectations import ExpectationStore
from storage.records import NotFoundError, StudyAttributes
from storage.states import AssociationState, JobState, StudyState, TransitionError
from tests.storage.holding import QUIET, STUDY, Holding, routing


def opened(held: Holding) -> int:
    return held.associations.opened(
        listener="dimse", calling_ae="SCANNER", called_ae="WETREAD", peer_address="127.0.0.1"
    )


def due(held: Holding) -> list[str]:
    return [study.study_instance_uid for study in held.studies.due()]


def test_a_study_is_due_when_it_fell_quiet(held: Holding) -> None:
    held.receive()
    held.clock.advance(QUIET - 1)
    assert due(held) == []
    held.clock.advance(1)
    assert due(held) == [STUDY]


def test_a_study_that_falls_quiet_soon_is_known_before(held: Holding) -> None:
    said = ExpectationStore(held.database, held.clock)
    assert said.next_due() is None
    held.receive()
    falls_quiet = held.clock() + timedelta(seconds=QUIET)
    assert said.next_due() == falls_quiet
    held.clock.advance(QUIET - 2)
    assert held.studies.due(ahead=timedelta(seconds=1)) == []
    held.clock.advance(1)
    assert [item.study_instance_uid for item in held.studies.due(ahead=timedelta(seconds=1))] == [
        STUDY
    ]
    assert said.next_due() == falls_quiet
    held.clock.advance(1)
    assert said.next_due() is None


def test_an_open_association_that_carried_the_study_holds_it(held: Holding) -> None:
    carrier, other = opened(held), opened(held)
    held.receive(association_id=carrier)
    held.receive(study="1.2.9", association_id=None)
    held.clock.advance(QUIET)
    assert due(held) == ["1.2.9"]
    held.associations.closed(carrier, AssociationState.RELEASED)
    assert sorted(due(held)) == [STUDY, "1.2.9"]
    held.associations.closed(other, AssociationState.ABORTED)


def test_an_open_association_of_an_earlier_revision_holds_nothing(held: Holding) -> None:
    early, late = opened(held), opened(held)
    held.receive(association_id=early)
    held.complete()
    held.receive(2, association_id=late)
    held.clock.advance(QUIET)
    assert due(held) == []
    held.associations.closed(late, AssociationState.RELEASED)
    assert due(held) == [STUDY]


def test_an_association_that_a_crash_left_open_holds_nothing_after_the_start(
    held: Holding,
) -> None:
    held.receive(association_id=opened(held))
    held.clock.advance(QUIET)
    assert held.associations.abandon_open() == 1
    assert due(held) == [STUDY]


def test_postponing_waits_longer_and_never_less(held: Holding) -> None:
    study_id = held.receive().study_id
    until = held.clock() + timedelta(seconds=100)
    held.studies.postpone(study_id, 1, until)
    held.studies.postpone(study_id, 1, held.clock())
    held.studies.postpone(study_id, 2, until + timedelta(seconds=100))
    assert held.studies.get(STUDY).complete_after == until


def test_completing_keeps_the_evidence(held: Holding) -> None:
    held.receive()
    study = held.complete()
    assert (study.state, study.evidence) == (StudyState.COMPLETE, {"kind": "quiet"})
    assert [item.id for item in held.studies.to_route()] == [study.id]


def test_completing_fails_when_an_instance_came_meanwhile(held: Holding) -> None:
    study_id = held.receive().study_id
    held.clock.advance(QUIET)
    held.receive(2)
    assert not held.studies.complete(study_id, 1, {})
    held.complete()
    held.receive(3)
    held.clock.advance(QUIET)
    assert not held.studies.complete(study_id, 1, {})
    assert held.studies.complete(study_id, 2, {})


def test_an_operator_closes_a_study_that_still_waits(held: Holding) -> None:
    held.receive(association_id=opened(held))
    study = held.studies.complete_now(STUDY, by="dr.meyer")
    assert study.state is StudyState.COMPLETE
    assert study.evidence == {"kind": "operator", "by": "dr.meyer"}
    assert held.events.timeline(study.id)[-1].actor == "dr.meyer"
    with pytest.raises(TransitionError):
        held.studies.complete_now(STUDY, by="dr.meyer")
    with pytest.raises(NotFoundError):
        held.studies.complete_now("1.2.404", by="dr.meyer")


def test_routing_writes_jobs_and_state_together_and_only_once(held: Holding) -> None:
    held.receive()
    job_ids = held.route(jobs=2)
    study = held.studies.get(STUDY)
    assert (study.state, study.rule_revision) == (StudyState.ROUTED, 1)
    assert study.explanation == {"rules": 2}
    assert sorted(job.id for job in held.jobs.list(study_id=study.id)) == sorted(job_ids)
    assert held.studies.route(study.id, 1, routing(1, 2)) == []
    assert held.jobs.counts() == {JobState.QUEUED: 2}


def test_a_study_that_no_rule_wants_is_unmatched_and_says_so(held: Holding) -> None:
    held.receive()
    assert held.route(jobs=0) == []
    study = held.studies.get(STUDY)
    assert (study.state, study.reason) == (
        StudyState.UNMATCHED,
        "no rule of revision 1 wants it",
    )
    assert held.actions()[-1] == "study.unmatched"


def test_a_study_that_moved_on_is_not_routed(held: Holding) -> None:
    study_id = held.receive().study_id
    held.complete()
    rules = held.rules.save("rules", by="test")
    held.receive(2)
    assert held.studies.route(study_id, 1, routing(rules.revision, 1)) == []
    held.studies.fail_routing(study_id, 1, "too late to matter")
    assert held.studies.get(STUDY).state is StudyState.RECEIVING


def test_a_routing_failure_is_visible_and_its_text_stays_in_the_row(held: Holding) -> None:
    study_id = held.receive().study_id
    held.complete()
    held.studies.fail_routing(study_id, 1, "Doe^Jane: cannot be compared")
    study = held.studies.get(STUDY)
    assert (study.state, study.reason) == (StudyState.FAILED, "Doe^Jane: cannot be compared")
    last = held.events.timeline(study_id)[-1]
    assert (last.action, last.details) == ("study.routing_failed", {"revision": 1})


def test_a_replay_routes_and_reads_the_study_again(held: Holding) -> None:
    held.deliverable()
    study = held.studies.reopen(STUDY, reason="new engine", by="dr.meyer")
    assert (study.state, study.revision) == (StudyState.RECEIVING, 2)
    assert study.rule_revision is None
    assert (study.explanation, study.reason) == ({}, "")
    assert due(held) == [STUDY]
    assert held.studies.complete(study.id, 2, {"kind": "replay"})
    assert len(held.studies.route(study.id, 2, routing(1, 1))) == 1
    with pytest.raises(NotFoundError):
        held.studies.reopen("1.2.404", reason="", by="")


def test_a_receiving_study_cannot_be_replayed(held: Holding) -> None:
    held.receive()
    with pytest.raises(TransitionError):
        held.studies.reopen(STUDY, reason="", by="dr.meyer")


def test_studies_are_found_by_state_and_by_text(held: Holding) -> None:
    held.receive()
    held.clock.advance(1)
    held.receive(
        study="1.2.9", attributes=StudyAttributes(patient_name="Roe_50%", accession_number="A7")
    )
    assert [row.study_instance_uid for row in held.studies.list()] == ["1.2.9", STUDY]
    assert [row.study_instance_uid for row in held.studies.list(text="dOE")] == [STUDY]
    assert [row.study_instance_uid for row in held.studies.list(text="_50%")] == ["1.2.9"]
    assert [row.study_instance_uid for row in held.studies.list(text="a7")] == ["1.2.9"]
    assert [row.study_instance_uid for row in held.studies.list(offset=1)] == [STUDY]
    held.complete()
    assert [row.study_instance_uid for row in held.studies.list(state=StudyState.COMPLETE)] == [
        STUDY
    ]
    assert held.studies.counts() == {StudyState.COMPLETE: 1, StudyState.RECEIVING: 1}


def test_series_and_instances_are_listed_by_their_uid(held: Holding) -> None:
    study_id = held.receive(2).study_id
    held.receive(1)
    held.receive(1, series=2)
    assert [(row.series_instance_uid, row.instances) for row in held.studies.series(study_id)] == [
        (f"{STUDY}.1", 2),
        (f"{STUDY}.2", 1),
    ]
    instances = held.studies.instances(study_id, [f"{STUDY}.1"])
    assert [row.sop_instance_uid for row in instances] == [f"{STUDY}.1.1", f"{STUDY}.1.2"]


def test_a_study_that_never_came_is_not_found(held: Holding) -> None:
    with pytest.raises(NotFoundError):
        held.studies.get("1.2.404")
    with pytest.raises(NotFoundError):
        held.studies.by_id(404)
