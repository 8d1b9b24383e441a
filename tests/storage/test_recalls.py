"""Recalled results: marked, taken out of the queue, and rejected wherever they arrived (A14)."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from storage.database import downgrade, migrate
from storage.recall_records import RecallScope
from storage.records import (
    DeliveryAttempt,
    NotFoundError,
    RecalledError,
    SupersededError,
)
from storage.states import DeliveryState
from tests.storage.holding import (
    STUDY,
    Holding,
    arrived,
    at_once,
    digest,
    failed,
    outcome,
)
from tests.storage.recalling import LIVER, SAFETY, notes, recall, sent, states, waiting


def test_what_arrived_is_rejected_and_what_waits_is_withdrawn(held: Holding) -> None:
    """UID-06: one note for the study and the destination; of what it has, and of nothing else."""
    held.deliverable(results=2)
    sent(held)
    done = recall(held)
    (study,) = done.studies
    assert (study.study_instance_uid, study.results) == (STUDY, 2)
    assert (study.destinations, study.waiting) == (("PACS",), 1)
    assert states(held) == ["sent", "withdrawn"]
    (pending,) = held.withdrawals.pending(limit=9)
    (rejected,) = pending.rejected
    assert rejected.sop_instance_uid == held.jobs.results()[0].sop_instance_uid
    assert (pending.withdrawal.destination, pending.withdrawal.code) == ("PACS", SAFETY)
    assert (pending.engine_version, pending.engine_digest) == ("1.0", digest("liver 1.0"))
    assert {row.recall_id for row in held.jobs.results()} == {done.recall_id}


def test_who_recalled_what_and_why_stands_on_the_timeline(held: Holding) -> None:
    held.deliverable(results=2)
    sent(held)
    recall(held)
    events = held.events.timeline(held.studies.get(STUDY).id)
    (event,) = [event for event in events if event.action == "results.recalled"]
    assert (event.actor, event.at) == ("anna", held.clock())
    assert event.details["reason"] == "it draws too much"
    assert (event.details["results"], event.details["withdrawn"]) == (2, 1)
    assert "delivery.withdrawn" in held.actions()


def test_a_second_recall_of_the_same_does_nothing(held: Holding) -> None:
    held.deliverable()
    sent(held)
    recall(held)
    before = held.actions(), states(held), len(waiting(held))
    again = recall(held)
    assert (again.recall_id, again.studies) == (None, ())
    assert (held.actions(), states(held), len(waiting(held))) == before
    assert len(held.recalls.list()) == 1


def test_a_look_before_changes_nothing_and_tells_the_same(held: Holding) -> None:
    held.deliverable()
    sent(held)
    before = held.actions()
    seen = held.recalls.affected(LIVER)
    assert (held.actions(), held.recalls.list()) == (before, [])
    assert seen.studies == recall(held).studies


def test_a_version_or_package_digest_narrows_a_recall(held: Holding) -> None:
    held.deliverable()
    package = digest("liver 1.0")
    for version, found in (("1.0", 1), ("2.0", 0), (package, 1), (package[:8], 1), ("%", 0)):
        scope = RecallScope(engine="liver", version=version)
        assert len(held.recalls.affected(scope).studies) == found
    assert len(recall(held, RecallScope(engine="liver", version=package[:8])).studies) == 1


def test_results_of_no_known_version_are_told_and_left(held: Holding) -> None:
    held.deliverable(results=3)
    held.execute("UPDATE job SET engine_version = '', engine_digest = ''")
    done = recall(held, RecallScope(engine="liver", version="1.0"))
    assert (done.recall_id, done.unversioned) == (None, 3)
    assert recall(held).studies[0].results == 3


def test_a_study_and_a_time_narrow_a_recall(held: Holding) -> None:
    held.deliverable()
    made, second = held.clock(), timedelta(seconds=1)
    for scope, found in (
        (RecallScope(engine="liver", since=made + second), 0),
        (RecallScope(engine="liver", until=made), 0),
        (RecallScope(engine="liver", since=made, until=made + second), 1),
        (RecallScope(engine="liver", study_instance_uid=STUDY), 1),
    ):
        assert len(held.recalls.affected(scope).studies) == found


def test_an_engine_or_a_study_that_never_was_is_named(held: Holding) -> None:
    held.deliverable()
    with pytest.raises(NotFoundError, match="an engine lungs"):
        recall(held, RecallScope(engine="lungs"))
    with pytest.raises(NotFoundError, match=r"no study 1\.2\.3"):
        recall(held, RecallScope(engine="liver", study_instance_uid="1.2.3"))


# ---------------------------------------------------------------- in the middle of sending


def test_what_is_being_sent_is_waited_for_and_rejected_if_it_arrives(held: Holding) -> None:
    held.deliverable()
    leased = held.send()
    recall(held)
    assert waiting(held) == []
    held.deliveries.record(leased.delivery.id, leased.token, arrived())
    (pending,) = held.withdrawals.pending(limit=9)
    assert len(pending.rejected) == 1


def test_what_is_being_sent_and_fails_is_withdrawn_and_nothing_is_told(held: Holding) -> None:
    held.deliverable()
    sending = held.send()
    recall(held)
    held.deliveries.record(sending.delivery.id, sending.token, failed())
    assert states(held) == ["withdrawn"]
    (pending,) = held.withdrawals.pending(limit=9)
    assert pending.rejected == ()
    assert held.withdrawals.made(pending.withdrawal.id, ()) == []
    assert waiting(held) == []
    assert held.actions()[-1] == "withdrawal.not_needed"


def test_what_was_being_sent_as_the_sender_fell_silent_is_withdrawn_and_rejected(
    held: Holding,
) -> None:
    held.deliverable()
    held.send(seconds=5)
    recall(held)
    held.clock.advance(6)
    held.deliveries.expire_leases()
    assert states(held) == ["withdrawn"]
    (pending,) = held.withdrawals.pending(limit=9)
    assert [item.taken for item in pending.rejected] == [False]


def test_nobody_can_send_a_recalled_result_again(held: Holding) -> None:
    held.deliverable()
    delivery = sent(held)
    recall(held)
    with pytest.raises(RecalledError):
        held.deliveries.retry(delivery, by="anna")


# ---------------------------------------------------------------- the note


def noted(held: Holding) -> list[str]:
    """Recall what one destination has, and make its note; return the states."""
    held.deliverable()
    sent(held)
    recall(held)
    (pending,) = held.withdrawals.pending(limit=9)
    held.withdrawals.made(pending.withdrawal.id, [notes()])
    return states(held)


def test_a_note_is_made_once_whoever_makes_it(held: Holding) -> None:
    held.deliverable()
    sent(held)
    recall(held)
    (record,) = waiting(held)
    at_once(
        lambda: held.withdrawals.made(record.id, [notes()]),
        lambda: held.withdrawals.made(record.id, [notes()]),
    )
    assert states(held) == ["sent", "queued", "reserved"]


def test_a_destination_that_takes_no_note_gets_the_notice_in_its_place(held: Holding) -> None:
    """VIEW-02: what it refused is on the timeline."""
    assert noted(held) == ["sent", "queued", "reserved"]
    sent(held, DeliveryAttempt(state=DeliveryState.FAILED, status=0x0122, error="no such class"))
    assert states(held) == ["sent", "replaced", "queued"]
    sent(held)
    assert states(held) == ["sent", "replaced", "sent"]
    assert "delivery.replaced" in held.actions()


def test_where_the_note_is_taken_the_notice_is_not_needed(held: Holding) -> None:
    noted(held)
    sent(held)
    assert states(held) == ["sent", "sent", "not_needed"]


def test_a_newer_revision_leaves_the_note_on_its_way(held: Holding) -> None:
    """A re-run does not undo that its predecessor was rejected."""
    noted(held)
    held.receive(2)
    assert held.studies.get(STUDY).revision == 2
    assert states(held) == ["sent", "queued", "reserved"]
    note = sent(held, failed())
    assert states(held) == ["sent", "queued", "reserved"]
    held.clock.advance(60)
    sent(held)
    held.deliveries.retry(note, by="anna")
    with pytest.raises((SupersededError, RecalledError)):
        held.deliveries.retry(min(row.id for row in held.deliveries.list()), by="anna")


def test_a_rerun_replaces_results_and_not_notes(held: Holding) -> None:
    noted(held)
    sent(held)
    held.receive(2)
    held.route()
    leased = held.lease()
    assert [item.sop_instance_uid for item in leased.predecessors] == [
        held.jobs.results()[0].sop_instance_uid
    ]
    held.jobs.finish(leased.job.id, leased.token, outcome(leased))
    superseded = {row.sop_instance_uid: row.superseded for row in held.jobs.results()}
    assert [superseded[note.sop_instance_uid] for note in notes()] == [False, False]


# ---------------------------------------------------------------- superseded


def superseding(held: Holding, *rejecting: str) -> None:
    """Send a result, and replace it by one on a late slice."""
    held.deliverable()
    sent(held)
    held.receive(2)
    held.route()
    leased = held.lease()
    made = replace(outcome(leased), rejecting=rejecting)
    held.jobs.finish(leased.job.id, leased.token, made)


def test_a_destination_that_wants_it_is_told_what_is_superseded_once_it_has_the_new(
    held: Holding,
) -> None:
    """UID-06: of the old result, and by nobody's word."""
    superseding(held, "PACS")
    assert waiting(held) == []
    sent(held)
    (pending,) = held.withdrawals.pending(limit=9)
    old, new = held.jobs.results()
    assert [item.sop_instance_uid for item in pending.rejected] == [old.sop_instance_uid]
    assert (pending.withdrawal.recall_id, pending.withdrawal.reason) == (None, "")
    assert pending.engine == "liver"
    assert (old.recall_id, new.superseded) == (None, False)
    held.withdrawals.made(pending.withdrawal.id, [notes()])
    assert states(held) == ["sent", "sent", "queued", "reserved"]


@pytest.mark.parametrize("rejecting", [(), ("OTHER",)])
def test_nobody_else_is_told_what_is_superseded(rejecting: tuple[str, ...], held: Holding) -> None:
    superseding(held, *rejecting)
    sent(held)
    assert waiting(held) == []


def test_what_was_superseded_and_is_then_recalled_is_told_with_the_recall(held: Holding) -> None:
    superseding(held, "PACS")
    sent(held)
    recall(held)
    first, second = held.withdrawals.pending(limit=9)
    assert (first.rejected, len(second.rejected)) == ((), 2)
    assert second.withdrawal.by == "anna"


def test_why_a_note_could_not_be_made_stands_in_its_row(held: Holding) -> None:
    held.deliverable()
    sent(held)
    recall(held)
    (record,) = waiting(held)
    held.withdrawals.failed(record.id, "the sandbox ended")
    (listed,) = held.withdrawals.list(study_id=held.studies.get(STUDY).id)
    assert (listed.error, listed.made_at) == ("the sandbox ended", None)
    assert held.recalls.list()[0].waiting == 1


def test_an_older_schema_knows_nothing_of_it_and_sends_nothing_of_it(bare_url: str) -> None:
    migrate(bare_url)
    held = Holding(bare_url)
    held.deliverable(results=2)
    sent(held)
    recall(held)
    held.close()
    downgrade(bare_url, "0004")
    migrate(bare_url)
    held = Holding(bare_url)
    assert states(held) == ["sent", "superseded"]
    held.close()
