from __future__ import annotations

from datetime import timedelta

import pytest

from storage.records import (
    ConstraintError,
    DataRefusedError,
    Location,
    QuarantinedInstance,
    StudyAttributes,
)
from storage.states import (
    AssociationState,
    DeliveryState,
    InstanceState,
    JobState,
    ReceiptOutcome,
    StudyState,
)
from tests.storage.holding import (
    QUIET,
    STUDY,
    Holding,
    arrived,
    at_once,
    digest,
    new_instance,
    outcome,
)


def test_the_first_instance_makes_study_series_and_receipt(held: Holding) -> None:
    recorded = held.receive()
    study = held.studies.by_id(recorded.study_id)
    assert (recorded.outcome, recorded.revision) == (ReceiptOutcome.STORED, 1)
    assert (study.state, study.instances, study.series) == (StudyState.RECEIVING, 1, 1)
    assert (study.modalities, study.size) == (("CT",), 1001)
    assert study.attributes.patient_name == "Doe^Jane"
    assert study.complete_after == held.clock() + timedelta(seconds=QUIET)
    assert held.actions() == ["study.received"]


def test_every_instance_moves_the_quiet_time_but_never_back(held: Holding) -> None:
    held.receive(quiet_seconds=300)
    expected = held.clock() + timedelta(seconds=300)
    held.clock.advance(1)
    held.receive(2, quiet_seconds=10)
    assert held.studies.get(STUDY).complete_after == expected
    held.clock.advance(295)
    held.receive(3, quiet_seconds=10)
    assert held.studies.get(STUDY).complete_after == held.clock() + timedelta(seconds=10)


def test_the_same_bytes_again_are_a_success_that_changes_nothing(held: Holding) -> None:
    held.receive()
    held.route()
    before = held.studies.get(STUDY)
    held.clock.advance(5)
    again = held.receive()
    assert again.outcome is ReceiptOutcome.DUPLICATE
    assert held.studies.get(STUDY) == before


def test_other_bytes_under_a_known_uid_are_kept_apart(held: Holding) -> None:
    study_id = held.receive().study_id
    conflict = held.receive(data="other bytes")
    assert conflict.outcome is ReceiptOutcome.CONFLICT
    (current,) = held.studies.instances(study_id)
    both = held.studies.instances(study_id, include_conflicts=True)
    assert current.digest == digest(f"{STUDY}.1.1")
    assert [(row.state, row.digest) for row in both] == [
        (InstanceState.CURRENT, current.digest),
        (InstanceState.CONFLICT, digest("other bytes")),
    ]
    assert "instance.conflict" in held.actions()
    assert held.studies.get(STUDY).instances == 1


def test_a_conflict_sent_again_is_a_duplicate_and_a_routed_study_stays_routed(
    held: Holding,
) -> None:
    held.receive()
    held.route()
    assert held.receive(data="other").outcome is ReceiptOutcome.CONFLICT
    assert held.receive(data="other").outcome is ReceiptOutcome.DUPLICATE
    study = held.studies.get(STUDY)
    assert (study.state, study.revision) == (StudyState.ROUTED, 1)


def test_our_own_result_that_comes_back_is_counted_and_not_processed(held: Holding) -> None:
    held.deliverable()
    before = held.studies.get(STUDY)
    (result,) = held.jobs.results()
    back = held.receive(sop_instance_uid=result.sop_instance_uid)
    assert back.outcome is ReceiptOutcome.OWN_RESULT
    assert held.studies.get(STUDY) == before
    assert "instance.own_result" in held.actions()


def test_a_late_instance_opens_the_study_again_and_supersedes_what_is_open(held: Holding) -> None:
    held.deliverable(results=2)
    held.deliveries.set_destinations([("PACS", "dimse")])
    held.clock.advance(3600)
    late = held.receive(2)
    study = held.studies.get(STUDY)
    assert (late.outcome, late.revision) == (ReceiptOutcome.STORED, 2)
    assert (study.state, study.revision) == (StudyState.RECEIVING, 2)
    assert study.complete_after == held.clock() + timedelta(seconds=QUIET)
    assert {row.state for row in held.deliveries.list()} == {DeliveryState.SUPERSEDED}
    assert held.actions()[-3:] == ["study.reopened", "delivery.superseded", "delivery.superseded"]


def test_a_late_instance_supersedes_queued_and_running_jobs(held: Holding) -> None:
    held.receive()
    held.route(jobs=2)
    held.lease()
    held.receive(2)
    assert [job.state for job in held.jobs.list()] == [JobState.SUPERSEDED] * 2
    assert held.jobs.lease("worker-1", 60) is None


def test_the_run_after_a_late_instance_sees_all_and_supersedes_the_first_result(
    held: Holding,
) -> None:
    held.deliverable()
    sent = held.send()
    held.deliveries.record(sent.delivery.id, sent.token, arrived())
    held.receive(2)
    held.route()
    leased = held.lease()
    (first,) = held.jobs.results()
    assert [row.revision for row in leased.instances] == [1, 2]
    assert [row.sop_instance_uid for row in leased.predecessors] == [first.sop_instance_uid]
    assert leased.series_created_at == held.jobs.get(first.job_id).created_at
    held.jobs.finish(leased.job.id, leased.token, outcome(leased))
    assert [row.superseded for row in held.jobs.results()] == [True, False]


def test_identical_instances_at_once_are_one_stored_and_one_duplicate(held: Holding) -> None:
    for number in range(1, 6):
        new = new_instance(number, study=f"{STUDY}.{number}")
        outcomes = at_once(*[lambda new=new: held.studies.record(new).outcome] * 2)
        assert sorted(outcomes) == [ReceiptOutcome.DUPLICATE, ReceiptOutcome.STORED]
        study = held.studies.get(f"{STUDY}.{number}")
        assert (study.instances, study.revision) == (1, 1)
    assert held.studies.conservation().missing == 0


def test_different_instances_of_one_new_study_at_once_are_all_stored(held: Holding) -> None:
    calls = [lambda number=number: held.receive(number, series=number % 2) for number in range(8)]
    outcomes = [recorded.outcome for recorded in at_once(*calls)]
    assert outcomes == [ReceiptOutcome.STORED] * 8
    study = held.studies.get(STUDY)
    assert (study.instances, study.series) == (8, 2)


def test_quarantine_keeps_the_reason_in_its_row_and_not_on_the_timeline(held: Holding) -> None:
    item = QuarantinedInstance(
        digest=digest("junk"),
        size=4,
        location=Location(pack="1" * 32, offset=64, length=404),
        reason="Doe^Jane has no UID",
        listener="dimse",
    )
    held.studies.quarantine(item)
    (note,) = held.studies.quarantined()
    (event,) = held.events.recent()
    assert (note.reason, note.digest) == ("Doe^Jane has no UID", digest("junk"))
    assert (event.action, event.details) == ("instance.quarantined", {"digest": digest("junk")})
    assert note.location == Location(pack="1" * 32, offset=64, length=404)


def test_what_a_sender_must_not_send_is_cleaned_and_cut(held: Holding) -> None:
    odd = StudyAttributes(
        patient_id="P" * 5000, patient_name="Doe\0^Jane\ud800", accession_number="ü" * 9000
    )
    held.receive(attributes=odd, calling_ae="A" * 80)
    study = held.studies.get(STUDY)
    assert study.attributes.patient_name == "Doe^Jane?"
    assert study.attributes.patient_id == "P" * 256
    assert study.attributes.accession_number == "ü" * 256
    assert study.calling_ae == "A" * 64
    assert [found.id for found in held.studies.list(text="Doe\0^j")] == [study.id]


def test_a_uid_that_is_too_long_is_refused_and_nothing_is_kept(held: Holding) -> None:
    with pytest.raises(DataRefusedError, match="longer than 64 characters"):
        held.receive(study="1." + "2" * 70)
    assert held.studies.conservation().received == 0
    assert held.studies.list() == []


def test_an_instance_of_an_association_that_never_was_is_refused(held: Holding) -> None:
    with pytest.raises(ConstraintError):
        held.receive(association_id=4711)
    assert held.studies.list() == []


def test_an_instance_counts_for_the_association_that_brought_it(held: Holding) -> None:
    association_id = held.associations.opened(
        listener="dimse", calling_ae="SCANNER", called_ae="WETREAD", peer_address="10.0.0.1"
    )
    held.receive(association_id=association_id)
    held.receive(association_id=association_id)
    held.associations.closed(association_id, AssociationState.RELEASED)
    (record,) = held.associations.recent()
    assert (record.received, record.state) == (2, AssociationState.RELEASED)
