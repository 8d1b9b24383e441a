"""Retention: what is needed stays, what goes is written down first, and a crash is gone on with."""

from __future__ import annotations

from dataclasses import replace

import pytest

from storage.packs import PackStore
from storage.records import BytesDeletedError
from storage.retention_records import Planned, RetentionPolicy
from storage.states import (
    AssociationState,
    DeletionKind,
    DeletionRule,
    ErrorClass,
    StudyState,
)
from tests.storage.holding import STUDY, Holding
from tests.storage.keeping import BYTES, DAY, EVERYTHING, Keeping, refused, rules_of

OTHER = "1.2.826.0.1.2"


# ---------------------------------------------------------------- what goes


def test_a_study_that_is_done_long_enough_loses_its_bytes_and_keeps_its_rows(
    keeping: Keeping, held: Holding
) -> None:
    for number in (1, 2, 3):
        keeping.receive(number)
    keeping.read()
    held.clock.advance(0.9 * DAY)
    assert keeping.retention().plan() == []
    held.clock.advance(0.2 * DAY)
    (planned,) = keeping.retention().plan()
    assert (planned.rule, planned.what, planned.count) == (DeletionRule.STUDIES, STUDY, 3)
    assert keeping.bytes_there() == [True] * 3
    before = keeping.disk()
    swept = keeping.retention().sweep()
    assert (swept.deletions, swept.unfinished) == (1, 0)
    assert swept.freed >= before - keeping.disk() > 2 * BYTES
    assert keeping.bytes_there() == [False] * 3
    study = held.studies.get(STUDY)
    assert (study.instances, study.state) == (3, StudyState.ROUTED)
    assert study.emptied_at == held.clock.now
    assert held.actions()[-1] == "study.bytes_deleted"
    assert held.events.timeline(study.id)[-1].details["rule"] == "studies_days"
    assert held.studies.conservation().missing == 0
    assert keeping.retention().plan() == []


def test_results_go_after_their_own_time_and_their_rows_stay(
    keeping: Keeping, held: Holding
) -> None:
    keeping.receive()
    keeping.read(results=2)
    (first, second) = held.jobs.results()
    held.clock.advance(1.5 * DAY)
    keeping.retention().sweep()
    assert keeping.objects.exists(first.digest)
    held.clock.advance(1 * DAY)
    (planned,) = keeping.retention().plan()
    assert (planned.kind, planned.count) == (DeletionKind.RESULTS, 2)
    keeping.retention().sweep()
    assert not keeping.objects.exists(first.digest)
    assert not keeping.objects.exists(second.digest)
    assert len(held.jobs.results()) == 2
    assert held.actions()[-1] == "results.bytes_deleted"
    assert list(held.studies.result_digests()) == []


def test_an_object_that_another_result_has_too_stays(keeping: Keeping, held: Holding) -> None:
    keeping.receive()
    keeping.read()
    (result,) = held.jobs.results()
    held.clock.advance(3 * DAY)
    held.execute(
        "INSERT INTO result (job_id, writer, sop_class_uid, sop_instance_uid,"
        " series_instance_uid, transfer_syntax_uid, digest, size, created_at, superseded)"
        " SELECT job_id, writer, sop_class_uid, '2.25.99', series_instance_uid,"
        " transfer_syntax_uid, digest, size, :now, superseded FROM result",
        now="2024-03-04 07:00:00+00:00",
    )
    keeping.retention().sweep()
    assert keeping.objects.exists(result.digest)
    assert [item.deletion_id is None for item in held.jobs.results()] == [False, True]


def test_quarantine_goes_after_its_own_time(keeping: Keeping, held: Holding) -> None:
    location = keeping.quarantine("no Study Instance UID")
    held.clock.advance(2.9 * DAY)
    assert keeping.retention().plan() == []
    held.clock.advance(0.2 * DAY)
    keeping.retention().sweep()
    assert not keeping.there(location)
    (item,) = held.studies.quarantined()
    assert item.deleted_at == held.clock.now
    assert held.events.recent(1)[0].action == "quarantine.bytes_deleted"
    assert keeping.retention().plan() == []


def test_what_was_acknowledged_and_not_indexed_goes_by_the_rule_for_what_failed(
    keeping: Keeping, held: Holding
) -> None:
    location = keeping.receive(1, sop_instance_uid="1." * 40 + "1")
    (item,) = held.studies.quarantined()
    assert item.location == location
    assert held.studies.conservation().not_indexed == 1
    held.clock.advance(9 * DAY)
    assert keeping.retention().plan() == []
    held.clock.advance(2 * DAY)
    assert rules_of(keeping) == [DeletionRule.FAILED]
    keeping.retention().sweep()
    assert not keeping.there(location)
    assert held.studies.conservation().missing == 0


def test_duplicates_and_own_results_go_and_what_has_a_row_stays(
    keeping: Keeping, held: Holding
) -> None:
    first = keeping.receive(1)
    again = keeping.receive(1)
    keeping.read()
    (result,) = held.jobs.results()
    own = keeping.come_back(result.sop_instance_uid)
    keeping.quarantine()
    keeping.seal()
    held.clock.advance(2 * DAY)
    only = RetentionPolicy(duplicates_days=1)
    (planned,) = keeping.retention(only).plan()
    assert (planned.kind, planned.count) == (DeletionKind.DUPLICATES, 2)
    keeping.retention(only).sweep()
    assert [keeping.there(place) for place in (first, again, own)] == [True, False, False]
    assert keeping.retention(only).plan() == []
    assert keeping.retention(only).sweep().deletions == 0


def test_what_has_no_row_yet_is_never_taken_for_a_duplicate(
    keeping: Keeping, held: Holding
) -> None:
    """It may be the return of what was deleted: the row is about to name its place."""
    keeping.receive(1)
    keeping.receive(1)
    keeping.read()
    held.clock.advance(2 * DAY)
    keeping.retention(RetentionPolicy(studies_days=1)).sweep()
    entry, location = keeping.written(1)
    only = RetentionPolicy(duplicates_days=1)
    planned = Planned(
        kind=DeletionKind.DUPLICATES,
        rule=DeletionRule.DUPLICATES,
        key=location.pack,
        what="",
        since=held.clock.now,
        count=1,
        size=1,
    )
    assert keeping.retention(only)._bury([planned]) == 1
    keeping.retention(only).sweep()
    keeping.indexer.rebuild([entry])
    assert keeping.bytes_there() == [True]


def test_a_record_whose_note_cannot_be_read_is_kept_and_so_is_its_pack(
    keeping: Keeping, held: Holding
) -> None:
    keeping.receive(1)
    location, end = keeping._write(b"of a newer version", b"{}")
    held.execute("UPDATE pack SET indexed_through = :end", end=end)
    keeping.read()
    keeping.seal()
    held.clock.advance(3 * DAY)
    assert keeping.retention().sweep().packs == 0
    assert keeping.bytes_there() == [False]
    assert keeping.there(location)


def test_a_pack_of_which_nothing_is_wanted_goes_as_a_file(keeping: Keeping, held: Holding) -> None:
    for number in (1, 2, 2):  # the second came twice
        keeping.receive(number)
    keeping.read()
    keeping.seal()
    held.clock.advance(2 * DAY)
    swept = keeping.retention(RetentionPolicy(studies_days=1)).sweep()
    assert (swept.packs, swept.unfinished) == (1, 0)
    assert keeping.packs.names() == {}
    assert keeping.indexer.indexed_through() == {}
    told = {(item.kind, item.rule, item.count) for item in keeping.holds.deletions()}
    assert told == {
        (DeletionKind.INSTANCES, DeletionRule.STUDIES, 2),
        (DeletionKind.DUPLICATES, DeletionRule.PACK, 1),
    }


def test_a_pack_that_is_written_to_is_not_removed_and_its_records_are_erased(
    keeping: Keeping, held: Holding
) -> None:
    keeping.receive(1)
    keeping.read()
    held.clock.advance(2 * DAY)
    assert keeping.retention().sweep().packs == 0
    assert keeping.bytes_there() == [False]
    late = keeping.receive(1, study=OTHER)
    assert keeping.there(late)
    assert keeping.retention().sweep().packs == 0
    assert keeping.there(late)


# ---------------------------------------------------------------- what stays


def test_without_a_policy_nothing_ever_goes(keeping: Keeping, held: Holding) -> None:
    keeping.receive()
    keeping.receive()
    keeping.quarantine()
    keeping.read()
    keeping.seal()
    held.clock.advance(10_000 * DAY)
    nothing = RetentionPolicy()
    assert not nothing.deletes
    assert keeping.retention(nothing).plan() == []
    assert keeping.retention(nothing).sweep().deletions == 0
    assert keeping.bytes_there() == [True]


@pytest.mark.parametrize(
    "stage", ["receiving", "complete", "queued", "running", "to be sent", "being sent", "parked"]
)
def test_a_study_that_is_not_done_keeps_everything(
    stage: str, keeping: Keeping, held: Holding
) -> None:
    keeping.receive()
    held.deliveries.set_destinations([("PACS", "dimse")])
    if stage == "complete":
        held.complete()
    elif stage != "receiving":
        held.route()
    if stage == "running":
        held.lease(seconds=100 * DAY)
    elif stage not in {"receiving", "complete", "queued"}:
        keeping.finish()
    if stage == "being sent":
        held.send(seconds=100 * DAY)
    elif stage == "parked":
        held.deliveries.park("PACS", held.clock.now, "down")
    held.clock.advance(50 * DAY)
    urgent = replace(EVERYTHING, low_bytes=1 << 60, high_bytes=1 << 61)
    assert keeping.retention(urgent).plan() == []
    keeping.retention(urgent).sweep()
    assert keeping.bytes_there() == [True]
    assert all(keeping.objects.exists(digest) for digest in held.studies.result_digests())


@pytest.mark.parametrize("failure", ["job", "delivery", "routing"])
def test_what_a_person_can_set_going_again_has_a_time_of_its_own(
    failure: str, keeping: Keeping, held: Holding
) -> None:
    keeping.receive()
    held.deliveries.set_destinations([("PACS", "dimse")])
    if failure == "routing":
        record = held.complete()
        held.studies.fail_routing(record.id, record.revision, "the reason")
    else:
        held.route()
    if failure == "job":
        leased = held.lease()
        held.jobs.fail(
            leased.job.id,
            leased.token,
            error_class=ErrorClass.DETERMINISTIC,
            error="no",
            retry_in=None,
        )
    elif failure == "delivery":
        keeping.finish()
        sending = held.send()
        held.deliveries.record(sending.delivery.id, sending.token, refused())
    held.clock.advance(9 * DAY)
    assert rules_of(keeping, replace(EVERYTHING, low_bytes=1 << 60, high_bytes=1 << 61)) == []
    held.clock.advance(2 * DAY)
    assert set(rules_of(keeping)) == {DeletionRule.FAILED}
    assert rules_of(keeping, replace(EVERYTHING, failed_days=None)) == []
    keeping.retention().sweep()
    assert keeping.bytes_there() == [False]


def test_a_failed_job_and_a_refused_delivery_are_not_retried_without_their_bytes(
    keeping: Keeping, held: Holding
) -> None:
    keeping.receive()
    held.deliveries.set_destinations([("PACS", "dimse")])
    job_id, _ = held.route(jobs=2)
    leased = held.lease()
    held.jobs.fail(
        leased.job.id, leased.token, error_class=ErrorClass.CRASH, error="no", retry_in=None
    )
    keeping.finish()
    sending = held.send()
    held.deliveries.record(sending.delivery.id, sending.token, refused())
    held.clock.advance(11 * DAY)
    keeping.retention().sweep()
    with pytest.raises(BytesDeletedError, match=r"of 1 of 1 instances .* retention on 2024-03-12"):
        held.jobs.retry(job_id, by="anna")
    with pytest.raises(BytesDeletedError, match=r"the result object's bytes .*failed_days"):
        held.deliveries.retry(sending.delivery.id, by="anna")


def test_a_study_that_is_held_stays_until_it_is_released(keeping: Keeping, held: Holding) -> None:
    keeping.receive()
    keeping.read()
    keeping.holds.hold(STUDY, by="anna", reason="complaint 17")
    held.clock.advance(100 * DAY)
    urgent = replace(EVERYTHING, low_bytes=1 << 60, high_bytes=1 << 61)
    assert keeping.retention(urgent).plan() == []
    keeping.retention(urgent).sweep()
    assert keeping.bytes_there() == [True]
    assert keeping.holds.release(STUDY, by="bert")
    keeping.retention().sweep()
    assert keeping.bytes_there() == [False]
    assert [a for a in held.actions() if a in {"study.held", "study.released"}] == [
        "study.held",
        "study.released",
    ]


def test_a_hold_between_plan_and_deletion_is_respected(keeping: Keeping, held: Holding) -> None:
    keeping.receive()
    keeping.read()
    held.clock.advance(3 * DAY)
    retention = keeping.retention()
    planned = retention.plan()
    keeping.holds.hold(STUDY, by="anna", reason="just now")
    assert len(planned) == 2
    assert retention._bury(planned) == 0
    assert keeping.bytes_there() == [True]


def test_a_study_that_an_association_carries_stays(keeping: Keeping, held: Holding) -> None:
    association = held.associations.opened(
        listener="dimse", calling_ae="CT1", called_ae="WETREAD", peer_address="127.0.0.1"
    )
    keeping.receive()
    held.execute("UPDATE instance SET association_id = :id", id=association)
    held.execute("UPDATE study SET state = 'complete'")
    held.execute("UPDATE study SET state = 'unmatched'")
    held.clock.advance(3 * DAY)
    assert keeping.retention().plan() == []
    held.associations.closed(association, AssociationState.RELEASED)
    assert rules_of(keeping) == [DeletionRule.STUDIES]


# ---------------------------------------------------------------- a disk that fills up


def fill(keeping: Keeping, held: Holding, studies: int) -> list[str]:
    """Take in and read studies, an hour apart; return their UIDs, oldest first."""
    uids = [f"1.2.826.0.9.{number}" for number in range(studies)]
    for uid in uids:
        keeping.receive(1, study=uid)
        keeping.read(study=uid)
        held.clock.advance(3600)
    return uids


def test_below_the_low_mark_the_oldest_go_until_the_high_mark_is_reached(
    keeping: Keeping, held: Holding, monkeypatch: pytest.MonkeyPatch
) -> None:
    uids = fill(keeping, held, 5)
    free = [10_000]
    monkeypatch.setattr(PackStore, "free_bytes", lambda _self: free[0])
    policy = RetentionPolicy(low_bytes=20_000, high_bytes=11_000 + 2 * BYTES)
    assert [item.what for item in keeping.retention(policy).plan()] == uids[:3]
    assert set(rules_of(keeping, policy)) == {DeletionRule.DISK}
    assert keeping.retention(policy).short_of_room()
    assert not keeping.retention().short_of_room()
    keeping.retention(policy).sweep()
    there = [keeping.bytes_there(uid) == [True] for uid in uids]
    assert there == [False, False, False, True, True]
    free[0] = 20_000  # between the marks: enough
    assert keeping.retention(policy).sweep().deletions == 0


def test_room_that_the_other_rules_make_is_counted_first(
    keeping: Keeping, held: Holding, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(keeping, held, 2)
    held.clock.advance(DAY)
    monkeypatch.setattr(PackStore, "free_bytes", lambda _self: 10_000)
    policy = RetentionPolicy(studies_days=1, low_bytes=20_000, high_bytes=30_000)
    assert rules_of(keeping, policy) == [DeletionRule.STUDIES] * 2
