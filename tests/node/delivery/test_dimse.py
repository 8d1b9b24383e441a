"""C-STORE to real peers: each answer becomes the verdict that the status table says."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import dcmread
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.transport import ThreadedAssociationServer

from node.delivery._statuses import judge
from node.dispatch import arrival_of
from node.interfaces import Outgoing, SendVerdict
from node.pacs import StandInPacs
from storage.states import Reached
from tests.end_to_end.processes import free_port
from tests.factories import make_ct_series
from tests.node.delivery.objects import outgoing, send, target_at, verdicts

PEER_THREAD = pytest.mark.filterwarnings(
    # pynetdicom 3.0.4 as the peer that rejects: its thread may meet an abort while it closes
    "ignore:Exception in thread .*run_reactor:pytest.PytestUnhandledThreadExceptionWarning"
)


@pytest.fixture
def objects(tmp_path: Path) -> list[Outgoing]:
    return outgoing(make_ct_series(tmp_path / "ct", slices=3, rows=16, columns=16))


def port_of(server: ThreadedAssociationServer | None) -> int:
    assert server is not None
    port: int = server.server_address[1]
    return port


@pytest.fixture
def pacs(tmp_path: Path) -> Iterator[StandInPacs]:
    standin = StandInPacs(tmp_path / "pacs", ae_title="PACS", host="127.0.0.1", port=0)
    standin.start()
    yield standin
    standin.stop()


def test_objects_are_accepted_in_order_over_one_association(
    pacs: StandInPacs, objects: list[Outgoing]
) -> None:
    """NET-17."""
    assert verdicts(send(target_at(pacs.port), objects)) == [SendVerdict.ACCEPTED] * 3
    assert sum(study.count for study in pacs.listing()) == 3


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (0xB000, SendVerdict.WARNED),
        (0xB006, SendVerdict.WARNED),
        (0xA700, SendVerdict.RETRY),
        (0xA900, SendVerdict.REFUSED),
        (0xC000, SendVerdict.REFUSED),
        (0xC123, SendVerdict.REFUSED),
        (0x0122, SendVerdict.REFUSED),
        (0x0117, SendVerdict.REFUSED),
    ],
)
def test_status_decides_and_the_next_object_goes_on(
    status: int, verdict: SendVerdict, pacs: StandInPacs, objects: list[Outgoing]
) -> None:
    """NET-17: 0xA7xx again later; 0xA9xx, 0xCxxx, 0x0122 never; 0xB0xx is kept, with a warning."""
    pacs.refuse_with(status)
    reports = send(target_at(pacs.port), objects[:2])
    assert verdicts(reports) == [verdict, SendVerdict.ACCEPTED]
    assert reports[0][1].status == status
    kept = verdict in {SendVerdict.ACCEPTED, SendVerdict.WARNED}
    assert arrival_of(reports[0][1]) is (Reached.YES if kept else Reached.NO)


def test_status_without_a_meaning_is_not_taken_for_success_and_not_for_nothing_either() -> None:
    """It may be a warning (PS3.7 annex C): a recall rejects the object there."""
    assert judge(0x7777).verdict is SendVerdict.REFUSED
    assert arrival_of(judge(0x7777)) is Reached.PERHAPS
    assert judge(None).verdict is SendVerdict.UNREACHABLE
    assert arrival_of(judge(None)) is Reached.PERHAPS


def test_dead_port_is_unreachable_for_every_object(objects: list[Outgoing]) -> None:
    reports = send(target_at(free_port()), objects)
    assert verdicts(reports) == [SendVerdict.UNREACHABLE] * 3
    assert {arrival_of(sent) for _, sent in reports} == {Reached.NO}


@PEER_THREAD
def test_rejection_names_the_titles_to_check(pacs: StandInPacs, objects: list[Outgoing]) -> None:
    reports = send(target_at(pacs.port, called="WRONG"), objects)
    assert verdicts(reports) == [SendVerdict.UNREACHABLE] * 3
    assert "called WRONG" in reports[0][1].message


def test_peer_that_aborts_is_retried_for_what_it_did_not_answer(objects: list[Outgoing]) -> None:
    ae = AE(ae_title="PACS")
    ae.supported_contexts = AllStoragePresentationContexts
    seen = 0

    def abort_second(event: evt.Event) -> int:
        nonlocal seen
        seen += 1
        if seen == 2:
            event.assoc.abort()
        return 0x0000

    server = ae.start_server(
        ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, abort_second)]
    )
    try:
        reports = send(target_at(port_of(server)), objects)
    finally:
        ae.shutdown()
    assert verdicts(reports)[0] is SendVerdict.ACCEPTED
    assert set(verdicts(reports)[1:]) <= {SendVerdict.UNREACHABLE, SendVerdict.RETRY}


def test_peer_that_stalls_is_given_up_at_the_deadline(objects: list[Outgoing]) -> None:
    ae = AE(ae_title="PACS")
    ae.supported_contexts = AllStoragePresentationContexts

    def stall(_: evt.Event) -> int:
        time.sleep(3)
        return 0x0000

    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, stall)])
    began = time.monotonic()
    try:
        reports = send(target_at(port_of(server), seconds=0.5), objects)
        assert time.monotonic() - began < 3
    finally:
        ae.shutdown()
    assert SendVerdict.ACCEPTED not in verdicts(reports)


def test_class_that_the_peer_does_not_take_is_refused_and_the_others_are_sent(
    tmp_path: Path, objects: list[Outgoing]
) -> None:
    """NET-18: the other objects of a set still go out, and the refusal names the SOP class."""
    ae = AE(ae_title="PACS")
    ae.add_supported_context(objects[0].sop_class_uid)
    server = ae.start_server(
        ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, lambda _: 0x0000)]
    )
    other = dcmread(objects[1].path)
    other.SOPClassUID = "1.2.840.10008.5.1.4.1.1.66.4"
    other.file_meta.MediaStorageSOPClassUID = other.SOPClassUID
    path = tmp_path / "other.dcm"
    other.save_as(path)
    try:
        mixed = [objects[0], *outgoing([path]), objects[2]]
        reports = send(target_at(port_of(server)), mixed)
    finally:
        ae.shutdown()
    assert verdicts(reports) == [
        SendVerdict.ACCEPTED,
        SendVerdict.REFUSED,
        SendVerdict.ACCEPTED,
    ]
    assert reports[1][1].message == (
        "the destination takes no SOP class 1.2.840.10008.5.1.4.1.1.66.4"
    )


def test_file_that_is_gone_is_refused_and_the_others_are_sent(
    pacs: StandInPacs, objects: list[Outgoing]
) -> None:
    objects[0].path.unlink()
    assert verdicts(send(target_at(pacs.port), objects)) == [
        SendVerdict.REFUSED,
        SendVerdict.ACCEPTED,
        SendVerdict.ACCEPTED,
    ]


@PEER_THREAD
def test_probe_names_the_step_that_failed(pacs: StandInPacs) -> None:
    assert target_at(pacs.port).probe().verdict is SendVerdict.ACCEPTED
    dead = target_at(free_port()).probe()
    assert (dead.verdict, dead.message[:4]) == (SendVerdict.UNREACHABLE, "TCP:")
    assert "rejected" in target_at(pacs.port, called="WRONG").probe().message
