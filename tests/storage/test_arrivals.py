"""What a destination has, or may have, by every attempt so far: a recall rejects it there (A14)."""

from __future__ import annotations

from dataclasses import replace

from storage.database import downgrade, migrate
from storage.records import DeliveryAttempt
from storage.states import DeliveryState, Reached
from tests.storage.holding import Holding, failed, new_result, outcome
from tests.storage.recalling import doubts, notes, recall, sent, states, waiting


def unanswered(held: Holding) -> int:
    """Send what waits first, without an answer; it is sent again in five seconds."""
    return sent(held, DeliveryAttempt(state=DeliveryState.QUEUED, error="no answer", retry_in=5))


def refused(held: Holding) -> int:
    attempt = DeliveryAttempt(state=DeliveryState.FAILED, reached=Reached.NO, status=0xC000)
    return sent(held, attempt)


def test_what_arrived_and_waits_to_be_sent_again_is_withdrawn_and_rejected(held: Holding) -> None:
    """A resend that a person asked for does not undo that the archive has it."""
    held.deliverable()
    held.deliveries.retry(sent(held), by="anna")
    (study,) = recall(held).studies
    assert (study.destinations, study.waiting) == (("PACS",), 1)
    assert states(held) == ["withdrawn"]
    assert doubts(held) == [True]


def test_what_arrived_and_fails_when_it_is_sent_again_is_rejected(held: Holding) -> None:
    held.deliverable()
    held.deliveries.retry(sent(held), by="anna")
    leased = held.send()
    recall(held)
    held.deliveries.record(leased.delivery.id, leased.token, failed())
    assert states(held) == ["withdrawn"]
    assert doubts(held) == [True]


def test_what_was_being_sent_as_its_sender_died_is_rejected_though_nobody_knows(
    held: Holding,
) -> None:
    held.deliverable()
    held.send(seconds=5)
    held.clock.advance(6)
    held.deliveries.expire_leases()
    assert states(held) == ["queued"]
    recall(held)
    assert states(held) == ["withdrawn"]
    assert doubts(held) == [False]


def test_what_had_no_answer_is_rejected_whatever_came_after(held: Holding) -> None:
    """Queued again, parked, refused for good, or sent after all."""
    held.deliverable(results=4)
    for _ in range(4):
        unanswered(held)
    held.clock.advance(5)
    sent(held)
    refused(held)
    sent(held, failed(retry_in=600))
    held.deliveries.park("PACS", held.clock.now, "down")
    assert states(held) == ["sent", "failed", "parked", "parked"]
    recall(held)
    assert states(held) == ["sent", "failed", "withdrawn", "withdrawn"]
    assert doubts(held) == [True, False, False, False]


def test_what_was_refused_or_found_nobody_is_told_to_nobody(held: Holding) -> None:
    held.deliverable(results=2)
    sent(held, failed(retry_in=600))
    refused(held)
    (study,) = recall(held).studies
    assert study.destinations == ()
    assert states(held) == ["withdrawn", "failed"]
    assert waiting(held) == []


def test_what_had_no_answer_is_rejected_where_a_newer_revision_supersedes_it(
    held: Holding,
) -> None:
    """UID-06: at a destination that wants it."""
    held.deliverable()
    unanswered(held)
    held.receive(2)
    held.route()
    leased = held.lease()
    made = replace(outcome(leased), rejecting=("PACS",))
    held.jobs.finish(leased.job.id, leased.token, made)
    sent(held)
    assert doubts(held) == [False]


def test_each_lot_of_notes_goes_by_itself_and_has_its_own_notice(held: Holding) -> None:
    held.deliverable(results=2)
    sent(held)
    unanswered(held)
    recall(held)
    (pending,) = held.withdrawals.pending(limit=9)
    doubtful = new_result("2.25.9003"), new_result("2.25.9004")
    held.withdrawals.made(pending.withdrawal.id, [notes(), doubtful])
    refused(held)
    sent(held)
    sent(held)
    assert states(held)[2:] == ["replaced", "sent", "sent", "not_needed"]


def test_a_database_taken_over_knows_what_older_attempts_brought_there(bare_url: str) -> None:
    """By the timeline, the count of attempts and the last status; doubt counts as there."""
    migrate(bare_url)
    held = Holding(bare_url)
    held.deliverable(results=4)
    held.deliveries.retry(sent(held), by="anna")
    sent(held, failed(retry_in=600))
    unanswered(held)
    refused(held)
    held.close()
    downgrade(bare_url, "0006")
    migrate(bare_url)
    held = Holding(bare_url)
    rows = held.execute("SELECT reached FROM delivery ORDER BY id")
    assert [reached for (reached,) in rows] == ["yes", "perhaps", "no", "no"]
    held.close()
