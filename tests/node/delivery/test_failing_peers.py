# long: a table of the ways in which a peer can fail
"""Whatever a peer does, each object gets a verdict, in time, and nothing is left open."""

from __future__ import annotations

import gc
import socket
import struct
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from node.dispatch import arrival_of
from node.interfaces import Outgoing, SendVerdict, Sent
from storage.states import Reached
from tests.factories import make_ct_series
from tests.node.delivery.objects import large_object, outgoing, send, target_at, verdicts
from tests.node.delivery.scripted_peer import (
    ABORT,
    ASSOCIATE_AC,
    ASSOCIATE_RJ,
    P_DATA,
    RELEASE_RP,
    RELEASE_RQ,
    Link,
    Script,
    ScriptedPeer,
    associate_ac,
    command_set,
    pdu,
    pdv,
    response,
)

ACCEPTED, RETRY, UNREACHABLE = (
    SendVerdict.ACCEPTED,
    SendVerdict.RETRY,
    SendVerdict.UNREACHABLE,
)
NO_ASSOCIATION: Final = [UNREACHABLE] * 3
LOST_FIRST: Final = [UNREACHABLE, RETRY, RETRY]
TIME_OUT_SECONDS: Final = 0.6
LARGE: Final = 1 << 25


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> list[Outgoing]:
    folder = tmp_path_factory.mktemp("ct")
    return outgoing(make_ct_series(folder, slices=3, rows=16, columns=16))


@pytest.fixture(autouse=True)
def nothing_is_left_open() -> Iterator[None]:
    gc.collect()  # pynetdicom leaves sockets to it, in other tests of this process
    descriptors, threads = set(Path("/proc/self/fd").iterdir()), threading.active_count()
    yield
    assert set(Path("/proc/self/fd").iterdir()) <= descriptors
    assert threading.active_count() <= threads


@contextmanager
def no_socket_left_to_the_collector() -> Iterator[None]:
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", ResourceWarning)
        yield
        gc.collect()
    assert [str(warning.message) for warning in warned] == []


@dataclass(frozen=True, kw_only=True)
class Failure:
    """What a peer does, the verdicts on three objects, and words of the first report."""

    script: Script
    expected: list[SendVerdict]
    words: str
    object: int = 0
    seconds: float = TIME_OUT_SECONDS
    total_seconds: float = 60.0


def instead_of_acceptance(answer: bytes) -> Script:
    def script(link: Link) -> None:
        link.request()
        with suppress(ConnectionError):
            link.send(answer)
            link.wait_for_end()

    return script


def instead_of_answer(*answers: bytes) -> Script:
    def script(link: Link) -> None:
        link.accept()
        link.message()
        with suppress(ConnectionError):
            link.send(*answers)
            link.wait_for_end()

    return script


def with_command(status: int | None = 0, *, field: int = 0x8001, shift: int = 0) -> Script:
    def script(link: Link) -> None:
        link.accept()
        message = link.message()
        command = command_set(message, status, field=field, shift=shift)
        link.send(pdu(P_DATA, pdv(message.context_id, 3, command)))
        link.wait_for_end()

    return script


def between_objects(then: bytes, reply: bytes = b"") -> Script:
    """Answer the first object, and in the same segment do something else."""

    def script(link: Link) -> None:
        link.accept()
        link.send(response(link.message()), then)
        assert link.wait_for_end().startswith(reply)

    return script


def reset_when_connected(link: Link) -> None:
    link.reset()


def close_when_asked(link: Link) -> None:
    link.request()


def abort_first(link: Link) -> None:
    link.accept()
    link.message()
    link.send(pdu(ABORT, b"\0\0\2\1"))


def reset_first(link: Link) -> None:
    link.accept()
    link.message()
    link.reset()


def reset_second(link: Link) -> None:
    link.accept()
    link.answer(link.message())
    link.message()
    link.reset()


def close_first(link: Link) -> None:
    link.accept()
    link.message()


def drip(link: Link) -> None:
    """Answer byte by byte, each within the time-out, all of them beyond it."""
    link.accept()
    answer = response(link.message())
    with suppress(ConnectionError):
        for byte in answer:
            link.send(bytes((byte,)))
            time.sleep(TIME_OUT_SECONDS / 10)


def endless_answer(link: Link) -> None:
    link.accept()
    message = link.message()
    with suppress(ConnectionError):
        while True:
            link.send(pdu(P_DATA, pdv(message.context_id, 1, bytes(1000))))


def answer_only_first(link: Link) -> None:
    link.accept()
    link.answer(link.message())
    link.wait_for_end()


FAILURES: Final[dict[str, Failure]] = {
    "resets when connected": Failure(
        script=reset_when_connected, expected=NO_ASSOCIATION, words="no association with"
    ),
    "closes when asked": Failure(
        script=close_when_asked, expected=NO_ASSOCIATION, words="closed the connection"
    ),
    "is silent when asked": Failure(
        script=lambda link: link.wait_for_end(), expected=NO_ASSOCIATION, words="silent"
    ),
    "rejects": Failure(
        script=instead_of_acceptance(pdu(ASSOCIATE_RJ, b"\0\2\3\1")),
        expected=NO_ASSOCIATION,
        words="it is congested for now",
    ),
    "rejects with a PDU of a wrong length": Failure(
        script=instead_of_acceptance(pdu(ASSOCIATE_RJ, b"\0")),
        expected=NO_ASSOCIATION,
        words="unexpected PDU of type 0x03",
    ),
    "aborts when asked": Failure(
        script=instead_of_acceptance(pdu(ABORT, b"\0\0\2\1")),
        expected=NO_ASSOCIATION,
        words="aborted the association (source, reason (2, 1))",
    ),
    "speaks HTTP": Failure(
        script=instead_of_acceptance(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
        expected=NO_ASSOCIATION,
        words="it announced a PDU of",
    ),
    "announces an endless acceptance": Failure(
        script=instead_of_acceptance(struct.pack(">BxI", ASSOCIATE_AC, 0xFFFFFFFF)),
        expected=NO_ASSOCIATION,
        words="it announced a PDU of 4294967301 bytes",
    ),
    "accepts in too few bytes": Failure(
        script=instead_of_acceptance(pdu(ASSOCIATE_AC, bytes(20))),
        expected=NO_ASSOCIATION,
        words="A-ASSOCIATE-AC is cut short",
    ),
    "accepts with a cut item": Failure(
        script=instead_of_acceptance(pdu(ASSOCIATE_AC, bytes(68) + b"\x21\0\0\x99\1")),
        expected=NO_ASSOCIATION,
        words="cut short",
    ),
    "accepts in no transfer syntax": Failure(
        script=instead_of_acceptance(pdu(ASSOCIATE_AC, bytes(68) + b"\x21\0\0\4\1\0\0\0")),
        expected=NO_ASSOCIATION,
        words="names no transfer syntax",
    ),
    "takes PDUs into which nothing fits": Failure(
        script=instead_of_acceptance(associate_ac({1: (0, "1.2.840.10008.1.2.1")}, 7)),
        expected=NO_ASSOCIATION,
        words="into which nothing fits",
    ),
    "answers before it accepts": Failure(
        script=instead_of_acceptance(pdu(P_DATA, pdv(1, 3, b""))),
        expected=NO_ASSOCIATION,
        words="unexpected PDU of type 0x04",
    ),
    "aborts instead of an answer": Failure(
        script=abort_first, expected=LOST_FIRST, words="aborted the association"
    ),
    "resets instead of an answer": Failure(
        script=reset_first, expected=LOST_FIRST, words="no answer: the connection was lost"
    ),
    "resets instead of the second answer": Failure(
        script=reset_second,
        expected=[ACCEPTED, UNREACHABLE, RETRY],
        words="no answer: the connection was lost",
        object=1,
    ),
    "closes instead of an answer": Failure(
        script=close_first, expected=LOST_FIRST, words="closed the connection"
    ),
    "is silent instead of an answer": Failure(
        script=instead_of_answer(b""), expected=LOST_FIRST, words="silent for too long"
    ),
    "answers one byte at a time": Failure(
        script=drip, expected=LOST_FIRST, words="silent for too long"
    ),
    "releases instead of an answer": Failure(
        script=instead_of_answer(pdu(RELEASE_RQ, bytes(4))),
        expected=[RETRY] * 3,
        words="no answer: the destination released",
    ),
    "answers without an end": Failure(
        script=endless_answer, expected=LOST_FIRST, words="its answer has no end"
    ),
    "announces an endless answer": Failure(
        script=instead_of_answer(struct.pack(">BxI", P_DATA, 0x7FFFFFFF)),
        expected=LOST_FIRST,
        words="it announced a PDU of",
    ),
    "answers with garbage": Failure(
        script=instead_of_answer(pdu(P_DATA, pdv(1, 3, b"\xff" * 99))),
        expected=LOST_FIRST,
        words="its response is no command set",
    ),
    "answers with half an element": Failure(
        script=instead_of_answer(pdu(P_DATA, pdv(1, 3, bytes(5)))),
        expected=LOST_FIRST,
        words="its response is cut short",
    ),
    "answers with an empty PDU": Failure(
        script=instead_of_answer(pdu(P_DATA, b"")),
        expected=LOST_FIRST,
        words="an empty P-DATA-TF PDU",
    ),
    "answers with half a PDV": Failure(
        script=instead_of_answer(pdu(P_DATA, b"\0\0\0")),
        expected=LOST_FIRST,
        words="a PDV is cut short",
    ),
    "answers with a PDV of a wrong length": Failure(
        script=instead_of_answer(pdu(P_DATA, b"\0\0\xff\xff\1\3")),
        expected=LOST_FIRST,
        words="the length of a PDV is wrong",
    ),
    "answers in another context": Failure(
        script=instead_of_answer(pdu(P_DATA, pdv(99, 3, b""))),
        expected=LOST_FIRST,
        words="no part of a response",
    ),
    "answers with a data set": Failure(
        script=instead_of_answer(pdu(P_DATA, pdv(1, 2, b""))),
        expected=LOST_FIRST,
        words="no part of a response",
    ),
    "answers with a PDU of no known type": Failure(
        script=instead_of_answer(pdu(0x42, b"")),
        expected=LOST_FIRST,
        words="unexpected PDU of type 0x42",
    ),
    "answers another message": Failure(
        script=with_command(shift=1), expected=LOST_FIRST, words="answered another message"
    ),
    "answers with another command": Failure(
        script=with_command(field=0x8030), expected=LOST_FIRST, words="answered another message"
    ),
    "answers without a status": Failure(
        script=with_command(status=None), expected=LOST_FIRST, words="message ID or status"
    ),
    "aborts between objects": Failure(
        script=between_objects(pdu(ABORT, bytes(4))),
        expected=[ACCEPTED, RETRY, RETRY],
        words="not sent: the destination aborted",
        object=1,
    ),
    "releases between objects": Failure(
        script=between_objects(pdu(RELEASE_RQ, bytes(4)), reply=pdu(RELEASE_RP, bytes(4))),
        expected=[ACCEPTED, RETRY, RETRY],
        words="not sent: the destination released",
        object=1,
    ),
    "speaks out of turn": Failure(
        script=between_objects(pdu(P_DATA, pdv(1, 3, b"")), reply=pdu(ABORT, bytes(4))),
        expected=[ACCEPTED, RETRY, RETRY],
        words="not sent: it broke the protocol",
        object=1,
    ),
    "answers too slowly for them all": Failure(
        script=answer_only_first,
        expected=[ACCEPTED, RETRY, RETRY],
        words="the time for one delivery is up",
        object=1,
        seconds=60.0,
        total_seconds=1.0,
    ),
}


@pytest.mark.parametrize("failure", FAILURES.values(), ids=list(FAILURES))
def test_each_object_has_its_verdict_when_a_peer(failure: Failure, objects: list[Outgoing]) -> None:
    with ScriptedPeer(failure.script) as peer:
        target = target_at(
            peer.port,
            seconds=failure.seconds,
            acse_seconds=TIME_OUT_SECONDS,
            total_seconds=failure.total_seconds,
        )
        began = time.monotonic()
        with no_socket_left_to_the_collector():
            reports = send(target, objects)
        assert time.monotonic() - began < 10 * TIME_OUT_SECONDS, "a time-out did not work"
    assert verdicts(reports) == failure.expected
    assert all(arrival_of(sent) is worded(sent) for _, sent in reports)
    assert failure.words in reports[failure.object][1].message
    assert all(sent.message for _, sent in reports if sent.verdict is not ACCEPTED)
    assert peer.associations == 1


def worded(sent: Sent) -> Reached:
    """Return what a report says in words of where the object is."""
    if sent.verdict is ACCEPTED:
        return Reached.YES
    return Reached.PERHAPS if sent.message.startswith("no answer") else Reached.NO


def silent_after_release(link: Link) -> None:
    link.wait_for_end()


def close_after_release(_: Link) -> None:
    pass


def release_too(link: Link) -> None:
    """Ask for the release at the same time (PS3.8 9.2.3)."""
    link.send(pdu(RELEASE_RQ, bytes(4)))
    assert link.pdu() == (RELEASE_RP, bytes(4))
    link.send(pdu(RELEASE_RP, bytes(4)))
    assert link.wait_for_end() == b""


def garbage_after_release(link: Link) -> None:
    link.send(b"\xff" * 30)


@pytest.mark.parametrize(
    "ending", [silent_after_release, close_after_release, release_too, garbage_after_release]
)
def test_verdicts_stand_however_the_peer_takes_the_release(
    ending: Script, objects: list[Outgoing]
) -> None:
    def script(link: Link) -> None:
        link.accept()
        for _ in objects:
            link.answer(link.message())
        assert link.pdu() == (RELEASE_RQ, bytes(4))
        ending(link)

    with ScriptedPeer(script) as peer:
        reports = send(target_at(peer.port, acse_seconds=TIME_OUT_SECONDS), objects)
    assert verdicts(reports) == [ACCEPTED] * 3


def test_released_association_ends_without_an_abort(objects: list[Outgoing]) -> None:
    def script(link: Link) -> None:
        link.accept()
        link.answer(link.message())
        link.release()
        assert link.wait_for_end() == b""

    with ScriptedPeer(script) as peer:
        assert verdicts(send(target_at(peer.port), objects[:1])) == [ACCEPTED]


def test_peer_that_stops_reading_is_given_up_at_the_deadline(tmp_path: Path) -> None:
    item = large_object(tmp_path / "large.dcm", LARGE)

    def script(link: Link) -> None:
        link.accept()
        time.sleep(TIME_OUT_SECONDS * 3)

    with ScriptedPeer(script) as peer:
        reports = send(target_at(peer.port, seconds=TIME_OUT_SECONDS), [item, item])
    assert verdicts(reports) == [UNREACHABLE, RETRY]
    assert "took no byte" in reports[0][1].message


@pytest.mark.parametrize(
    ("kind", "verdict", "words"),
    [(ABORT, UNREACHABLE, "aborted"), (RELEASE_RQ, RETRY, "released")],
)
def test_end_in_the_middle_of_an_object_is_noticed_at_once(
    kind: int, verdict: SendVerdict, words: str, tmp_path: Path
) -> None:
    item = large_object(tmp_path / "large.dcm", LARGE)

    def script(link: Link) -> None:
        link.accept()
        link.pdu()
        link.send(pdu(kind, bytes(4)))
        time.sleep(TIME_OUT_SECONDS)

    with ScriptedPeer(script) as peer:
        began = time.monotonic()
        reports = send(target_at(peer.port, seconds=30.0), [item, item])
        assert time.monotonic() - began < 10.0
    assert verdicts(reports) == [verdict, RETRY]
    assert words in reports[0][1].message


def test_abort_is_told_though_a_reset_follows_it(tmp_path: Path) -> None:
    item = large_object(tmp_path / "large.dcm", LARGE)

    def script(link: Link) -> None:
        link.accept()
        link.pdu()
        link.send(pdu(ABORT, b"\0\0\2\6"))

    with ScriptedPeer(script) as peer:
        (report,) = send(target_at(peer.port), [item])
    assert report[1].verdict is UNREACHABLE
    assert "source, reason (2, 6)" in report[1].message


def test_refusal_before_the_last_byte_is_the_answer(tmp_path: Path) -> None:
    item = large_object(tmp_path / "large.dcm", LARGE)

    def script(link: Link) -> None:
        link.accept()
        link.answer(link.command(), 0xA700)
        link.data_set()
        link.release()

    with ScriptedPeer(script) as peer:
        (report,) = send(target_at(peer.port), [item])
    assert (report[1].verdict, report[1].status) == (RETRY, 0xA700)


def test_peer_that_never_accepts_the_connection_is_given_up(objects: list[Outgoing]) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        place = server.getsockname()
        waiting = [socket.socket() for _ in range(3)]
        for client in waiting:  # the queue of the kernel is full after the first
            client.setblocking(False)
            client.connect_ex(place)
        time.sleep(0.1)
        reports = send(target_at(place[1]), objects)
        for client in waiting:
            client.close()
    assert verdicts(reports) == NO_ASSOCIATION
    assert "TCP: timed out" in reports[0][1].message


def test_host_that_cannot_be_resolved_is_unreachable(objects: list[Outgoing]) -> None:
    target = target_at(1, host="x" * 300)
    assert verdicts(send(target, objects)) == NO_ASSOCIATION
    assert target.probe().message.startswith("TCP:")


def test_error_of_the_report_aborts_the_association(objects: list[Outgoing]) -> None:
    seen = []

    def script(link: Link) -> None:
        link.accept()
        link.answer(link.message())
        seen.append(link.wait_for_end())

    def report(_index: int, _sent: object) -> None:
        raise RuntimeError("no storage")

    with ScriptedPeer(script) as peer, pytest.raises(RuntimeError, match="no storage"):
        target_at(peer.port).send(objects, report)
    assert seen == [pdu(ABORT, bytes(4))]


def probe_of(script: Script) -> tuple[SendVerdict, str]:
    with ScriptedPeer(script) as peer:
        answer = target_at(peer.port, seconds=0.3, acse_seconds=0.5).probe()
    return answer.verdict, answer.message


def test_probe_tells_what_a_failing_peer_did() -> None:
    def refuse(link: Link) -> None:
        link.accept(results={1: 3})
        link.release()

    def fail(link: Link) -> None:
        link.accept()
        message = link.message()
        command = command_set(message, 0x0122, field=0x8030)
        link.send(pdu(P_DATA, pdv(message.context_id, 3, command)))
        link.release()

    assert probe_of(refuse) == (UNREACHABLE, "C-ECHO: not accepted")
    assert probe_of(fail) == (UNREACHABLE, "C-ECHO: refused")
    assert probe_of(abort_first) == (
        UNREACHABLE,
        "C-ECHO: the destination aborted the association (source, reason (2, 1))",
    )
    assert "silent" in probe_of(instead_of_answer(b""))[1]
