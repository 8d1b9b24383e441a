"""A sender that does not wait for its answers: what it asks waits in its socket, not in ours."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Final

import pytest

from node.expectation import Expectation
from node.listeners._association import MOST_WAITING
from node.listeners.dimse import DimseListener
from tests.end_to_end.pdus import CONTEXTS, message, n_create_rq, p_data
from tests.end_to_end.requestor import Requestor, associated
from tests.end_to_end.test_guard_notifications import STEP, step
from tests.node.listeners.receiving import KeepingIngest, eventually, listener_for

MESSAGES: Final = 100


class SlowIngest(KeepingIngest):
    """Keeps nothing that is said until it may."""

    def __init__(self) -> None:
        super().__init__()
        self.may = threading.Event()

    def expected(self, expectation: Expectation) -> None:
        self.may.wait(20)
        super().expected(expectation)


@pytest.fixture
def ingest() -> SlowIngest:
    return SlowIngest()


@pytest.fixture
def listener(ingest: SlowIngest) -> Iterator[DimseListener]:
    made = listener_for(ingest)
    made.start()
    yield made
    ingest.may.set()
    made.stop()


def ask(sender: Requestor) -> None:
    for number in range(MESSAGES):
        uid = f"2.25.{number + 1}"
        request = message(STEP.id, n_create_rq(uid, message_id=number + 1), command=True)
        sender.send(p_data(*request), p_data(*message(STEP.id, step(uid), command=False)))


def test_what_waits_for_an_answer_is_bounded_and_nothing_is_lost(
    ingest: SlowIngest, listener: DimseListener
) -> None:
    """NET-13, NET-19: one operation at a time is agreed; who does not keep to that is held up."""
    with associated(listener.port, contexts=(*CONTEXTS, STEP)) as sender:
        asking = threading.Thread(target=ask, args=(sender,))
        asking.start()
        assert eventually(lambda: len(listener._associations()) == 1)
        (association,) = listener._associations()
        waiting = association.dimse.msg_queue
        assert eventually(lambda: waiting.qsize() == MOST_WAITING)
        time.sleep(0.3)
        assert waiting.qsize() == MOST_WAITING
        ingest.may.set()
        answers = [sender.response() for _ in range(MESSAGES)]
        asking.join()
        sender.release()
    assert answers == [(number + 1, 0) for number in range(MESSAGES)]
    assert len(ingest.expectations) == MESSAGES
