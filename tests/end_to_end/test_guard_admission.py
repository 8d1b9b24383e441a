"""Who gets an association, and what the others are told (T08, NET-10, NET-11; PS3.8 table 9-21)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.end_to_end.guarded import GUARD, GuardedNode, guarded
from tests.end_to_end.pdus import (
    ABORT,
    ASSOCIATE_AC,
    ASSOCIATE_RJ,
    CT_CONTEXT,
    ECHO_CONTEXT,
    Context,
    associate_rq,
    c_store_rq,
    data_set,
    message,
    p_data,
)
from tests.end_to_end.processes import wait_until
from tests.end_to_end.requestor import Requestor, associated, echoes

PEERS = """
[[listeners.dimse.peers]]
ae_title = "SCANNER"
addresses = ["127.0.0.1"]
[[listeners.dimse.peers]]
ae_title = "ANYWHERE"
[[listeners.dimse.peers]]
ae_title = "FAR"
addresses = ["192.0.2.7"]
"""
STUDY = "2.25.7001"
CALLING_UNKNOWN = (1, 1, 3)
CALLED_UNKNOWN = (1, 1, 7)
APPLICATION_CONTEXT_UNKNOWN = (1, 1, 2)
VERSION_UNKNOWN = (1, 2, 2)
LOCAL_LIMIT = (2, 3, 2)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuardedNode]:
    with guarded(tmp_path_factory.mktemp("admission"), peers=PEERS) as process:
        yield process


@pytest.fixture(autouse=True)
def unharmed(node: GuardedNode) -> Iterator[None]:
    base, logged = node.base(), node.logged()
    yield
    node.wait_back_at(base)
    node.assert_unharmed(since=logged)


def rejection(
    node: GuardedNode, request: bytes, *, address: str = "127.0.0.1"
) -> tuple[int, int, int] | None:
    """Ask for an association; return result, source and reason of its refusal (PS3.8 9.3.4)."""
    with Requestor(node.port, address=address) as requestor:
        answer = requestor.associate(request)
        assert answer is not None, "neither accepted nor rejected"
        kind, content = answer
        if kind == ASSOCIATE_AC:
            requestor.release()
            return None
        assert kind == ASSOCIATE_RJ
        assert requestor.pdu() is None, "a rejected connection is closed"
        return content[1], content[2], content[3]


@pytest.mark.parametrize(
    ("calling", "called", "address", "expected"),
    [
        (b"SCANNER", b"WETREAD", "127.0.0.1", None),
        (b"ANYWHERE", b"WETREAD", "127.0.0.9", None),
        (b" SCANNER ", b" WETREAD", "127.0.0.1", None),
        (b"STRANGER", b"WETREAD", "127.0.0.1", CALLING_UNKNOWN),
        (b"scanner", b"WETREAD", "127.0.0.1", CALLING_UNKNOWN),
        (b"SCANNER2", b"WETREAD", "127.0.0.1", CALLING_UNKNOWN),
        (b"SCANNER", b"WETREAD", "127.0.0.2", CALLING_UNKNOWN),
        (b"FAR", b"WETREAD", "127.0.0.1", CALLING_UNKNOWN),
        (b"SCANNER", b"OTHER", "127.0.0.1", CALLED_UNKNOWN),
        (b"SCANNER", b"wetread", "127.0.0.1", CALLED_UNKNOWN),
    ],
)
def test_only_listed_senders_from_their_addresses_get_in(
    calling: bytes,
    called: bytes,
    address: str,
    expected: tuple[int, int, int] | None,
    node: GuardedNode,
) -> None:
    """T08, NET-11: blanks around a title mean nothing, its case does."""
    request = associate_rq(calling=calling, called=called)
    assert rejection(node, request, address=address) == expected


def test_rejection_is_told_in_the_log(node: GuardedNode) -> None:
    """T08: refused senders are counted by their event."""
    before = node.log().count("association.rejected")
    for _ in range(3):
        rejection(node, associate_rq(calling=b"STRANGER"))
    wait_until(lambda: node.log().count("association.rejected") == before + 3, "three are told", 10)


def test_nothing_behind_a_rejected_request_is_read(node: GuardedNode) -> None:
    """T08: a C-STORE that comes in one segment with the request finds no taker."""
    uid = "2.25.8"
    with Requestor(node.port) as requestor:
        requestor.send(
            associate_rq(calling=b"STRANGER"),
            p_data(*message(CT_CONTEXT.id, c_store_rq(uid), command=True)),
            p_data(*message(CT_CONTEXT.id, data_set(uid), command=False)),
        )
        assert {kind for kind, _ in requestor.rest()} <= {ASSOCIATE_RJ, ABORT}
    assert not node.has(STUDY, uid)
    assert node.kept(data_set(uid)) == []


@pytest.mark.parametrize("title", [b"", b" " * 16, b"\0" * 16, b"\xff" * 16, b"..\\../x\r\n"])
def test_empty_and_unprintable_titles_get_nobody_in(title: bytes, node: GuardedNode) -> None:
    """NET-19: an AE title of blanks, and bytes that are no AE."""
    for request in (associate_rq(calling=title), associate_rq(called=title)):
        with Requestor(node.port) as requestor:
            answer = requestor.associate(request)
            assert answer is None or answer[0] != ASSOCIATE_AC


def test_foreign_application_context_is_rejected(node: GuardedNode) -> None:
    """NET-10."""
    request = associate_rq(application_context="1.2.840.10008.3.1.1.9")
    assert rejection(node, request) == APPLICATION_CONTEXT_UNKNOWN


@pytest.mark.parametrize("version", [0, 2])
def test_foreign_protocol_version_is_rejected(version: int, node: GuardedNode) -> None:
    """NET-10; PS3.8 9.3.2: only bit 0 is tested."""
    assert rejection(node, associate_rq(version=version)) == VERSION_UNKNOWN


def test_node_that_is_full_says_so_to_a_listed_sender(node: GuardedNode) -> None:
    """NET-10: the local limit, from as many addresses as it takes."""
    most = int(GUARD["max_associations"])
    with ExitStack() as stack:
        for place in range(most):
            stack.enter_context(anywhere(node, f"127.0.0.{20 + place % 3}"))
        request = associate_rq(calling=b"ANYWHERE")
        assert rejection(node, request, address="127.0.0.30") == LOCAL_LIMIT
    wait_until(lambda: echoes(node.port), "places are given back", 10)


def anywhere(node: GuardedNode, address: str) -> Requestor:
    requestor = Requestor(node.port, address=address)
    answer = requestor.associate(associate_rq(calling=b"ANYWHERE"))
    assert answer is not None
    assert answer[0] == ASSOCIATE_AC
    return requestor


# ---------------------------------------------------------------- presentation contexts


def results(node: GuardedNode, contexts: list[Context]) -> dict[int, int]:
    with associated(node.port, contexts=contexts) as requestor:
        return requestor.accepted


def test_unknown_abstract_and_transfer_syntaxes_cost_their_context_only(node: GuardedNode) -> None:
    """PS3.8 table 9-18."""
    contexts = [
        ECHO_CONTEXT,
        Context(id=5, abstract_syntax="1.2.3.4"),
        Context(id=7, abstract_syntax=CT_CONTEXT.abstract_syntax, transfer_syntaxes=("1.2.3.5",)),
    ]
    assert results(node, contexts) == {1: 0}


def test_all_128_contexts_are_negotiated(node: GuardedNode) -> None:
    """NET-19."""
    contexts = [
        Context(id=1 + 2 * n, abstract_syntax=CT_CONTEXT.abstract_syntax) for n in range(127)
    ]
    contexts.append(Context(id=255, abstract_syntax=ECHO_CONTEXT.abstract_syntax))
    with associated(node.port, contexts=contexts) as requestor:
        assert len(requestor.accepted) == 128
        assert requestor.echo(context=255) == 0
        uid = "2.25.128"
        assert requestor.store(uid, data_set(uid), context=253) == 0
        requestor.release()


@pytest.mark.parametrize(
    "ids",
    [[2, 4], [1, 1], [0], list(range(256))],
    ids=["even", "twice the same", "zero", "256 of them"],
)
def test_wrong_context_ids_do_no_harm(ids: list[int], node: GuardedNode) -> None:
    """PS3.8 9.3.2.2: ids are odd and unique. What is made of others is open; survival is not."""
    contexts = [Context(id=number, abstract_syntax=CT_CONTEXT.abstract_syntax) for number in ids]
    with Requestor(node.port) as requestor:
        answer = requestor.associate(associate_rq(contexts))
        if answer is not None and answer[0] == ASSOCIATE_AC:
            requestor.release()


def test_request_without_any_context_is_answered(node: GuardedNode) -> None:
    with Requestor(node.port) as requestor:
        requestor.associate(associate_rq([]))
        requestor.release()
