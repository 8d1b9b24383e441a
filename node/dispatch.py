"""Empties the outbox: one thread a destination, one association for many objects.

The only owner of retries (invariant 10): exponential with jitter, unlimited in time, parked while a
destination is down.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

import structlog

from node.bell import Bell
from node.clock import Clock
from node.interfaces import DeliveryTarget, Outgoing, PluginSettings, SendVerdict, Sent
from storage.deliveries import DeliveryStore
from storage.objects import ObjectStore
from storage.records import DeliveryAttempt, LeasedDelivery, LeaseLostError, StorageError
from storage.states import DeliveryState, Reached

STATES: Final = {
    SendVerdict.ACCEPTED: DeliveryState.SENT,
    SendVerdict.WARNED: DeliveryState.WARNED,
    SendVerdict.RETRY: DeliveryState.QUEUED,
    SendVerdict.UNREACHABLE: DeliveryState.QUEUED,
    SendVerdict.REFUSED: DeliveryState.FAILED,
}

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class DispatchLimits:
    """How hard to try. Seconds; `batch` objects an association.

    After `fallback_attempts` of which the last had no answer, what stands in for an object is sent.
    """

    batch: int
    lease_seconds: float
    idle_seconds: float
    retry_first_seconds: float
    retry_max_seconds: float
    breaker_failures: int
    breaker_seconds: float
    fallback_attempts: int = 3


def backoff(limits: DispatchLimits, attempts: int, jitter: Callable[[], float]) -> float:
    """Return the wait after so many attempts: doubled each time, bounded, 50-100 % of it."""
    doubled = limits.retry_first_seconds * 2.0 ** min(max(0, attempts - 1), 32)
    return min(doubled, limits.retry_max_seconds) * (0.5 + 0.5 * jitter())


def arrival_of(sent: Sent) -> Reached:
    """Say whether the destination has what was sent, or may have it: what had no answer may be.

    An object that could lie there is rejected when it is recalled; so doubt counts as there.
    """
    if sent.verdict in {SendVerdict.ACCEPTED, SendVerdict.WARNED}:
        return Reached.YES
    if sent.may_be_there is not None:
        return Reached.PERHAPS if sent.may_be_there else Reached.NO
    refused = sent.verdict is SendVerdict.REFUSED or sent.status is not None
    return Reached.NO if refused or not sent.begun else Reached.PERHAPS


class Dispatcher:
    """Sends what waits for one destination, in order, and writes each answer as it comes."""

    def __init__(
        self,
        *,
        destination: str,
        target: DeliveryTarget[PluginSettings],
        deliveries: DeliveryStore,
        objects: ObjectStore,
        clock: Clock,
        limits: DispatchLimits,
        results: Bell | None = None,
    ) -> None:
        """Send when `results` rings, or at the next look."""
        self._results = results or Bell()
        self.destination = destination
        self.target = target
        self._deliveries = deliveries
        self._objects = objects
        self._clock = clock
        self._limits = limits
        self._failures = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name=f"to-{destination}", daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def stop(self) -> None:
        """Finish the association in flight and send no more."""
        self._stop.set()
        self._results.ring()
        self._thread.join()

    def _loop(self) -> None:
        while not self._stop.is_set():
            heard = self._results.rings
            try:
                sent = self.empty()
            except StorageError as error:
                log.error(
                    "dispatch.no_storage",
                    destination=self.destination,
                    error=type(error).__name__,
                )
                sent = 0
            if sent == 0:
                self._results.wait(heard, self._limits.idle_seconds)

    def empty(self) -> int:
        """Send one batch; return how many objects were tried."""
        leased = self._deliveries.lease(
            self.destination, limit=self._limits.batch, seconds=self._limits.lease_seconds
        )
        if not leased:
            return 0
        answered: set[int] = set()
        verdicts: list[SendVerdict] = []
        begun: list[bool] = []

        def report(index: int, sent: Sent) -> None:
            answered.add(index)
            verdicts.append(sent.verdict)
            begun.append(sent.begun)
            self._write(leased[index], sent, at_once=not sent.begun and any(begun))

        self._send(leased, report)
        for index in sorted(set(range(len(leased))) - answered):
            report(index, Sent(verdict=SendVerdict.RETRY, message="no answer was reported"))
        self._breaker(verdicts, leased)
        return len(leased)

    def _send(self, leased: Sequence[LeasedDelivery], report: Callable[[int, Sent], None]) -> None:
        outgoing = [
            Outgoing(
                sop_class_uid=item.delivery.sop_class_uid,
                sop_instance_uid=item.delivery.sop_instance_uid,
                transfer_syntax_uid=item.transfer_syntax_uid,
                path=self._objects.path(item.digest),
            )
            for item in leased
        ]
        try:
            self.target.send(outgoing, report)
        except StorageError:
            raise
        except Exception as error:  # noqa: BLE001 - the edge of a delivery: recorded in its row
            log.error(
                "dispatch.target_failed",
                destination=self.destination,
                error=type(error).__name__,
            )

    def _write(self, item: LeasedDelivery, sent: Sent, *, at_once: bool) -> None:
        """Write an answer; `at_once`: another object ended the association, this one goes on."""
        state = STATES[sent.verdict]
        retry_in = 0.0
        if state is DeliveryState.QUEUED and not at_once:
            retry_in = backoff(self._limits, item.delivery.attempts, random.random)
        attempt = DeliveryAttempt(
            state=state,
            reached=arrival_of(sent),
            status=sent.status,
            error=sent.message,
            retry_in=retry_in,
            stuck=sent.cut_short and item.delivery.attempts >= self._limits.fallback_attempts,
        )
        try:
            self._deliveries.record(item.delivery.id, item.token, attempt)
        except LeaseLostError:
            log.warning("delivery.lease_lost", delivery_id=item.delivery.id)
            return
        log.info(
            "delivery.answered",
            delivery_id=item.delivery.id,
            destination=self.destination,
            verdict=sent.verdict.value,
            status=sent.status,
        )

    def _breaker(self, verdicts: Sequence[SendVerdict], leased: Sequence[LeasedDelivery]) -> None:
        """Count attempts that found nobody; park the destination when there were too many."""
        if not any(verdict is SendVerdict.UNREACHABLE for verdict in verdicts):
            self._failures = 0
            return
        self._failures += 1
        if self._failures < self._limits.breaker_failures:
            return
        self._park(f"unreachable {self._failures} times in a row, {len(leased)} objects wait")

    def _park(self, reason: str) -> None:
        patience = replace(self._limits, retry_first_seconds=self._limits.breaker_seconds)
        wait = backoff(patience, self._failures, random.random)
        until = self._clock() + timedelta(seconds=wait)
        parked = self._deliveries.park(self.destination, until, reason)
        log.error("destination.parked", destination=self.destination, deliveries=parked)

    def knock(self) -> None:
        """Ask a parked destination whether it is back; open the outbox to it when it is."""
        if not self._deliveries.to_ask(self.destination):
            return
        parked = {item.name: item for item in self._deliveries.destinations()}
        record = parked.get(self.destination)
        if record is None or record.parked_until is None:
            return
        if record.parked_until > self._clock():
            return
        answer = self.target.probe()
        if answer.verdict is SendVerdict.ACCEPTED:
            self._failures = 0
            count = self._deliveries.unpark(self.destination)
            log.info("destination.back", destination=self.destination, deliveries=count)
            return
        self._failures += 1
        self._park(answer.message)
