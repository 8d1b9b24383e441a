"""Messages that are not what they say: lengths, fragments, order (T09, NET-19).

Everything happens within one association at a time, against a real node; whatever is done to it,
nothing is acknowledged that is not kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.end_to_end.guarded import GuardedNode, guarded
from tests.end_to_end.pdus import (
    ABORT,
    COMMAND,
    CONTEXTS,
    CT_CONTEXT,
    DATA,
    ECHO_CONTEXT,
    EXPLICIT,
    LAST_COMMAND,
    LAST_DATA,
    MR_IMAGE_STORAGE,
    NO_DATA_SET,
    P_DATA,
    RELEASE_RP,
    RELEASE_RQ,
    Context,
    associate_rq,
    c_echo_rq,
    c_store_rq,
    data_set,
    message,
    p_data,
    pdu,
    pdv,
    release_rq,
)
from tests.end_to_end.processes import wait_until
from tests.end_to_end.requestor import Requestor, associated

STUDY = "2.25.7001"
SUCCESS = 0x0000
CT, ECHO = CT_CONTEXT.id, ECHO_CONTEXT.id
MR_CONTEXT = Context(id=5, abstract_syntax=MR_IMAGE_STORAGE, transfer_syntaxes=(EXPLICIT,))


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuardedNode]:
    with guarded(tmp_path_factory.mktemp("messages")) as process:
        yield process


@pytest.fixture(autouse=True)
def unharmed(node: GuardedNode) -> Iterator[None]:
    base, logged = node.base(), node.logged()
    yield
    node.wait_back_at(base)
    node.assert_unharmed(since=logged)


@pytest.fixture
def sender(node: GuardedNode) -> Iterator[Requestor]:
    with associated(node.port, contexts=(*CONTEXTS, MR_CONTEXT)) as requestor:
        yield requestor


def command(content: bytes, context: int = CT) -> bytes:
    return p_data(*message(context, content, command=True))


def data(content: bytes, context: int = CT, *, size: int = 16372) -> bytes:
    return b"".join(p_data(item) for item in message(context, content, command=False, size=size))


def was_aborted(requestor: Requestor) -> bool:
    """Say whether the node ended the association, without a response to anything."""
    return {kind for kind, _ in requestor.rest()} <= {ABORT}


# ---------------------------------------------------------------- lying lengths


BROKEN_PDUS: dict[str, bytes] = {
    "pdv longer than its pdu": p_data(pdv(CT, DATA, bytes(100), length=5000)),
    "pdv of 4 GiB": p_data(pdv(CT, DATA, bytes(100), length=0xFFFFFFFF)),
    "pdv of length 0": p_data(pdv(CT, DATA, bytes(100), length=0)),
    "pdv of length 1": p_data(pdv(CT, DATA, bytes(100), length=1)),
    "pdv without its header": pdu(P_DATA, b"\0\0\0\x02"),
    "second pdv cut": p_data(pdv(CT, DATA, b"ab"), pdv(CT, DATA, bytes(50))[:30]),
    "p-data without a pdv": p_data(),
    "pdu shorter than its pdv": p_data(pdv(CT, DATA, bytes(100)), length=50),
    "unaccepted context": p_data(pdv(99, LAST_COMMAND, c_echo_rq())),
    "context 0": p_data(pdv(0, LAST_COMMAND, c_echo_rq())),
    "data before any command": p_data(pdv(CT, LAST_DATA, data_set("2.25.9"))),
    "unknown pdu": pdu(0x2A, bytes(20)),
    "second association request": associate_rq(),
    "association accepted": b"\x02" + associate_rq()[1:],
    "association rejected": pdu(0x03, bytes(4)),
    "release response": pdu(RELEASE_RP, bytes(4)),
    "release of the wrong length": pdu(RELEASE_RQ, b""),
}


@pytest.mark.parametrize("within", ["at rest", "in a command", "in a data set"])
@pytest.mark.parametrize("name", BROKEN_PDUS)
def test_broken_pdu_ends_the_association(
    name: str, within: str, node: GuardedNode, sender: Requestor
) -> None:
    """NET-19, and PS3.8 9.2.3: an unexpected or invalid PDU is answered by A-ABORT."""
    if within == "in a command":
        sender.send(p_data(pdv(CT, COMMAND, c_store_rq("2.25.9")[:20])))
    elif within == "in a data set":
        sender.send(command(c_store_rq("2.25.9")), p_data(pdv(CT, DATA, data_set("2.25.9")[:50])))
    sender.send(BROKEN_PDUS[name])
    kinds = [kind for kind, _ in sender.rest()]
    assert kinds in allowed(name, within), kinds
    assert not node.has(STUDY, "2.25.9")


def allowed(name: str, within: str) -> list[list[int]]:
    """Return which PDUs may come back before the end of the connection."""
    if name == "data before any command" and within == "in a data set":
        return [[], [ABORT], [P_DATA], [P_DATA, ABORT]]  # the end of a data set, and a wrong one
    if name.startswith("release"):
        return [[], [ABORT], [RELEASE_RP]]
    return [[], [ABORT]]


# ---------------------------------------------------------------- fragments, well and ill


def test_empty_fragments_do_no_harm(node: GuardedNode, sender: Requestor) -> None:
    """NET-19: PDVs of zero bytes, before, between and behind those of a message."""
    uid = "2.25.190"
    content = data_set(uid, pixels=b"190" * 100)
    empty, none = p_data(pdv(CT, COMMAND, b"")), p_data(pdv(CT, DATA, b""))
    request = c_store_rq(uid)
    sender.send(empty, p_data(pdv(CT, COMMAND, request[:30])), empty)
    sender.send(p_data(pdv(CT, COMMAND, request[30:])), p_data(pdv(CT, LAST_COMMAND, b"")), none)
    sender.send(p_data(pdv(CT, DATA, content[:99])), none * 50)
    sender.send(p_data(pdv(CT, DATA, content[99:])), p_data(pdv(CT, LAST_DATA, b"")))
    assert sender.response() == (1, SUCCESS)
    wait_until(lambda: bool(node.kept(content)), "it is kept as it was sent", 10)


def test_reserved_bits_of_the_control_header_are_not_looked_at(
    node: GuardedNode, sender: Requestor
) -> None:
    """PS3.8 E.2: bits 2 to 7 are never checked by the receiver."""
    sender.send(p_data(pdv(ECHO, 0xFC | LAST_COMMAND, c_echo_rq(7))))
    assert sender.response() == (7, SUCCESS)
    uid = "2.25.191"
    content = data_set(uid, pixels=b"191" * 100)
    sender.send(p_data(pdv(CT, 0x83, c_store_rq(uid))), p_data(pdv(CT, 0x42, content)))
    assert sender.response() == (1, SUCCESS)
    wait_until(lambda: node.has(STUDY, uid), "it has its row", 10)


def test_message_may_be_cut_into_single_bytes(node: GuardedNode, sender: Requestor) -> None:
    uid = "2.25.192"
    content = data_set(uid, pixels=b"192" * 50)
    items = message(CT, c_store_rq(uid), command=True, size=1)
    items += message(CT, content, command=False, size=1)
    sender.send(*map(p_data, items))
    assert sender.response() == (1, SUCCESS)
    sender.send(p_data(*message(CT, c_store_rq(f"{uid}.1"), command=True, size=1)))
    sender.send(data(data_set(f"{uid}.1"), size=3))
    assert sender.response() == (1, SUCCESS)
    wait_until(lambda: bool(node.kept(content)), "it is kept as it was sent", 10)


def test_command_without_end_is_ended(sender: Requestor) -> None:
    sender.send(p_data(pdv(CT, COMMAND, c_store_rq("2.25.193"))))
    assert was_aborted(sender)


def test_data_set_without_end_is_ended(node: GuardedNode, sender: Requestor) -> None:
    sender.send(command(c_store_rq("2.25.194")), p_data(pdv(CT, DATA, data_set("2.25.194"))))
    assert was_aborted(sender)
    assert not node.has(STUDY, "2.25.194")


NONSENSE_COMMANDS: dict[str, Callable[[], bytes]] = {
    "empty": lambda: b"",
    "noise": lambda: bytes(range(200)),
    "no field": lambda: c_echo_rq()[:12],
    "length lies": lambda: c_echo_rq()[:20] + b"\xff\xff\xff\x7f" + c_echo_rq()[24:],
    "cut": lambda: c_store_rq("2.25.195")[:-5],
    "unknown field": lambda: c_echo_rq().replace(b"\x30\x00\x01", b"\x99\x00\x01"),
    "a response": lambda: c_echo_rq().replace(
        b"\x02\x00\x00\x00\x30\x00", b"\x02\x00\x00\x00\x30\x80"
    ),
    "64 KiB of uid": lambda: c_store_rq(b"1" * 65536),
}


@pytest.mark.parametrize("name", NONSENSE_COMMANDS)
@pytest.mark.parametrize("context", [ECHO, CT])
def test_command_that_makes_no_sense_is_refused(
    name: str, context: int, node: GuardedNode, sender: Requestor
) -> None:
    sender.send(p_data(*message(context, NONSENSE_COMMANDS[name](), command=True)))
    sender.send(data(data_set("2.25.195"), context))
    sender.send(release_rq())
    answered = [kind for kind, _ in sender.rest()]
    assert set(answered) <= {P_DATA, ABORT, RELEASE_RP}
    assert not node.has(STUDY, "2.25.195")


# ---------------------------------------------------------------- order of messages


def test_store_request_without_a_data_set_is_not_acknowledged(sender: Requestor) -> None:
    sender.send(command(c_store_rq("2.25.196", data_set_type=NO_DATA_SET)))
    answer = sender.response()
    assert answer is None or answer[1] != SUCCESS


def test_empty_data_set_is_not_acknowledged(sender: Requestor) -> None:
    assert sender.store("2.25.197", b"") not in {SUCCESS, None}


@pytest.mark.parametrize("other", [CT, MR_CONTEXT.id], ids=["same context", "another context"])
def test_second_store_request_within_a_data_set_is_not_mixed_with_the_first(
    other: int, node: GuardedNode, sender: Requestor
) -> None:
    """PS3.7 6.3.1: fragments of two messages do not alternate."""
    first, second = data_set("2.25.201"), data_set("2.25.202")
    sender.send(
        command(c_store_rq("2.25.201", message_id=1)),
        p_data(pdv(CT, DATA, first[:60])),
        command(c_store_rq("2.25.202", message_id=2), other),
        p_data(pdv(other, DATA, second[:60])),
        p_data(pdv(CT, LAST_DATA, first[60:])),
        p_data(pdv(other, LAST_DATA, second[60:])),
    )
    while (answer := sender.response()) is not None:
        assert answer[1] != SUCCESS or node.kept({1: first, 2: second}[answer[0]])


def test_echo_between_the_fragments_of_a_data_set_spoils_nothing(
    node: GuardedNode, sender: Requestor
) -> None:
    """Either both are answered, and the instance is whole, or the association ends."""
    uid = "2.25.203"
    content = data_set(uid, pixels=b"203" * 100)
    sender.send(
        command(c_store_rq(uid, message_id=1)),
        p_data(pdv(CT, DATA, content[:60])),
        command(c_echo_rq(2), ECHO),
        p_data(pdv(CT, LAST_DATA, content[60:])),
        release_rq(),
    )
    answers = dict(iter(sender.response, None))
    assert answers in ({1: SUCCESS, 2: SUCCESS}, {})
    if answers:
        wait_until(lambda: bool(node.kept(content)), "it is kept as it was sent", 10)


def test_requests_that_do_not_wait_for_their_answers_are_answered(
    node: GuardedNode, sender: Requestor
) -> None:
    """A sender in a hurry: ten C-STOREs and an echo, and the release, in one segment."""
    uids = [f"2.25.204{number}" for number in range(10)]
    for number, uid in enumerate(uids):
        sender.send(command(c_store_rq(uid, message_id=number + 1)), data(data_set(uid)))
    sender.send(command(c_echo_rq(99), ECHO))
    answers = [sender.response() for _ in range(11)]
    assert sorted(filter(None, answers)) == [(n, SUCCESS) for n in [*range(1, 11), 99]]
    release = sender.release()
    assert release is not None
    assert release[0] == RELEASE_RP
    wait_until(lambda: all(node.has(STUDY, uid) for uid in uids), "all have their rows", 10)


def test_release_within_a_data_set_leaves_nothing(node: GuardedNode, sender: Requestor) -> None:
    sender.send(
        command(c_store_rq("2.25.205")), p_data(pdv(CT, DATA, data_set("2.25.205"))), release_rq()
    )
    assert {kind for kind, _ in sender.rest()} <= {ABORT, RELEASE_RP}
    assert not node.has(STUDY, "2.25.205")
