"""What a sender may offer: every storage class, every standard transfer syntax; what it is told."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from pydicom.uid import AllTransferSyntaxes
from pynetdicom import AllStoragePresentationContexts

from engines.decoding import has_decoder
from node.doors import accepted_transfer_syntaxes
from node.listeners._dimse_settings import DimseListenerSettings
from node.listeners._transfer_syntaxes import TRANSFER_SYNTAXES
from node.listeners.dimse import DimseListener
from tests.end_to_end.pdus import (
    ASSOCIATE_AC,
    CONTEXTS,
    CT_IMAGE_STORAGE,
    EXPLICIT,
    IMPLICIT,
    Context,
    associate_rq,
    common_extended,
    context_results,
    context_syntaxes,
    data_set,
    extended,
    implementation,
    maximum_length,
    operations_window,
    role,
    user_items,
)
from tests.end_to_end.requestor import Requestor, associated
from tests.node.listeners.receiving import KeepingIngest, listener_for

ACCEPTED, NO_ABSTRACT_SYNTAX, NO_TRANSFER_SYNTAX = 0, 3, 4
PIXELS_ELSEWHERE = ("1.2.840.10008.1.2.4.204", "1.2.840.10008.1.2.4.205", "1.2.840.10008.1.2.7.")
STORAGE_CLASSES = [str(context.abstract_syntax) for context in AllStoragePresentationContexts]
MAXIMUM_LENGTH, OPERATIONS_WINDOW, ROLE, EXTENDED, COMMON_EXTENDED = 0x51, 0x53, 0x54, 0x56, 0x57
WINDOW = 100


@pytest.fixture
def ingest() -> KeepingIngest:
    return KeepingIngest()


@pytest.fixture
def listener(ingest: KeepingIngest) -> Iterator[DimseListener]:
    made = listener_for(ingest)
    made.start()
    yield made
    made.stop()


def answer(port: int, request: bytes) -> bytes:
    """Return the content of the A-ASSOCIATE-AC to a request."""
    with Requestor(port) as requestor:
        pdu = requestor.associate(request)
        assert pdu is not None
        assert pdu[0] == ASSOCIATE_AC
        requestor.release()
        return pdu[1]


def offered(classes: Sequence[str], *syntaxes: str) -> list[Context]:
    return [
        Context(id=2 * number + 1, abstract_syntax=uid, transfer_syntaxes=syntaxes)
        for number, uid in enumerate(classes)
    ]


@pytest.mark.parametrize("start", range(0, len(STORAGE_CLASSES), WINDOW))
def test_every_storage_class_is_accepted(start: int, listener: DimseListener) -> None:
    """NET-02: every one that is offered, of all that pynetdicom knows."""
    classes = STORAGE_CLASSES[start : start + WINDOW]
    results = context_results(answer(listener.port, associate_rq(offered(classes, EXPLICIT))))
    assert [*results.values()] == [ACCEPTED] * len(classes)


def test_every_standard_transfer_syntax_is_accepted_and_its_bytes_are_kept(
    ingest: KeepingIngest, listener: DimseListener
) -> None:
    """NET-03, NET-06: what is in the object is kept as it came, whoever may decode it."""
    contexts = [
        Context(id=2 * number + 1, abstract_syntax=CT_IMAGE_STORAGE, transfer_syntaxes=(syntax,))
        for number, syntax in enumerate(TRANSFER_SYNTAXES)
    ]
    with associated(listener.port, contexts=contexts) as sender:
        assert len(sender.accepted) == len(TRANSFER_SYNTAXES)
        for context in contexts:
            uid = f"2.25.3{context.id}"
            content = data_set(uid, pixels=bytes(range(256)))
            assert sender.store(uid, content, context=context.id) == 0
            assert ingest.kept[uid] == content
            assert ingest.syntaxes[uid] == context.transfer_syntaxes[0]
        sender.release()


def test_only_syntaxes_whose_pixels_are_not_in_the_object_are_left_out() -> None:
    """NET-03: JPIP leaves them on a server, SMPTE ST 2110 in a stream."""
    left_out = {str(uid) for uid in AllTransferSyntaxes} - {*TRANSFER_SYNTAXES}
    assert [uid for uid in sorted(left_out) if not uid.startswith(PIXELS_ELSEWHERE)] == []
    assert len({*TRANSFER_SYNTAXES}) == len(TRANSFER_SYNTAXES)


def test_what_can_be_decoded_is_told_apart_from_what_is_only_kept() -> None:
    """NET-03: the list that the log has at the start."""
    told = accepted_transfer_syntaxes()
    assert sorted(told["decoded"] + told["kept_only"]) == sorted(TRANSFER_SYNTAXES)
    assert all(map(has_decoder, told["decoded"]))
    assert {EXPLICIT, IMPLICIT, "1.2.840.10008.1.2.4.90"} <= {*told["decoded"]}
    assert "1.2.840.10008.1.2.4.107" in told["kept_only"]


@pytest.mark.parametrize("syntaxes", [(EXPLICIT, IMPLICIT), (IMPLICIT, EXPLICIT)])
def test_of_several_transfer_syntaxes_the_one_that_is_wanted_most_is_taken(
    syntaxes: tuple[str, str], listener: DimseListener
) -> None:
    """NET-03: in our order of preference, whatever the sender's."""
    found = context_syntaxes(
        answer(listener.port, associate_rq(offered([CT_IMAGE_STORAGE], *syntaxes)))
    )
    assert found == {1: EXPLICIT}


def test_each_context_gets_the_result_that_is_true_of_it(listener: DimseListener) -> None:
    """NET-10; PS3.8 table 9-18: 3 no such abstract syntax, 4 no such transfer syntax."""
    contexts = [
        *offered([CT_IMAGE_STORAGE], EXPLICIT),
        Context(id=3, abstract_syntax="1.2.3.4"),
        Context(id=5, abstract_syntax=CT_IMAGE_STORAGE, transfer_syntaxes=("1.2.3.5",)),
        Context(id=7, abstract_syntax="1.2.3.4", transfer_syntaxes=("1.2.3.5",)),
    ]
    assert context_results(answer(listener.port, associate_rq(contexts))) == {
        1: ACCEPTED,
        3: NO_ABSTRACT_SYNTAX,
        5: NO_TRANSFER_SYNTAX,
        7: NO_ABSTRACT_SYNTAX,
    }


def negotiated(listener: DimseListener, *items: bytes) -> dict[int, bytes]:
    """Return what is answered to sub-items of the user information."""
    users = maximum_length(16384) + implementation() + b"".join(items)
    return user_items(answer(listener.port, associate_rq(CONTEXTS, user_items=users)))


def test_one_operation_at_a_time_is_what_is_agreed(listener: DimseListener) -> None:
    """NET-13: without an answer to the window that is asked for, it is 1 and 1 (PS3.7 D.3.3.3)."""
    assert OPERATIONS_WINDOW not in negotiated(listener, operations_window(8, 8))


def test_no_extended_negotiation_is_answered(listener: DimseListener) -> None:
    """NET-14: so nothing of it is agreed (PS3.7 D.3.3.5); the association stands all the same."""
    found = negotiated(
        listener,
        extended(CT_IMAGE_STORAGE, bytes([2, 0, 1, 0, 0, 0])),
        common_extended(CT_IMAGE_STORAGE, "1.2.840.10008.4.2"),
    )
    assert not {EXTENDED, COMMON_EXTENDED} & found.keys()


def test_we_are_scp_whatever_role_is_proposed(listener: DimseListener) -> None:
    """NET-14: no role is selected, so the requestor is SCU and we are SCP (PS3.7 D.3.3.4)."""
    assert ROLE not in negotiated(listener, role(CT_IMAGE_STORAGE, scu=1, scp=1))


def test_the_longest_pdu_is_that_of_the_settings(listener: DimseListener) -> None:
    """NET-12: and the other limits are those that the standard's users expect."""
    settings = DimseListenerSettings()
    assert negotiated(listener)[MAXIMUM_LENGTH] == settings.max_pdu.to_bytes(4, "big")
    assert (settings.max_pdu, settings.dimse_seconds, settings.network_seconds) == (
        131072,
        300,
        120,
    )
    assert settings.acse_seconds <= 10, "an answer within 10 s"
    assert settings.max_associations >= 25
