"""Notifications of PDUs: a C-STORE's are told like all others, to whom asks for them."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from pynetdicom import evt
from pynetdicom.events import Event

from node.listeners.dimse import DimseListener
from tests.end_to_end.pdus import (
    COMMAND,
    CT_CONTEXT,
    DATA,
    LAST_COMMAND,
    LAST_DATA,
    P_DATA,
    c_store_rq,
    data_set,
    p_data,
    pdv,
)
from tests.end_to_end.requestor import associated
from tests.factories import make_ct_series
from tests.node.listeners.receiving import (
    KeepingIngest,
    associate,
    eventually,
    listener_for,
    store,
)


class Listening:
    """What was told of P-DATA-TF PDUs."""

    def __init__(self, listener: DimseListener) -> None:
        self.received: list[bytes] = []
        self.sent: list[bytes] = []
        self.pdus: list[str] = []
        server = listener._server
        assert server is not None
        self.server = server
        server.bind(evt.EVT_DATA_RECV, self._on_received)
        server.bind(evt.EVT_DATA_SENT, self._on_sent)
        server.bind(evt.EVT_PDU_RECV, self._on_pdu)
        server.bind(evt.EVT_PDU_SENT, self._on_pdu)

    def _on_received(self, event: Event) -> None:
        if event.data[0] == P_DATA:
            self.received.append(bytes(event.data))

    def _on_sent(self, event: Event) -> None:
        if event.data[0] == P_DATA:
            self.sent.append(bytes(event.data))

    def _on_pdu(self, event: Event) -> None:
        self.pdus.append(type(event.pdu).__name__)


@pytest.fixture
def ingest() -> KeepingIngest:
    return KeepingIngest()


@pytest.fixture
def listener(ingest: KeepingIngest) -> Iterator[DimseListener]:
    made = listener_for(ingest)
    made.start()
    yield made
    made.stop()


def test_every_pdu_of_a_c_store_is_told_as_it_came(
    ingest: KeepingIngest, listener: DimseListener
) -> None:
    """Several PDVs in one PDU, one message over many PDUs, and an echo between two C-STOREs."""
    told = Listening(listener)
    content, request = data_set("2.25.1", pixels=bytes(3000)), c_store_rq("2.25.1")
    context = CT_CONTEXT.id
    pdus = [
        p_data(pdv(context, COMMAND, request[:30])),
        p_data(pdv(context, LAST_COMMAND, request[30:]), pdv(context, DATA, content[:50])),
        p_data(pdv(context, DATA, content[50:2000])),
        p_data(pdv(context, LAST_DATA, content[2000:])),
    ]
    with associated(listener.port) as sender:
        sender.send(*pdus)
        assert sender.response() == (1, 0)
        assert sender.echo(2) == 0
        sender.send(*pdus)
        assert sender.response() == (1, 0)
        sender.release()
    assert eventually(lambda: ingest.closed == [False])
    echo = [pdu for pdu in told.received if pdu not in pdus]
    assert told.received == [*pdus, *echo, *pdus]
    assert len(echo) == 1
    assert [struct.unpack_from(">I", pdu, 2)[0] for pdu in told.sent] == [
        len(pdu) - 6 for pdu in told.sent
    ]
    assert len(told.sent) == 3
    assert told.pdus.count("P_DATA_TF") == len(told.received) + len(told.sent)
    assert {"A_ASSOCIATE_RQ", "A_ASSOCIATE_AC", "A_RELEASE_RQ", "A_RELEASE_RP"} <= {*told.pdus}


def test_who_listens_during_an_association_is_told_from_then_on(
    ingest: KeepingIngest, listener: DimseListener, tmp_path: Path
) -> None:
    files = make_ct_series(tmp_path, slices=2, rows=16, columns=16)
    association = associate(listener.port)
    store(association, files[0])
    told = Listening(listener)
    store(association, files[1])
    assert len(told.received) >= 2
    told.server.unbind(evt.EVT_DATA_RECV, told._on_received)
    told.server.unbind(evt.EVT_PDU_RECV, told._on_pdu)
    received = len(told.received)
    store(association, files[1])
    association.release()
    assert len(told.received) == received
    assert len(ingest.kept) == 2


def test_nobody_listens_and_no_pdu_is_put_together(
    ingest: KeepingIngest,
    listener: DimseListener,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What notifications cost where nobody is bound: a look for who is, and nothing else."""
    monkeypatch.setattr("node.listeners._notifications._tell", None)
    monkeypatch.setattr("node.listeners._notifications.PduNotices.take", None)
    association = associate(listener.port)
    (file,) = make_ct_series(tmp_path, slices=1, rows=16, columns=16)
    assert store(association, file).Status == 0x0000
    association.release()
    assert len(ingest.kept) == 1
