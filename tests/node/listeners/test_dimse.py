"""The storage SCP over real associations: pynetdicom and dcmtk as senders."""

from __future__ import annotations

import socket
import struct
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pynetdicom import AE, evt

from node.interfaces import CannotUnderstand, DataSetMismatch, ListenerError, OutOfResources
from node.listeners._dimse_settings import Peer
from node.listeners.dimse import DimseListener
from tests.factories import make_ct_series
from tests.node.listeners.receiving import (
    KeepingIngest,
    associate,
    data_set_bytes,
    dcmtk,
    eventually,
    listener_for,
    sop_instance_uids,
    store,
)

COMPRESSED = {
    "JPEG2000.dcm": "-xw",
    "SC_rgb_rle.dcm": "-xr",
    "SC_rgb_jpeg_dcmtk.dcm": "-xy",
    "MR_small_jpeg_ls_lossless.dcm": "-xt",
    "SC_rgb_jpeg_gdcm.dcm": "-xs",
}


@pytest.fixture
def ingest() -> KeepingIngest:
    return KeepingIngest()


@pytest.fixture
def listener(ingest: KeepingIngest) -> Iterator[DimseListener]:
    made = listener_for(ingest)
    made.start()
    yield made
    made.stop()


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return make_ct_series(tmp_path / "ct", slices=4, rows=32, columns=32)


def test_storescu_delivers_every_byte_as_it_was(
    listener: DimseListener, ingest: KeepingIngest, files: list[Path]
) -> None:
    sent = dcmtk(
        "storescu", "-aet", "CT1", "-aec", "WETREAD", "127.0.0.1", str(listener.port), *files
    )
    assert sent.returncode == 0, sent.stderr
    for file, uid in zip(files, sop_instance_uids(files), strict=True):
        assert ingest.kept[uid] == data_set_bytes(file)
    assert {source.calling_ae for source in ingest.sources} == {"CT1"}


@pytest.mark.parametrize("name", COMPRESSED)
def test_compressed_images_are_kept_as_received(
    name: str, listener: DimseListener, ingest: KeepingIngest
) -> None:
    found = get_testdata_file(name, read=False, download=False)
    assert isinstance(found, str)
    path = Path(found)
    sent = dcmtk(
        "storescu", COMPRESSED[name], "-aec", "WETREAD", "127.0.0.1", str(listener.port), path
    )
    assert sent.returncode == 0, sent.stderr
    header = dcmread(path, stop_before_pixels=True)
    uid = str(header.SOPInstanceUID)
    assert ingest.syntaxes[uid] == header.file_meta.TransferSyntaxUID
    original = dcmread(path).PixelData
    assert original.rstrip(b"\0") in ingest.kept[uid]


def test_echo_is_answered(listener: DimseListener) -> None:
    assert dcmtk("echoscu", "-aec", "WETREAD", "127.0.0.1", str(listener.port)).returncode == 0


@pytest.mark.parametrize(
    ("calling", "called", "rejection"),
    [
        ("CT1", "WETREAD", None),
        ("CT9", "WETREAD", (1, 1, 3)),
        ("CT1", "OTHER", (1, 1, 7)),
        ("FAR", "WETREAD", (1, 1, 3)),
    ],
)
def test_only_listed_peers_from_their_addresses_get_in(
    calling: str, called: str, rejection: tuple[int, int, int] | None, ingest: KeepingIngest
) -> None:
    peers = [
        Peer(ae_title="CT1", addresses=("127.0.0.1",)),
        Peer(ae_title="FAR", addresses=("192.0.2.7",)),
    ]
    listener = listener_for(ingest, allow_any_peer=False, peers=peers)
    listener.start()
    try:
        association = associate(listener.port, calling=calling, called=called)
        if rejection is None:
            assert association.is_established
            association.release()
        else:
            answer = association.acceptor.primitive
            assert answer is not None
            assert (answer.result, answer.result_source, answer.diagnostic) == rejection
            assert ingest.opened == []
    finally:
        listener.stop()


def test_every_called_title_of_the_settings_lets_a_sender_in_and_is_noted(
    ingest: KeepingIngest,
) -> None:
    """NET-11."""
    listener = listener_for(ingest, ae_titles=["WETREAD", "STROKE_AI"])
    listener.start()
    try:
        for title in ("WETREAD", "STROKE_AI"):
            associate(listener.port, called=title).release()
        assert not associate(listener.port, called="OTHER").is_established
    finally:
        listener.stop()
    assert [source.called_ae for source in ingest.opened] == ["WETREAD", "STROKE_AI"]


def test_start_without_any_peer_says_what_to_do(ingest: KeepingIngest) -> None:
    with pytest.raises(ListenerError, match=r"listeners\.dimse\.peers"):
        listener_for(ingest, allow_any_peer=False).start()


def test_taken_port_is_named(listener: DimseListener, ingest: KeepingIngest) -> None:
    with pytest.raises(ListenerError, match=str(listener.port)):
        listener_for(ingest, port=listener.port).start()


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (OutOfResources("the disk is full"), 0xA700),
        (DataSetMismatch("(0008,0018) differs"), 0xA900),
        (CannotUnderstand("the data set ends inside an element"), 0xC000),
    ],
)
def test_refusal_is_answered_by_its_cause_and_the_association_lives(
    error: Exception, status: int, listener: DimseListener, ingest: KeepingIngest, files: list[Path]
) -> None:
    ingest.errors = [error]
    association = associate(listener.port)
    answer = store(association, files[0])
    assert answer.Status == status
    assert answer.ErrorComment == str(error)
    assert store(association, files[1]).Status == 0x0000
    association.release()


def test_unexpected_error_is_answered_with_an_incident_and_no_detail(
    listener: DimseListener, ingest: KeepingIngest, files: list[Path]
) -> None:
    ingest.errors = [KeyError("DOE^JANE")]
    association = associate(listener.port)
    answer = store(association, files[0])
    association.release()
    assert answer.Status == 0xC000
    assert "incident" in answer.ErrorComment
    assert "DOE" not in answer.ErrorComment
    assert len(answer.ErrorComment) <= 64


def test_association_is_told_from_its_begin_to_its_release(
    listener: DimseListener, ingest: KeepingIngest, files: list[Path]
) -> None:
    association = associate(listener.port)
    store(association, files[0])
    association.release()
    assert eventually(lambda: ingest.closed == [False])
    assert ingest.opened[0].calling_ae == "CT1"


def test_abort_is_told_as_one(listener: DimseListener, ingest: KeepingIngest) -> None:
    associate(listener.port).abort()
    assert eventually(lambda: ingest.closed == [True])


def test_sender_that_vanishes_in_mid_object_leaves_no_file_and_no_open_association(
    listener: DimseListener, ingest: KeepingIngest, files: list[Path]
) -> None:
    before = set(Path(tempfile.gettempdir()).glob("tmp*.dcm"))
    sent = 0

    def cut(event: evt.Event) -> None:
        nonlocal sent
        sent += 1
        if sent == 4:  # the command went, and some of the data set
            wrapped = event.assoc.dul.socket
            assert wrapped is not None
            raw = wrapped.socket
            assert raw is not None
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            raw.close()

    ae = AE(ae_title="CT1")
    ae.maximum_pdu_size = 4096
    ae.network_timeout = ae.dimse_timeout = 3
    ae.add_requested_context("1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1")
    big = dcmread(files[0])
    big.Rows = big.Columns = 1024
    big.PixelData = bytes(2 << 20)
    association = ae.associate(
        "127.0.0.1", listener.port, ae_title="WETREAD", evt_handlers=[(evt.EVT_PDU_SENT, cut)]
    )
    association.send_c_store(big)
    association.abort()
    assert eventually(lambda: ingest.closed == [True])
    assert ingest.kept == {}
    assert eventually(lambda: set(Path(tempfile.gettempdir()).glob("tmp*.dcm")) <= before)


def test_memory_does_not_grow_with_the_size_of_an_object(
    listener: DimseListener, ingest: KeepingIngest, tmp_path: Path, files: list[Path]
) -> None:
    """Send 200 MB; the node's own share of the growth stays far below it (R10)."""
    ingest.keep = False
    big = dcmread(files[0])
    big.Rows = big.Columns = 10240
    big.PixelData = bytes(200 << 20)
    path = tmp_path / "big.dcm"
    big.save_as(path)
    del big
    before = _resident_mib()
    peak = [before]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            peak[0] = max(peak[0], _resident_mib())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        sent = dcmtk("storescu", "-aec", "WETREAD", "127.0.0.1", str(listener.port), path)
    finally:
        done.set()
        watcher.join()
    assert sent.returncode == 0
    assert ingest.largest > 200 << 20
    assert peak[0] - before < 60


def _resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / (1 << 20)


def test_stop_waits_for_an_association_in_flight_and_takes_no_new_one(
    ingest: KeepingIngest, files: list[Path]
) -> None:
    listener = listener_for(ingest)
    listener.start()
    port = listener.port
    association = associate(port)
    stopper = threading.Thread(target=listener.stop)
    stopper.start()
    time.sleep(0.5)
    assert not associate(port).is_established
    assert store(association, files[0]).Status == 0x0000
    association.release()
    stopper.join(5)
    assert not stopper.is_alive()
    assert ingest.closed == [False]


def test_stop_aborts_who_does_not_end(ingest: KeepingIngest) -> None:
    listener = listener_for(ingest, grace_seconds=0.5)
    listener.start()
    association = associate(listener.port)
    began = time.monotonic()
    listener.stop()
    assert time.monotonic() - began < 10
    assert eventually(lambda: association.is_aborted)
    assert ingest.closed == [True]


def test_many_senders_at_once_lose_nothing(
    listener: DimseListener, ingest: KeepingIngest, tmp_path: Path
) -> None:
    series = [
        make_ct_series(tmp_path / str(n), slices=5, rows=16, columns=16, seed=n) for n in range(6)
    ]

    def send(files: list[Path]) -> None:
        association = associate(listener.port)
        for file in files:
            assert store(association, file).Status == 0x0000
        association.release()

    senders = [threading.Thread(target=send, args=(files,)) for files in series]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    assert len(ingest.kept) == 30
