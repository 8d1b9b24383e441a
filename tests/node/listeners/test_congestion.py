"""NET-10: a sender is told before it sends that nothing could be kept (2, 3, 1)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pynetdicom import AE

from node.interfaces import OutOfResources
from node.listeners.dimse import DimseListener
from tests.node.listeners.receiving import KeepingIngest, associate, listener_for

CONGESTED = (2, 3, 1)


@pytest.fixture
def ingest() -> KeepingIngest:
    made = KeepingIngest()
    made.no_room = OutOfResources("the disk is full")
    return made


@pytest.fixture
def listener(ingest: KeepingIngest) -> Iterator[DimseListener]:
    made = listener_for(ingest)
    made.start()
    yield made
    made.stop()


def test_a_sender_is_rejected_as_long_as_there_is_no_room(
    ingest: KeepingIngest, listener: DimseListener
) -> None:
    """NET-10: (2, 3, 1), temporary congestion: it may try again, and then gets in."""
    answer = associate(listener.port).acceptor.primitive
    assert answer is not None
    assert (answer.result, answer.result_source, answer.diagnostic) == CONGESTED
    assert ingest.opened == []
    ingest.no_room = None
    association = associate(listener.port)
    assert association.is_established
    association.release()


def test_who_brings_no_instance_needs_no_room(listener: DimseListener) -> None:
    """NET-10: an echo, and a procedure step, say whether the node is there; they fill no disk."""
    ae = AE(ae_title="MONITOR")
    ae.acse_timeout = 10
    for sop_class in ("1.2.840.10008.1.1", "1.2.840.10008.3.1.2.3.3"):
        ae.add_requested_context(sop_class)
    association = ae.associate("127.0.0.1", listener.port, ae_title="WETREAD")
    assert association.is_established
    assert association.send_c_echo().Status == 0x0000
    association.release()
