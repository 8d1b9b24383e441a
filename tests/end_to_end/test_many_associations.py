"""T14: a hundred associations at a time, duplicates and conflicts among them, counted exactly."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from storage.records import Conservation
from tests.end_to_end.guarded import GuardedNode
from tests.end_to_end.pdus import data_set
from tests.end_to_end.processes import wait_until
from tests.end_to_end.requestor import Requestor, associated

ASSOCIATIONS: Final = 100
EACH: Final = 100
SHARED: Final = 10  # instances that every association sends, the same
DISPUTED: Final = 10  # UIDs under which there are two contents
SENDERS: Final = 4


@pytest.fixture
def node(tmp_path: Path) -> Iterator[GuardedNode]:
    limits = {"max_associations": 110, "max_associations_per_address": 110}
    made = GuardedNode(folder=tmp_path / "node", guard=limits)
    with made:
        yield made


def instances(association: int, chance: random.Random) -> list[tuple[str, bytes]]:
    """Return what one association sends, in an order of its own."""
    uids = [f"2.25.14{number}" for number in range(SHARED)]
    found = [(uid, data_set(uid)) for uid in uids]
    for number in range(DISPUTED):
        uid = f"2.25.15{number}"
        found.append((uid, data_set(uid, pixels=b"odd " if association % 2 else b"even")))
    for number in range(EACH - len(found)):
        uid = f"2.25.16{association:03}{number:03}"
        found.append((uid, data_set(uid)))
    chance.shuffle(found)
    return found


def test_a_hundred_associations_of_a_hundred_instances_are_counted_exactly(
    node: GuardedNode,
) -> None:
    """T14: the first content of a UID is kept, another stands apart, the same again is no news."""
    chance = random.Random(14)  # noqa: S311 - it chooses what to send
    with ExitStack() as stack:
        open_now = [stack.enter_context(associated(node.port)) for _ in range(ASSOCIATIONS)]
        plans = [instances(number, chance) for number in range(ASSOCIATIONS)]
        statuses: list[int | None] = []

        def send(mine: list[tuple[Requestor, list[tuple[str, bytes]]]]) -> None:
            for turn in range(EACH):
                for requestor, plan in mine:
                    uid, content = plan[turn]
                    statuses.append(requestor.store(uid, content, message_id=turn + 1))

        pairs = list(zip(open_now, plans, strict=True))
        threads = [
            threading.Thread(target=send, args=(pairs[number::SENDERS],))
            for number in range(SENDERS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert statuses == [0] * ASSOCIATIONS * EACH
        for requestor in open_now:
            requestor.release()
    wait_until(lambda: counted(node).received == ASSOCIATIONS * EACH, "all have their rows")
    found, own = counted(node), EACH - SHARED - DISPUTED
    assert found.in_progress == ASSOCIATIONS * own + SHARED + DISPUTED
    assert found.conflicts == DISPUTED
    assert found.duplicates == (SHARED + DISPUTED) * ASSOCIATIONS - SHARED - 2 * DISPUTED
    assert (found.missing, found.quarantined) == (0, 0)


def counted(node: GuardedNode) -> Conservation:
    stores = node.stores()
    try:
        return stores.studies.conservation()
    finally:
        stores.database.close()
