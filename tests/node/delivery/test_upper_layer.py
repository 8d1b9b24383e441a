"""What is put on the wire is what pynetdicom reads, and nothing that arrives is believed."""

from __future__ import annotations

import struct
from contextlib import suppress
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import UID
from pynetdicom.dsutils import decode
from pynetdicom.pdu import A_ASSOCIATE_RQ

from node.delivery._upper_layer import (
    OUR_MAX_PDU,
    UNSAID_MAX_PDU,
    Acceptance,
    Context,
    ProtocolError,
    associate_rq,
    c_echo_rq,
    c_store_rq,
    command_fragments,
    parse_associate_ac,
    parse_response,
)
from node.interfaces import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from tests.node.delivery.scripted_peer import associate_ac, item, pdv

EXPLICIT = "1.2.840.10008.1.2.1"
CONTEXTS = [Context(f"1.2.840.10008.5.1.4.1.1.{n}", EXPLICIT) for n in range(128)]


def test_pynetdicom_reads_the_request_as_it_is_meant() -> None:
    request = A_ASSOCIATE_RQ()
    request.decode(associate_rq("PACS", "WETREAD", CONTEXTS))
    assert (request.called_ae_title, request.calling_ae_title) == ("PACS", "WETREAD")
    assert request.application_context_name == "1.2.840.10008.3.1.1.1"
    assert [
        (context.context_id, context.abstract_syntax, context.transfer_syntax)
        for context in request.presentation_context
    ] == [
        (2 * index + 1, UID(context.abstract_syntax), [UID(EXPLICIT)])
        for index, context in enumerate(CONTEXTS)
    ]
    user = request.user_information
    assert user is not None
    assert user.maximum_length == OUR_MAX_PDU
    assert user.implementation_class_uid == IMPLEMENTATION_CLASS_UID
    assert user.implementation_version_name == IMPLEMENTATION_VERSION_NAME


@pytest.mark.parametrize("uid", ["1.2.3", "1.2.34"])
def test_command_sets_are_read_as_they_are_meant(uid: str) -> None:
    context = Context("1.2.840.10008.5.1.4.1.1.2", EXPLICIT)
    encoded = c_store_rq(context, uid, 0xFFFF)
    command = decode(BytesIO(encoded), is_implicit_vr=True, is_little_endian=True)
    assert {element.keyword: element.value for element in command} == {
        "CommandGroupLength": len(encoded) - 12,
        "AffectedSOPClassUID": context.abstract_syntax,
        "CommandField": 0x0001,
        "MessageID": 0xFFFF,
        "Priority": 0,
        "CommandDataSetType": 0x0001,
        "AffectedSOPInstanceUID": uid,
    }
    echo = decode(BytesIO(c_echo_rq(context, 7)), is_implicit_vr=True, is_little_endian=True)
    assert (echo.CommandField, echo.MessageID, echo.CommandDataSetType) == (0x0030, 7, 0x0101)


@given(
    st.dictionaries(
        st.integers(0, 255), st.tuples(st.integers(0, 4), st.sampled_from([EXPLICIT, "1.2"]))
    ),
    st.just(0) | st.integers(8, 0xFFFFFFFF),
)
def test_acceptance_is_read_as_it_was_written(
    contexts: dict[int, tuple[int, str]], max_pdu: int
) -> None:
    assert parse_associate_ac(associate_ac(contexts, max_pdu)[6:]) == Acceptance(
        max_pdu=max_pdu,
        accepted={n: syntax for n, (result, syntax) in contexts.items() if result == 0},
        refused={n: result for n, (result, _) in contexts.items() if result},
    )


def test_peer_that_leaves_out_its_maximum_length_takes_the_usual_one() -> None:
    answer = parse_associate_ac(bytes(68) + item(0x50, item(0x52, b"1.2.3")))
    assert answer.max_pdu == UNSAID_MAX_PDU


@given(st.binary(max_size=300), st.integers(0, 300))
def test_no_bytes_make_the_acceptance_fail_in_an_unforeseen_way(noise: bytes, at: int) -> None:
    good = associate_ac(dict.fromkeys((1, 3, 5), (0, EXPLICIT)), 16384)[6:]
    for body in (noise, bytes(68) + noise, good[:at], good[:at] + noise + good[at:]):
        with suppress(ProtocolError):
            parse_associate_ac(body)


@given(st.binary(max_size=200), st.integers(0, 255))
def test_no_bytes_make_a_response_fail_in_an_unforeseen_way(noise: bytes, context: int) -> None:
    with suppress(ProtocolError):
        parse_response(noise)
    for body in (noise, pdv(context, 1, noise), pdv(context, 3, b"") + noise):
        with suppress(ProtocolError):
            command_fragments(body, context, bytearray())


def test_a_last_fragment_ends_a_command_and_nothing_may_follow_it() -> None:
    command = bytearray()
    assert not command_fragments(pdv(5, 1, b"ab") + pdv(5, 1, b""), 5, command)
    assert command_fragments(pdv(5, 1, b"cd") + pdv(5, 3, b"ef"), 5, command)
    assert command == b"abcdef"
    with pytest.raises(ProtocolError, match="no part of a response"):
        command_fragments(pdv(5, 3, b"") + pdv(5, 3, b""), 5, bytearray())


def test_response_is_found_among_other_elements_of_the_command_group() -> None:
    def us(element: int, value: int) -> bytes:
        return struct.pack("<HHIH", 0, element, 2, value)

    comment = struct.pack("<HHI", 0, 0x0902, 4) + b"full"
    response = us(0x0100, 0x8001) + us(0x0120, 9) + us(0x0900, 0xA700) + comment
    assert parse_response(response) == (0x8001, 9, 0xA700)
    with pytest.raises(ProtocolError, match="no command set"):
        parse_response(response[:-1])
