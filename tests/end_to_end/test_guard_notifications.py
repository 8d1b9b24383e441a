"""Procedure steps that are bombs, and floods of them: the node reads a little, and says no."""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Iterator
from typing import Final

import pytest

from tests.end_to_end.guarded import GUARD, MIB, GuardedNode
from tests.end_to_end.pdus import (
    CONTEXTS,
    DEFLATED,
    EXPLICIT,
    PROCEDURE_STEP,
    Context,
    element,
    message,
    n_create_rq,
    p_data,
)
from tests.end_to_end.requestor import Requestor, associated

STEP: Final = Context(id=9, abstract_syntax=PROCEDURE_STEP, transfer_syntaxes=(EXPLICIT,))
OTHER: Final = "127.0.0.2"
FLOODING: Final = "127.0.0.66"
A_MINUTE: Final = 60
SUCCESS: Final = 0x0000
UNREADABLE: Final = 0x0110
RESOURCE_LIMITATION: Final = 0x0213
OPEN_SEQUENCE: Final = struct.pack("<HH2sHI", 0x0040, 0x0340, b"SQ", 0, 0xFFFFFFFF)
OPEN_ITEM: Final = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
EMPTY_ITEM: Final = struct.pack("<HHI", 0xFFFE, 0xE000, 0)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuardedNode]:
    made = GuardedNode(
        folder=tmp_path_factory.mktemp("notifications") / "node",
        guard={**GUARD, "notifications_per_minute": A_MINUTE},
    )
    with made:
        made.warm_up()
        yield made


@pytest.fixture(autouse=True)
def unharmed(node: GuardedNode) -> Iterator[None]:
    base, logged = node.base(), node.logged()
    yield
    node.wait_back_at(base)
    node.assert_unharmed(since=logged)


def step(study: str) -> bytes:
    """Return what a modality says when it begins."""
    inner = element(0x0020000D, "UI", study)
    item = struct.pack("<HHI", 0xFFFE, 0xE000, len(inner)) + inner
    return element(0x00400252, "CS", "IN PROGRESS") + element(0x00400270, "SQ", item)


def created(sender: Requestor, uid: str, content: bytes, message_id: int = 1) -> int | None:
    """Send an N-CREATE; return its status, None where the association ended instead."""
    items = message(STEP.id, n_create_rq(uid, message_id=message_id), command=True)
    items += message(STEP.id, content, command=False)
    if not all(sender.send(p_data(item)) for item in items):
        return None
    answer = sender.response()
    return None if answer is None else answer[1]


BOMBS: Final = {
    "elements": struct.pack("<HH2sH", 0x0008, 0x0001, b"SH", 0) * 250_000,
    "items": OPEN_SEQUENCE + EMPTY_ITEM * 250_000,
    "nesting": (OPEN_SEQUENCE + OPEN_ITEM) * 100_000,
    "length lies": element(0x00400340, "SQ", b"", length=0x7FFFFFFF),
    "noise": bytes(range(256)) * 4000,
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_procedure_step_that_is_a_bomb_is_answered_and_costs_little(
    name: str, node: GuardedNode
) -> None:
    """T19, for what is not C-STORE: no reading without an end, and nobody else waits for it."""
    base = node.base()
    number = [*BOMBS].index(name)
    address, uid, study = f"127.0.0.{70 + number}", f"2.25.31{number}", f"2.25.32{number}"
    with associated(node.port, address=address, contexts=(*CONTEXTS, STEP)) as hostile:
        hostile.socket.settimeout(5)  # "an answer soon": a bound on hanging, not a measurement
        assert created(hostile, "2.25.3001", BOMBS[name]) == UNREADABLE
        assert hostile.echo(2) == SUCCESS
        assert created(hostile, uid, step(study), 3) == SUCCESS
    assert node.footprint().peak - base.memory < 24 * MIB


def test_a_procedure_step_without_an_end_is_cut(node: GuardedNode) -> None:
    """NET-19: more than two MiB say nothing that a study could have."""
    with associated(node.port, contexts=(*CONTEXTS, STEP)) as hostile:
        assert created(hostile, "2.25.3002", bytes(3 * MIB)) is None


def test_procedure_steps_that_do_not_wait_for_their_answers_pile_up_nowhere(
    node: GuardedNode,
) -> None:
    """NET-13, NET-19: who asks before it is answered waits; the node reads no further meanwhile."""
    base = node.base()
    request = p_data(*message(STEP.id, n_create_rq("2.25.3003"), command=True))
    content = b"".join(map(p_data, message(STEP.id, BOMBS["elements"], command=False)))
    with associated(node.port, address="127.0.0.69", contexts=(*CONTEXTS, STEP)) as hasty:
        sending = threading.Thread(
            target=lambda: all(hasty.send(request, content) for _ in range(60))
        )
        sending.start()
        answers = [hasty.response() for _ in range(60)]
        sending.join()
        assert {status for _, status in filter(None, answers)} <= {UNREADABLE, RESOURCE_LIMITATION}
        assert None not in answers
    assert node.footprint().peak - base.memory < 32 * MIB


def test_a_deflated_procedure_step_is_not_taken(node: GuardedNode) -> None:
    """T18, for what is not C-STORE: there is nothing to inflate."""
    context = Context(id=9, abstract_syntax=PROCEDURE_STEP, transfer_syntaxes=(DEFLATED,))
    with associated(node.port, contexts=(*CONTEXTS, context)) as sender:
        assert context.id not in sender.accepted


def test_a_flood_of_procedure_steps_is_refused_and_others_are_heard(node: GuardedNode) -> None:
    """A22, NET-19: by address; images of the same sender are taken all the same."""
    contexts = (*CONTEXTS, STEP)
    with associated(node.port, address=FLOODING, contexts=contexts) as flooding:
        began = time.monotonic()
        answers = [
            created(flooding, f"2.25.34{number}", step(f"2.25.35{number}"), number + 1)
            for number in range(A_MINUTE + 20)
        ]
        earned = 1 + int((time.monotonic() - began) * A_MINUTE / 60)
        assert A_MINUTE <= answers.count(SUCCESS) <= A_MINUTE + earned
        assert answers.count(RESOURCE_LIMITATION) == len(answers) - answers.count(SUCCESS)
        assert flooding.echo(99) == SUCCESS
        with associated(node.port, address=OTHER, contexts=contexts) as other:
            assert created(other, "2.25.36", step("2.25.37")) == SUCCESS
