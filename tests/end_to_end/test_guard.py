"""What a stranger on the port can do to the node: take a little, for a little while (T01-T19).

Every test attacks a real process over real sockets, compares its memory, threads and descriptors
with those before, and lets a well-behaved sender in afterwards.
"""

from __future__ import annotations

import os
import random
import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.end_to_end.guarded import GUARD, MAX_OBJECT_MIB, MIB, GuardedNode, echoscu, guarded
from tests.end_to_end.pdus import (
    ABORT,
    ASSOCIATE_AC,
    ASSOCIATE_RJ,
    COMMAND,
    CT_CONTEXT,
    DATA,
    ECHO_CONTEXT,
    LAST_DATA,
    P_DATA,
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
from tests.end_to_end.requestor import Requestor, associated, echoes

OTHER = "127.0.0.2"
PER_ADDRESS = int(GUARD["max_associations_per_address"])
ASSOCIATIONS = int(GUARD["max_associations"])
STUDY = "2.25.7001"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuardedNode]:
    with guarded(tmp_path_factory.mktemp("guard")) as process:
        yield process


@pytest.fixture(autouse=True)
def unharmed(node: GuardedNode) -> Iterator[None]:
    """Hold after every attack what is true of all: the node is as it was, and answers."""
    base, logged = node.base(), node.logged()
    yield
    node.wait_back_at(base)
    node.assert_unharmed(since=logged)


def connections(
    stack: ExitStack, node: GuardedNode, count: int, *, address: str = "127.0.0.1"
) -> list[Requestor]:
    """Open connections; those that the node refuses at once are closed already."""
    opened = []
    for _ in range(count):
        try:
            opened.append(stack.enter_context(Requestor(node.port, address=address)))
        except OSError:
            continue
    return opened


def still_open(requestors: list[Requestor]) -> int:
    return sum(not requestor.is_closed() for requestor in requestors)


def ended(requestor: Requestor) -> bool:
    """Say whether the node ended the connection: with nothing, or with an A-ABORT or a refusal."""
    kinds = {kind for kind, _ in requestor.rest()}
    return kinds <= {ABORT, ASSOCIATE_RJ}


# ---------------------------------------------------------------- T01, T02: before an association


def test_idle_connections_of_one_address_keep_no_other_address_out(node: GuardedNode) -> None:
    """T01."""
    base = node.base()
    with ExitStack() as stack:
        idle = connections(stack, node, 60)
        wait_until(lambda: still_open(idle) <= PER_ADDRESS, "all beyond the cap are dropped", 3)
        assert echoes(node.port, address=OTHER)
        assert node.footprint().threads <= base.threads + 3 * PER_ADDRESS
        assert still_open(idle) > 0, "the echo proves nothing when nobody is idle any more"
        assert all(ended(requestor) for requestor in idle)


def test_partial_requests_are_dropped_at_the_deadline(node: GuardedNode) -> None:
    """T02: eleven, each 20 bytes of an A-ASSOCIATE-RQ."""
    with ExitStack() as stack:
        partial = connections(stack, node, 11)
        assert all(requestor.send(associate_rq()[:20]) for requestor in partial)
        for _ in range(5):
            assert echoes(node.port, address=OTHER)
        assert still_open(partial) > 0
        assert all(ended(requestor) for requestor in partial)


def test_partial_requests_that_take_every_place_give_it_back(node: GuardedNode) -> None:
    """T02: from as many addresses as it takes to fill the node."""
    with ExitStack() as stack:
        partial = [
            requestor
            for host in range(10, 20)
            for requestor in connections(stack, node, 4, address=f"127.0.0.{host}")
        ]
        for requestor in partial:
            requestor.send(associate_rq()[:20])
        assert all(ended(requestor) for requestor in partial)
        assert echoes(node.port)


def test_request_that_trickles_in_is_dropped_at_the_deadline(node: GuardedNode) -> None:
    """NET-19, slow-loris: bytes keep coming, so only a deadline for the whole PDU helps."""
    with Requestor(node.port) as requestor:
        trickle(requestor, associate_rq())
        assert ended(requestor)


def trickle(requestor: Requestor, content: bytes) -> None:
    """Send a byte every fifth of a second until the node has had enough; twenty seconds at most."""
    for at in range(100):
        if requestor.is_closed() or not requestor.send(content[at : at + 1]):
            return
        time.sleep(0.2)
    raise AssertionError("the node listened to a trickle for twenty seconds")


# ---------------------------------------------------------------- T03, T04, T05: in an association


def test_halves_of_p_data_held_in_ten_associations_end_at_the_deadline(node: GuardedNode) -> None:
    """T03."""
    half = p_data(pdv(CT_CONTEXT.id, DATA, bytes(2000)))[:1000]
    with ExitStack() as stack:
        held = [stack.enter_context(associated(node.port)) for _ in range(10)]
        assert all(requestor.send(half) for requestor in held)
        assert echoes(node.port, address=OTHER)
        assert all(ended(requestor) for requestor in held)


def test_p_data_that_trickles_in_is_dropped_at_the_deadline(node: GuardedNode) -> None:
    """T03, NET-19."""
    with associated(node.port) as requestor:
        trickle(requestor, p_data(pdv(CT_CONTEXT.id, DATA, bytes(2000))))
        assert ended(requestor)


def test_silent_associations_end(node: GuardedNode) -> None:
    with ExitStack() as stack:
        silent = [stack.enter_context(associated(node.port)) for _ in range(10)]
        assert echoes(node.port, address=OTHER)
        assert all(ended(requestor) for requestor in silent)


@pytest.mark.parametrize("kind", [1, 4, 5, 6, 7, 9])
@pytest.mark.parametrize("within", [False, True], ids=["at the door", "in an association"])
def test_length_of_four_gibibytes_is_refused_before_it_is_read(
    kind: int, within: bool, node: GuardedNode
) -> None:
    """T04."""
    base = node.base()
    with associated(node.port) if within else Requestor(node.port) as requestor:
        requestor.send(pdu(kind, b"", length=0xFFFFFFFF))
        assert flooded(requestor, bytes(MIB)) < 32, "32 MiB of one PDU were read"
        assert ended(requestor)
    assert node.footprint().peak - base.memory < 5 * MIB


def flooded(requestor: Requestor, content: bytes, most: int = 32) -> int:
    """Send content over and over until the node has closed; return how often it was taken."""
    for count in range(most):
        if requestor.is_closed() or not requestor.send(content):
            return count
    return most


def test_pdu_longer_than_was_announced_is_refused(node: GuardedNode) -> None:
    """PS3.8 D.1.1: nobody may send a longer P-DATA-TF than the receiver said it takes."""
    with associated(node.port) as requestor:
        requestor.send(p_data(pdv(CT_CONTEXT.id, DATA, bytes(int(GUARD["max_pdu"]) * 64))))
        assert ended(requestor)


def endless(node: GuardedNode) -> int | None:
    """Send a data set of 96 MiB, three times what may be; return the status, None when aborted."""
    part = p_data(pdv(CT_CONTEXT.id, DATA, bytes(16000))) * 16
    with associated(node.port) as requestor:
        head = data_set("2.25.5")[:-12] + struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OW", 0, 0xFFFFFFFE)
        requestor.send(
            p_data(*message(CT_CONTEXT.id, c_store_rq("2.25.5"), command=True)),
            p_data(pdv(CT_CONTEXT.id, DATA, head)),
        )
        flooded(requestor, part, most=(3 * MAX_OBJECT_MIB * MIB) // len(part))
        requestor.send(p_data(pdv(CT_CONTEXT.id, LAST_DATA, b"")))
        answer = requestor.response()
        return None if answer is None else answer[1]


def test_endless_data_set_is_ended_and_leaves_nothing(node: GuardedNode) -> None:
    """T05: past [storage] max_object_mib an abort or 0xA700, flat memory, no disk for good."""
    assert endless(node) in {None, 0xA700}
    base, disk = node.base(), node.disk()
    for _ in range(2):
        assert endless(node) in {None, 0xA700}
    assert node.footprint().peak - base.memory < 8 * MIB
    wait_until(lambda: node.disk() - disk < 8 * MIB, "the disk is as it was", 10)
    assert not node.has(STUDY, "2.25.5")
    wait_until(lambda: len(node.quarantined()) >= 3, "all three are told of", 10)
    told = f"more than {MAX_OBJECT_MIB * MIB} bytes"
    assert all(told in item.reason for item in node.quarantined())


def test_endless_data_set_is_cut_while_it_comes(node: GuardedNode) -> None:
    """T05: not only at an end that never comes."""
    disk, most = node.disk(), 0
    part = p_data(pdv(CT_CONTEXT.id, DATA, bytes(16000))) * 64
    with associated(node.port) as requestor:
        requestor.send(p_data(*message(CT_CONTEXT.id, c_store_rq("2.25.6"), command=True)))
        for _ in range(3 * MAX_OBJECT_MIB * MIB // len(part)):
            if requestor.is_closed() or not requestor.send(part):
                break
            most = max(most, node.disk() - disk)
    assert most < 2 * MAX_OBJECT_MIB * MIB


def test_endless_command_set_is_cut(node: GuardedNode) -> None:
    """PS3.7 6.3.1: fragments of a command without a last one; no limit there would be memory."""
    base = node.base()
    with associated(node.port) as requestor:
        part = p_data(pdv(ECHO_CONTEXT.id, COMMAND, bytes(16000))) * 64
        assert flooded(requestor, part, most=64) < 64, "64 MB of one command were read"
        assert ended(requestor)
    assert node.footprint().peak - base.memory < 8 * MIB


# ---------------------------------------------------------------- T09: no DICOM at all


def tls_hello() -> bytes:
    """Return the first flight of a TLS client."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).wrap_bio(
        incoming, outgoing, server_hostname="node"
    )
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def noise(seed: int) -> Callable[[], bytes]:
    return lambda: random.Random(seed).randbytes(5000)  # noqa: S311 - the same ones every time


STRANGERS: dict[str, Callable[[], bytes]] = {
    "http": lambda: b"GET / HTTP/1.1\r\nHost: node\r\n\r\n",
    "http2": lambda: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "tls": tls_hello,
    "ssh": lambda: b"SSH-2.0-OpenSSH_9.2\r\n",
    "hl7": lambda: b"\x0bMSH|^~\\&|A|B|C|D|20260101||ADT^A01|1|P|2.5\r\x1c\r",
    "zeros": lambda: bytes(5000),
    "one byte": lambda: b"\x01",
    "nothing": lambda: b"",
    **{f"noise {seed}": noise(seed) for seed in range(5)},
}


@pytest.mark.parametrize("name", STRANGERS)
@pytest.mark.parametrize("half_closed", [False, True], ids=["open", "half closed"])
def test_what_is_no_dicom_is_hung_up_on(name: str, half_closed: bool, node: GuardedNode) -> None:
    """T09."""
    with Requestor(node.port) as requestor:
        requestor.send(STRANGERS[name]())
        if half_closed:
            requestor.socket.shutdown(socket.SHUT_WR)
        assert ended(requestor)


# ---------------------------------------------------------------- T11: the sender vanishes


@pytest.mark.parametrize("way", ["reset", "closed", "aborted", "silent"])
def test_sender_that_vanishes_leaves_no_instance_and_may_send_again(
    way: str, node: GuardedNode
) -> None:
    """T11."""
    uid = f"2.25.11{sum(way.encode())}"
    content = data_set(uid, pixels=os.urandom(200_000))
    items = message(CT_CONTEXT.id, c_store_rq(uid), command=True)
    items += message(CT_CONTEXT.id, content, command=False)
    with associated(node.port) as requestor:
        requestor.send(*map(p_data, items[:-1]))
        vanish(requestor, way)
    assert not node.has(STUDY, uid)
    with associated(node.port) as requestor:
        assert requestor.store(uid, content) == 0
        requestor.release()
    wait_until(lambda: node.has(STUDY, uid), "the instance has its row", 10)
    assert node.kept(content), "the instance lies in the store, whole"


def vanish(requestor: Requestor, way: str) -> None:
    if way == "reset":
        requestor.vanish()
    elif way == "closed":
        requestor.socket.close()
    elif way == "aborted":
        requestor.send(pdu(ABORT, bytes(4)))
    else:
        assert ended(requestor)


def test_fifty_resets_in_the_middle_leave_no_disk_in_use(node: GuardedNode) -> None:
    """T11: what was half there is removed, not gathered."""
    disk = node.disk()
    for number in range(50):
        uid = f"2.25.12{number}"
        items = message(CT_CONTEXT.id, c_store_rq(uid), command=True)
        items += message(CT_CONTEXT.id, data_set(uid, pixels=bytes(MIB)), command=False)
        with associated(node.port) as requestor:
            requestor.send(*map(p_data, items[:-1]))
            requestor.vanish()
    wait_until(lambda: node.disk() - disk < 25 * MIB, "the disk is nearly as it was", 20)


# ---------------------------------------------------------------- nobody is kept out


def test_node_that_is_full_of_one_address_lets_dcmtk_in_after_it(node: GuardedNode) -> None:
    with ExitStack() as stack:
        taken = [stack.enter_context(associated(node.port)) for _ in range(PER_ADDRESS)]
        assert echoes(node.port, address=OTHER)
        one_more = stack.enter_context(Requestor(node.port))
        answer = one_more.associate()
        assert answer is None or answer[0] in {ASSOCIATE_RJ, ABORT}
        for requestor in taken:
            requestor.release()
            requestor.socket.close()
    wait_until(lambda: echoscu(node.port) == 0, "dcmtk gets in", 10)


def test_associations_may_be_opened_and_dropped_without_end(node: GuardedNode) -> None:
    """Places are given back however a connection ends, or the twentieth sender would be the last.

    The count of an address must survive 3 x its cap of every kind of end.
    """
    for number in range(3 * PER_ADDRESS):
        with Requestor(node.port) as requestor:
            if number % 4:
                wait_for_association(requestor)
            if number % 4 == 1:
                requestor.vanish()
            elif number % 4 == 2:
                requestor.send(p_data(*message(ECHO_CONTEXT.id, c_echo_rq(), command=True)))
            elif number % 4 == 3:
                assert requestor.release() is not None


GONE: dict[str, bytes] = {
    "at once": b"",
    "with a release": release_rq(),
    "with an abort": pdu(ABORT, bytes(4)),
    "with half a message": p_data(pdv(CT_CONTEXT.id, COMMAND, c_echo_rq()[:9])),
}


@pytest.mark.parametrize("way", GONE)
def test_senders_that_are_gone_before_they_are_accepted_hold_no_place(
    way: str, node: GuardedNode
) -> None:
    """T11: an association whose end comes before its beginning has to end all the same."""
    for number in range(10 * ASSOCIATIONS):
        with Requestor(node.port, address=f"127.0.0.{100 + number % 20}") as requestor:
            requestor.send(associate_rq(), GONE[way])
            if number % 3:
                time.sleep(0.001 * (number % 7))
            requestor.vanish()


def wait_for_association(requestor: Requestor) -> None:
    answer = requestor.associate()
    assert answer is not None
    assert answer[0] == ASSOCIATE_AC, answer
    assert answer[0] != P_DATA
