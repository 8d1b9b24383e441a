"""Results over the web: each answer of an archive, and each failure, becomes its verdict."""

from __future__ import annotations

import ssl
import threading
import time
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from pydicom import dcmread

from node.delivery._stow_answer import MOST_ANSWER
from node.delivery._stow_settings import StowTargetSettings
from node.delivery.stow import StowTarget
from node.dispatch import arrival_of
from node.interfaces import Outgoing, SendVerdict, Sent
from storage.states import Reached
from tests.end_to_end.papers import authority, issued
from tests.end_to_end.processes import Orthanc, free_port
from tests.factories import make_ct_series
from tests.node.delivery.objects import large_object, outgoing, verdicts
from tests.node.delivery.scripted_peer import Link, ScriptedPeer
from tests.node.delivery.web_peer import Request, answer, stored, take

COUNT = 3


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> list[Outgoing]:
    folder = tmp_path_factory.mktemp("ct")
    return outgoing(make_ct_series(folder, slices=COUNT, rows=64, columns=64))


def target_at(port: int, path: str = "/dicom-web", **settings: object) -> StowTarget:
    raw = {
        "url": f"http://127.0.0.1:{port}{path}",
        "connect_seconds": 2.0,
        "answer_seconds": 3.0,
        "total_seconds": 30.0,
        **settings,
    }
    return StowTarget(StowTargetSettings.model_validate(raw))


def send(target: StowTarget, objects: list[Outgoing]) -> list[tuple[int, Sent]]:
    reports: list[tuple[int, Sent]] = []
    target.send(objects, lambda index, sent: reports.append((index, sent)))
    return reports


def answering(reply: Callable[[Link, Request, int], object]) -> Callable[[Link], None]:
    """Return a script that answers every request of a connection; `reply` gets its number."""
    taken = 0

    def script(link: Link) -> None:
        nonlocal taken
        while (request := take(link)) is not None:
            reply(link, request, taken)
            taken += 1

    return script


def always(status: int, content: bytes = b"", *, headers: str = "") -> Callable[[Link], None]:
    return answering(lambda link, _request, _number: answer(link, status, content, headers=headers))


def one(script: Callable[[Link], None], item: Outgoing) -> Sent:
    """Send one object to a scripted server; return what came of it."""
    with ScriptedPeer(script) as peer:
        [(_, sent)] = send(target_at(peer.port), [item])
    return sent


# ---------------------------------------------------------------- real peer


def test_orthanc_gets_the_objects_as_they_were_kept_over_the_web(
    objects: list[Outgoing], tmp_path: Path
) -> None:
    """AIR-01: Store Instances Over the Web [RAD-108]."""
    with Orthanc(folder=tmp_path / "orthanc", web=True) as orthanc:
        target = target_at(orthanc.http_port)
        assert target.probe().verdict is SendVerdict.ACCEPTED
        assert target_at(orthanc.http_port, "/elsewhere").probe().verdict is SendVerdict.UNREACHABLE
        assert verdicts(send(target, objects)) == [SendVerdict.ACCEPTED] * COUNT
        assert verdicts(send(target, objects)) == [SendVerdict.ACCEPTED] * COUNT
        there = {}
        for instance in orthanc.get("/instances"):
            path = tmp_path / f"{instance}.dcm"
            path.write_bytes(orthanc.file(instance))
            there[str(dcmread(path).SOPInstanceUID)] = dcmread(path)
    assert there == {item.sop_instance_uid: dcmread(item.path) for item in objects}
    assert verdicts(send(target, objects)) == [SendVerdict.UNREACHABLE] * COUNT
    assert "Connection refused" in target.probe().message


# ---------------------------------------------------------------- what goes out


def test_every_object_is_one_request_over_one_connection_byte_for_byte(
    objects: list[Outgoing],
) -> None:
    requests: list[Request] = []

    def reply(link: Link, request: Request, number: int) -> None:
        requests.append(request)
        answer(link, 200, stored(objects[number].sop_instance_uid))

    with ScriptedPeer(answering(reply)) as peer:
        assert verdicts(send(target_at(peer.port), objects)) == [SendVerdict.ACCEPTED] * COUNT
        assert peer.associations == 1
    for request, item in zip(requests, objects, strict=True):
        assert request.line == "POST /dicom-web/studies HTTP/1.1"
        kind, _, boundary = request.headers["content-type"].partition("; boundary=")
        assert kind == 'multipart/related; type="application/dicom"'
        assert request.headers["accept"] == "application/dicom+json"
        head, _, rest = request.body.partition(b"\r\n\r\n")
        assert head.startswith(f"--{boundary}\r\nContent-Type: application/dicom\r\n".encode())
        assert rest == item.path.read_bytes() + f"\r\n--{boundary}--\r\n".encode()


def test_an_object_is_never_in_memory_whole(tmp_path: Path) -> None:
    item = large_object(tmp_path / "large.dcm", 64 << 20)

    def script(link: Link) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += link.connection.recv(1)
        left = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        buffer = bytearray(1 << 20)
        while left:
            left -= link.connection.recv_into(buffer, min(left, len(buffer)))
        answer(link, 200, stored(item.sop_instance_uid))

    with ScriptedPeer(script) as peer:
        tracemalloc.start()
        reports = send(target_at(peer.port), [item])
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert verdicts(reports) == [SendVerdict.ACCEPTED]
    assert peak < 16 << 20


def test_credentials_come_from_files_and_are_read_each_time(
    objects: list[Outgoing], tmp_path: Path
) -> None:
    """T39: a secret lies in a file, and is in no representation of the settings."""
    secret = tmp_path / "secret"
    shown: list[str] = []

    def reply(link: Link, request: Request, _number: int) -> None:
        shown.append(request.headers["authorization"])
        answer(link, 200, stored(objects[0].sop_instance_uid))

    with ScriptedPeer(answering(reply)) as peer:
        bearer = target_at(peer.port, token_file=secret)
        basic = target_at(peer.port, user="wetread", password_file=secret)
        assert send(bearer, objects[:1])[0][1].message == (
            "token_file: cannot be read: FileNotFoundError"
        )
        for word in ("alpha", "omega"):
            secret.write_text(f"{word}\n")
            send(bearer, objects[:1])
        send(basic, objects[:1])
    assert shown == ["Bearer alpha", "Bearer omega", "Basic d2V0cmVhZDpvbWVnYQ=="]
    assert "omega" not in repr(bearer.__dict__) + bearer.address()


def test_tls_holds_the_archive_to_its_authority(objects: list[Outgoing], tmp_path: Path) -> None:
    ours, others = authority(tmp_path / "ours"), authority(tmp_path / "others")
    papers = issued(ours, "pacs")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(papers.certificate, papers.key)

    def script(link: Link) -> None:
        try:
            link.connection = context.wrap_socket(link.connection, server_side=True)
        except (ssl.SSLError, ConnectionError):
            return
        with link.connection:
            always(200, stored(objects[0].sop_instance_uid))(link)

    with ScriptedPeer(script) as peer:
        url = f"https://127.0.0.1:{peer.port}"
        known = target_at(0, url=url, authorities=ours.certificate)
        unknown = target_at(0, url=url, authorities=others.certificate)
        assert verdicts(send(known, objects[:1])) == [SendVerdict.ACCEPTED]
        assert verdicts(send(unknown, objects[:1])) == [SendVerdict.UNREACHABLE]


# ---------------------------------------------------------------- what comes back


@pytest.mark.parametrize(
    ("status", "reason", "verdict"),
    [
        (202, 0xB000, SendVerdict.WARNED),
        (202, 0xB007, SendVerdict.WARNED),
        (409, 0xA700, SendVerdict.RETRY),
        (409, 0xA900, SendVerdict.REFUSED),
        (409, 0xC000, SendVerdict.REFUSED),
        (409, 0xC122, SendVerdict.REFUSED),
        (409, 0x0110, SendVerdict.RETRY),
        (409, 0x0111, SendVerdict.WARNED),
        (409, 0x0122, SendVerdict.REFUSED),
        (200, 0x0124, SendVerdict.REFUSED),
    ],
)
def test_the_reason_for_an_object_decides_as_a_status_of_c_store_does(
    status: int, reason: int, verdict: SendVerdict, objects: list[Outgoing]
) -> None:
    """NET-17, over the web: PS3.18 table I.2-2 has the same reasons."""
    warning = reason if reason >> 12 == 0xB else None
    failure = None if warning else reason
    content = stored(objects[0].sop_instance_uid, failure=failure, warning=warning)
    sent = one(always(status, content), objects[0])
    assert (sent.verdict, sent.status) == (verdict, reason)


@pytest.mark.parametrize(
    ("status", "headers", "verdict"),
    [
        (302, "Location: http://192.0.2.1/\r\n", SendVerdict.UNREACHABLE),
        (400, "", SendVerdict.REFUSED),
        (401, "", SendVerdict.UNREACHABLE),
        (403, "", SendVerdict.UNREACHABLE),
        (404, "", SendVerdict.UNREACHABLE),
        (409, "", SendVerdict.REFUSED),
        (413, "", SendVerdict.REFUSED),
        (413, "Retry-After: 60\r\n", SendVerdict.RETRY),
        (415, "", SendVerdict.REFUSED),
        (429, "", SendVerdict.RETRY),
        (500, "", SendVerdict.RETRY),
        (502, "", SendVerdict.UNREACHABLE),
        (503, "Retry-After: 60\r\n", SendVerdict.RETRY),
        (507, "", SendVerdict.RETRY),
    ],
)
def test_without_a_reason_the_http_status_decides(
    status: int, headers: str, verdict: SendVerdict, objects: list[Outgoing]
) -> None:
    sent = one(always(status, headers=headers), objects[0])
    assert (sent.verdict, sent.status) == (verdict, None)
    assert f"HTTP {status}" in sent.message
    assert (arrival_of(sent) is Reached.PERHAPS) is (status >= 500)  # a gateway may say so


@pytest.mark.parametrize(
    ("content", "verdict"),
    [
        (b"", SendVerdict.UNREACHABLE),
        (b"<html>Welcome</html>", SendVerdict.UNREACHABLE),
        (b"[" * 100_000, SendVerdict.UNREACHABLE),
        (b"{}", SendVerdict.RETRY),
        (b'{"00081199": {"Value": [null, 1, {"00081155": {"Value": 7}}]}}', SendVerdict.RETRY),
        (stored("1.2.3"), SendVerdict.RETRY),
    ],
)
def test_success_that_does_not_name_the_object_is_none(
    content: bytes, verdict: SendVerdict, objects: list[Outgoing]
) -> None:
    sent = one(always(200, content), objects[0])
    assert (sent.verdict, arrival_of(sent)) == (verdict, Reached.PERHAPS)


def test_what_is_refused_takes_no_other_with_it(objects: list[Outgoing]) -> None:
    def reply(link: Link, _request: Request, number: int) -> None:
        if number == 1:
            answer(link, 413)
        else:
            answer(link, 200, stored(objects[number].sop_instance_uid))

    with ScriptedPeer(answering(reply)) as peer:
        found = verdicts(send(target_at(peer.port), objects))
    assert found == [SendVerdict.ACCEPTED, SendVerdict.REFUSED, SendVerdict.ACCEPTED]


def test_a_server_that_answers_before_it_has_read_is_heard(tmp_path: Path) -> None:
    """It closes at once, as many do at 413, with most of the object unread."""
    item = large_object(tmp_path / "large.dcm", 32 << 20)

    def script(link: Link) -> None:
        link.connection.recv(1000)
        answer(link, 413, headers="Connection: close\r\n")
        time.sleep(0.2)

    sent = one(script, item)
    assert sent.verdict in {SendVerdict.REFUSED, SendVerdict.UNREACHABLE}
    assert "HTTP 413" in sent.message or "no answer" in sent.message


# ---------------------------------------------------------------- failing connections


def test_a_lost_connection_leaves_the_others_to_be_sent_again(objects: list[Outgoing]) -> None:
    def reply(link: Link, _request: Request, number: int) -> None:
        if number:
            link.connection.close()
        else:
            answer(link, 200, stored(objects[0].sop_instance_uid))

    def script(link: Link) -> None:
        try:
            answering(reply)(link)
        except OSError:
            return

    with ScriptedPeer(script) as peer:
        reports = send(target_at(peer.port), objects)
    assert [(sent.verdict, arrival_of(sent)) for _, sent in reports] == [
        (SendVerdict.ACCEPTED, Reached.YES),
        (SendVerdict.UNREACHABLE, Reached.PERHAPS),
        (SendVerdict.RETRY, Reached.NO),
    ]


def test_silence_ends_at_the_time_out(objects: list[Outgoing]) -> None:
    ended = threading.Event()

    def script(link: Link) -> None:
        take(link)
        ended.wait(20)

    with ScriptedPeer(script) as peer:
        start = time.monotonic()
        reports = send(target_at(peer.port, answer_seconds=0.3), objects)
        assert time.monotonic() - start < 5
        ended.set()
    assert verdicts(reports) == [SendVerdict.UNREACHABLE, SendVerdict.RETRY, SendVerdict.RETRY]
    assert "silent for too long" in reports[0][1].message


def test_the_time_for_all_objects_ends_them(objects: list[Outgoing]) -> None:
    def reply(link: Link, _request: Request, number: int) -> None:
        time.sleep(0.3)
        answer(link, 200, stored(objects[number].sop_instance_uid))

    with ScriptedPeer(answering(reply)) as peer:
        found = verdicts(send(target_at(peer.port, total_seconds=0.5), objects))
    assert found[0] is SendVerdict.ACCEPTED
    assert found[2] is SendVerdict.RETRY


@pytest.mark.parametrize("start", [b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\n\r\n"])
def test_an_answer_that_drips_ends_with_the_time_for_all(
    start: bytes, objects: list[Outgoing]
) -> None:
    def script(link: Link) -> None:
        take(link)
        try:
            link.send(start)
            while True:
                link.send(b"x")
                time.sleep(0.1)
        except OSError:
            return

    with ScriptedPeer(script) as peer:
        began = time.monotonic()
        reports = send(target_at(peer.port, total_seconds=1.0), objects)
        assert time.monotonic() - began < 4
    assert verdicts(reports) == [SendVerdict.RETRY] * COUNT


def test_an_answer_without_end_is_cut(objects: list[Outgoing]) -> None:
    def script(link: Link) -> None:
        take(link)
        link.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/dicom+json\r\n\r\n")
        with suppress(OSError):
            for _ in range(4 * MOST_ANSWER >> 16):
                link.send(b" " * (1 << 16))

    sent = one(script, objects[0])
    assert sent.verdict is SendVerdict.UNREACHABLE
    assert "longer than" in sent.message


def test_nobody_there_is_unreachable_for_every_object(objects: list[Outgoing]) -> None:
    reports = send(target_at(free_port()), objects)
    assert verdicts(reports) == [SendVerdict.UNREACHABLE] * COUNT
    assert "Connection refused" in reports[0][1].message
    assert {arrival_of(sent) for _, sent in reports} == {Reached.NO}


def test_a_file_that_is_not_the_object_is_never_sent(objects: list[Outgoing]) -> None:
    other = Outgoing(
        sop_class_uid=objects[0].sop_class_uid,
        sop_instance_uid="1.2.3",
        transfer_syntax_uid=objects[0].transfer_syntax_uid,
        path=objects[0].path,
    )
    with ScriptedPeer(always(200)) as peer:
        reports = send(target_at(peer.port), [other])
        assert peer.associations == 0
    assert verdicts(reports) == [SendVerdict.REFUSED]
