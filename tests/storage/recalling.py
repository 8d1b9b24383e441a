"""Short ways to recall what was sent, and to see what became of it."""

from __future__ import annotations

from typing import Final

from storage.recall_records import Recalled, RecallScope, WithdrawalRecord
from storage.records import DeliveryAttempt, NewResult
from tests.storage.holding import Holding, arrived, new_result

SAFETY: Final = "113037"
LIVER: Final = RecallScope(engine="liver")


def recall(held: Holding, scope: RecallScope = LIVER) -> Recalled:
    """Recall what a scope names."""
    return held.recalls.recall(scope, code=SAFETY, reason="it draws too much", by="anna")


def sent(held: Holding, attempt: DeliveryAttempt | None = None) -> int:
    """Send what waits first; return it."""
    leased = held.send()
    held.deliveries.record(leased.delivery.id, leased.token, attempt or arrived())
    return leased.delivery.id


def notes() -> tuple[NewResult, NewResult]:
    """Return a note, and the notice for its place."""
    return new_result("2.25.9001"), new_result("2.25.9002")


def states(held: Holding) -> list[str]:
    """Return the states of all deliveries, oldest first."""
    return [row.state.value for row in sorted(held.deliveries.list(), key=lambda row: row.id)]


def waiting(held: Holding) -> list[WithdrawalRecord]:
    """Return whose notes wait to be made."""
    return [item.withdrawal for item in held.withdrawals.pending(limit=9)]


def doubts(held: Holding) -> list[bool]:
    """Return, for each object that is to be rejected, whether it was surely taken."""
    found = held.withdrawals.pending(limit=9)
    return [item.taken for pending in found for item in pending.rejected]
