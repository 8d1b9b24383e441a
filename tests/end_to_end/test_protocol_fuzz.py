"""Conversations that no peer would have, thousands of them, with one real node (T09, NET-19).

A state machine goes through an association as a sender would, with PDUs of every type put in, in
every state, well-formed and damaged. Whatever is said: each connection ends within its deadline,
the node logs no error that nobody caught, keeps no thread and no descriptor, lets the next sender
in, and has every instance that it acknowledged, byte for byte.

`make test` runs some hundred, always the same; `make fuzz` runs 10,000, others every time.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Final

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from storage.digests import InstanceDigest
from tests.end_to_end.guarded import GuardedNode
from tests.end_to_end.pdus import (
    ASSOCIATE_AC,
    ASSOCIATE_RJ,
    COMMAND,
    CONTEXTS,
    CT_CONTEXT,
    DATA,
    ECHO_CONTEXT,
    LAST_COMMAND,
    LAST_DATA,
    RELEASE_RP,
    abort,
    associate_rq,
    c_echo_rq,
    c_store_rq,
    data_set,
    item,
    message,
    p_data,
    pdu,
    pdv,
    release_rq,
)
from tests.end_to_end.processes import wait_until
from tests.end_to_end.requestor import Requestor, echoes

CASES: Final = int(os.environ.get("FUZZ_CASES", "250"))
STEPS: Final = 8
LINGERING: Final = 24
STUDY: Final = "2.25.7001"
CT, ECHO = CT_CONTEXT.id, ECHO_CONTEXT.id
SUCCESS: Final = 0

GUARD: Final[dict[str, int | float]] = {
    "max_associations": 60,
    "max_associations_per_address": 30,
    "pdu_seconds": 1.0,
    "acse_seconds": 1.0,
    "network_seconds": 1.5,
    "dimse_seconds": 2.0,
    "max_pdu": 16384,
}

PIECES: Final = (
    b"\xff\xff\xff\xff", b"\0\0\0\0", b"\0\0\0\1", b"\xff\xff", b"\0\0\xff\xff",
    b"\x04\0\0\0\0\x08", b"\x05\0\0\0\0\4\0\0\0\0", b"\x07\0\0\0\0\4\0\0\0\0", b"\x10\0\0\0",
    b"\x50\0\xff\xff", b"\x03",
)  # fmt: skip
USER_ITEMS: Final = {
    "asynchronous operations": item(0x53, b"\0\5\0\5"),
    "role": item(0x54, b"\0\x111.2.840.10008.1.1\1\1"),
    "extended": item(0x56, b"\0\x111.2.840.10008.1.1" + bytes(6)),
    "common extended": item(0x57, bytes(20)),
    "user": item(0x58, b"\1\0\0\4user\0\0"),
    "no length": item(0x51, b"\0\0\0\0"),
    "noise": item(0xEE, bytes(range(64))),
    "lies": item(0x52, b"1.2", length=500),
}


def well_formed(kind: str) -> bytes:
    """Return a PDU, or several, as somebody might send them in their right place."""
    return {
        "associate": associate_rq(),
        "accept": pdu(ASSOCIATE_AC, associate_rq()[6:]),
        "reject": pdu(ASSOCIATE_RJ, b"\0\1\1\1"),
        "release": release_rq(),
        "release response": pdu(RELEASE_RP, bytes(4)),
        "abort": abort(),
        "provider abort": abort(2, 6),
        "echo": p_data(pdv(ECHO, LAST_COMMAND, c_echo_rq(900))),
        "store": p_data(pdv(CT, LAST_COMMAND, c_store_rq("2.25.900", message_id=901))),
        "data set": p_data(pdv(CT, LAST_DATA, data_set("2.25.900"))),
        "part of a command": p_data(pdv(CT, COMMAND, c_echo_rq()[:30])),
        "part of a data set": p_data(pdv(CT, DATA, data_set("2.25.900")[:30])),
        "two pdvs": p_data(pdv(CT, LAST_COMMAND, c_store_rq("2.25.901")), pdv(CT, DATA, b"ab")),
        "empty pdv": p_data(pdv(CT, DATA, b"")),
        "foreign context": p_data(pdv(77, LAST_COMMAND, c_echo_rq())),
        "no pdv": p_data(),
        "unknown": pdu(0x55, bytes(12)),
        "nothing": b"",
    }[kind]


KINDS: Final = ("associate", "accept", "reject", "release", "release response", "abort", "no pdv",
    "provider abort", "echo", "store", "data set", "part of a command", "part of a data set",
    "two pdvs", "empty pdv", "foreign context", "unknown", "nothing")  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Draw PDUs with something put over, into or out of them, or said wrongly of their length."""
    kinds = draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=3))
    content = bytearray(b"".join(map(well_formed, kinds)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, min(len(content), 400)))
        how = draw(st.sampled_from(["put", "insert", "remove", "repeat", "cut", "length"]))
        if how == "put":
            piece = draw(st.sampled_from(PIECES) | st.binary(min_size=1, max_size=4))
            content[at : at + len(piece)] = piece
        elif how == "insert":
            content[at:at] = draw(st.sampled_from(PIECES) | st.binary(max_size=30))
        elif how == "remove":
            del content[at : at + draw(st.integers(1, 30))]
        elif how == "repeat":
            content[at:at] = content[at : at + draw(st.integers(1, 80))]
        elif how == "cut":
            del content[at:]
        else:
            content[2:6] = draw(st.integers(0, 2000)).to_bytes(4, "big")
    return bytes(content)


@dataclass(kw_only=True)
class Ledger:
    """What is known of all conversations: how many, what was acknowledged, what has not ended."""

    node: GuardedNode
    cases: int = 0
    stores: int = 0
    read: int = 0  # bytes of the node's log
    acknowledged: dict[str, bytes] = field(default_factory=dict)  # SOP Instance UID -> data set
    lingering: deque[Requestor] = field(default_factory=deque)

    def linger(self, requestor: Requestor) -> None:
        """Take over a connection that the node has to end by itself."""
        self.lingering.append(requestor)
        if len(self.lingering) >= LINGERING:
            self.reap(LINGERING // 2)

    def reap(self, count: int) -> None:
        """Hold that the oldest connections have ended, or do so now."""
        for _ in range(min(count, len(self.lingering))):
            with self.lingering.popleft() as requestor:
                requestor.rest()

    def look_at_log(self) -> None:
        """Hold that nothing was logged that should not be."""
        self.read = self.node.assert_log(self.read)


class Conversation(RuleBasedStateMachine):
    """One connection from its first byte to its end."""

    ledger: ClassVar[Ledger]

    def __init__(self) -> None:
        super().__init__()
        self.requestor: Requestor | None = None
        self.state = "idle"  # associated, command, data, over; spoiled when nobody can say
        self.ending = "close"
        self.address = ""
        self.message = 0
        self.uid = ""
        self.content = b""
        self.sent = 0
        self.unsent: list[bytes] = []

    # ------------------------------------------------------------ as it should be

    @initialize(
        host=st.integers(2, 250),
        ending=st.sampled_from(["release", "abort", "close", "reset", "half close", "linger"]),
        plain=st.booleans(),
    )
    def connect(self, host: int, ending: str, plain: bool) -> None:
        self.ledger.cases += 1
        self.address, self.ending = f"127.0.0.{host}", ending
        self.requestor = Requestor(self.ledger.node.port, address=self.address)
        if plain:
            self.associate([])

    @property
    def peer(self) -> Requestor:
        assert self.requestor is not None
        return self.requestor

    @precondition(lambda self: self.state == "idle")
    @rule(items=st.lists(st.sampled_from(sorted(USER_ITEMS)), max_size=3))
    def associate(self, items: list[str]) -> None:
        """Ask for an association; without strange user items it has to be given."""
        users = item(0x51, b"\0\0\x40\0") + item(0x52, b"1.2.3")
        users += b"".join(USER_ITEMS[name] for name in items)
        answer = self.peer.associate(associate_rq(CONTEXTS, user_items=users))
        accepted = answer is not None and answer[0] == ASSOCIATE_AC
        assert accepted or items, answer
        self.state = "associated" if accepted else "over"
        if accepted:
            assert items or set(self.peer.accepted) == {ECHO, CT}

    @precondition(lambda self: self.state == "associated")
    @rule(size=st.integers(1, 100))
    def echo(self, size: int) -> None:
        """Send a C-ECHO in fragments: it has to be answered."""
        self.message += 1
        parts = message(ECHO, c_echo_rq(self.message), command=True, size=size)
        self.peer.send(*map(p_data, parts))
        assert self.peer.response() == (self.message, SUCCESS)

    @precondition(lambda self: self.state == "associated")
    @rule(size=st.integers(1, 200), pixels=st.binary(max_size=300), whole=st.booleans())
    def begin_store(self, size: int, pixels: bytes, whole: bool) -> None:
        """Send the command of a C-STORE, or the first half of it."""
        self.message += 1
        self.ledger.stores += 1
        self.uid, self.sent = f"2.25.8{self.ledger.stores:09d}", 0
        self.content = data_set(self.uid, pixels=pixels)
        parts = message(CT, c_store_rq(self.uid, message_id=self.message), command=True, size=size)
        self.peer.send(*map(p_data, parts[: len(parts) // 2 if not whole else None]))
        self.state = "data" if whole else "command"
        self.unsent = [] if whole else parts[len(parts) // 2 :]

    @precondition(lambda self: self.state == "command")
    @rule()
    def finish_command(self) -> None:
        self.peer.send(*map(p_data, self.unsent))
        self.state = "data"

    @precondition(lambda self: self.state == "data")
    @rule(count=st.integers(0, 400))
    def send_part(self, count: int) -> None:
        """Send a fragment of the data set, perhaps an empty one."""
        part = self.content[self.sent : self.sent + count]
        self.sent += len(part)
        self.peer.send(p_data(pdv(CT, DATA, part)))

    @precondition(lambda self: self.state == "data")
    @rule()
    def finish_store(self) -> None:
        """Send the rest of the data set: the instance has to be taken."""
        self.peer.send(p_data(pdv(CT, LAST_DATA, self.content[self.sent :])))
        assert self.peer.response() == (self.message, SUCCESS)
        self.ledger.acknowledged[self.uid] = self.content
        self.state = "associated"

    @precondition(lambda self: self.state == "associated")
    @rule(sizes=st.lists(st.integers(1, 300), min_size=1, max_size=4), pixels=st.binary())
    def store(self, sizes: list[int], pixels: bytes) -> None:
        """Send as many whole C-STOREs as there are sizes of fragments."""
        for size in sizes:
            self.begin_store(size, pixels, whole=True)
            self.send_part(size)
            self.finish_store()

    @precondition(lambda self: self.state == "associated")
    @rule()
    def release(self) -> None:
        answer = self.peer.release()
        assert answer is not None
        assert answer[0] == RELEASE_RP
        self.state = "over"

    # ------------------------------------------------------------ as it should not be

    @rule(kind=st.sampled_from(KINDS))
    def put_in(self, kind: str) -> None:
        """Say something well-formed, whatever was said before."""
        self.peer.send(well_formed(kind))
        self.state = "spoiled"

    @rule(content=damaged())
    def put_in_damaged(self, content: bytes) -> None:
        """Say something that is broken."""
        self.peer.send(content)
        self.state = "spoiled"

    @rule(content=st.binary(min_size=1, max_size=200))
    def put_in_noise(self, content: bytes) -> None:
        self.peer.send(content)
        self.state = "spoiled"

    # ------------------------------------------------------------ its end

    def teardown(self) -> None:
        """End the connection one way or another, or let the node do it; see how it is."""
        if self.requestor is None:
            return
        if self.state == "associated" and self.ending == "release":
            self.release()
        if self.ending == "reset":
            self.requestor.vanish()
        elif self.ending == "close":
            self.requestor.socket.close()
        else:
            self._leave(self.requestor)
        assert echoes(self.ledger.node.port, address=self.address)
        self.ledger.look_at_log()

    def _leave(self, requestor: Requestor) -> None:
        if self.ending == "abort":
            requestor.send(abort())
        elif self.ending == "half close":
            requestor.half_close()
        self.ledger.linger(requestor)


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    node = GuardedNode(folder=tmp_path_factory.mktemp("fuzz") / "node", guard=GUARD)
    with node:
        node.warm_up()
        yield Ledger(node=node)


def test_no_conversation_does_any_harm(ledger: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    base = ledger.node.base()
    Conversation.ledger = ledger
    try:
        run_state_machine_as_test(
            Conversation,
            settings=settings(
                max_examples=CASES,
                stateful_step_count=STEPS,
                deadline=None,
                derandomize="FUZZ_CASES" not in os.environ,
                database=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        if "FUZZ_CASES" in os.environ:
            with capsys.disabled():
                told = f"{ledger.cases} conversations, {len(ledger.acknowledged)} instances taken"
                sys.stdout.write(f"\n{told}\n")
    ledger.reap(len(ledger.lingering))
    ledger.node.wait_back_at(base)
    ledger.node.assert_unharmed()
    assert ledger.cases >= CASES
    assert len(ledger.acknowledged) > CASES // 10
    wait_until(lambda: has_rows(ledger), "all that was taken has its row, with its digest")
    packs = b"".join(written(path) for path in ledger.node.files() if path.suffix == ".pack")
    assert all(content in packs for content in ledger.acknowledged.values())


def has_rows(ledger: Ledger) -> bool:
    digests = {row.sop_instance_uid: row.digest for row in ledger.node.instances(STUDY)}
    taken = ledger.acknowledged.items()
    return all(digests.get(uid) == InstanceDigest(content).hexdigest() for uid, content in taken)


def written(pack: Path) -> bytes:
    """Return what was written into a pack, without the zeros that it was made of in advance."""
    return pack.read_bytes().rstrip(b"\0")
