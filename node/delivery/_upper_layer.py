"""What a requestor puts on the wire and reads from it, as bytes: no socket, no file, no pydicom.

PDUs are those of PS3.8 9.3, command sets those of PS3.7 9.3 and E.1. Whatever a peer sends is
either understood or a `ProtocolError`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NamedTuple

from node.interfaces import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

APPLICATION_CONTEXT: Final = b"1.2.840.10008.3.1.1.1"
OUR_MAX_PDU: Final = 16384  # a response is some 100 bytes
UNSAID_MAX_PDU: Final = 16384  # PS3.8 D.1 wants the item; a peer that leaves it out takes this
PDV_OVERHEAD: Final = 6  # item length, context id, control header: they count in the PDU's length
LEAST_MAX_PDU: Final = PDV_OVERHEAD + 2

COMMAND: Final = 0x01
LAST: Final = 0x02
HAS_NO_DATA_SET: Final = 0x0101
HAS_DATA_SET: Final = 0x0001
MEDIUM: Final = 0x0000

# Elements of the command group (PS3.7 E.1), by element number.
GROUP_LENGTH: Final = 0x0000
AFFECTED_SOP_CLASS_UID: Final = 0x0002
COMMAND_FIELD: Final = 0x0100
MESSAGE_ID: Final = 0x0110
MESSAGE_ID_ANSWERED: Final = 0x0120
PRIORITY: Final = 0x0700
COMMAND_DATA_SET_TYPE: Final = 0x0800
STATUS: Final = 0x0900
AFFECTED_SOP_INSTANCE_UID: Final = 0x1000

_ELEMENT: Final = struct.Struct("<HHI")
_P_DATA: Final = struct.Struct(">BxIIBB")
_PDV: Final = struct.Struct(">IBB")
_FIXED: Final = 68  # bytes of an A-ASSOCIATE PDU before its items


class ProtocolError(Exception):
    """The peer's bytes are not what PS3.8 and PS3.7 ask for; the message says what is wrong."""


class PduType(IntEnum):
    """PDU types (PS3.8 9.3.1)."""

    ASSOCIATE_RQ = 1
    ASSOCIATE_AC = 2
    ASSOCIATE_RJ = 3
    P_DATA = 4
    RELEASE_RQ = 5
    RELEASE_RP = 6
    ABORT = 7


class Command(IntEnum):
    """Command fields (PS3.7 E.1)."""

    C_STORE_RQ = 0x0001
    C_STORE_RSP = 0x8001
    C_ECHO_RQ = 0x0030
    C_ECHO_RSP = 0x8030


class Context(NamedTuple):
    """One presentation context to propose: a SOP class in one transfer syntax."""

    abstract_syntax: str
    transfer_syntax: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Acceptance:
    """What an A-ASSOCIATE-AC says.

    `max_pdu` is the length of the longest P-DATA-TF PDU that the peer takes, in bytes, 0 for any
    (PS3.8 D.1). `accepted` has the transfer syntax of each accepted context by its id,
    `refused` the result (PS3.8 table 9-18) of each of the others.
    """

    max_pdu: int
    accepted: Mapping[int, str]
    refused: Mapping[int, int]


class Response(NamedTuple):
    """The parts of a response's command set that tell what it answers and how."""

    command_field: int
    message_id_answered: int
    status: int


RELEASE_RQ: Final = struct.pack(">BxII", PduType.RELEASE_RQ, 4, 0)
RELEASE_RP: Final = struct.pack(">BxII", PduType.RELEASE_RP, 4, 0)
ABORT: Final = struct.pack(">BxII", PduType.ABORT, 4, 0)  # source 0: the service user


# ---------------------------------------------------------------- association


def context_id(index: int) -> int:
    """Return the id of the context that is proposed at a place, from 0: odd, 1 to 255."""
    return 2 * index + 1


def associate_rq(called: str, calling: str, contexts: Sequence[Context]) -> bytes:
    """Return an A-ASSOCIATE-RQ PDU (PS3.8 9.3.2) for 128 contexts at most."""
    proposed = b"".join(
        _item(
            0x20,
            bytes((context_id(index), 0, 0, 0))
            + _item(0x30, context.abstract_syntax.encode("ascii"))
            + _item(0x40, context.transfer_syntax.encode("ascii")),
        )
        for index, context in enumerate(contexts)
    )
    user = (
        _item(0x51, struct.pack(">I", OUR_MAX_PDU))
        + _item(0x52, IMPLEMENTATION_CLASS_UID.encode("ascii"))
        + _item(0x55, IMPLEMENTATION_VERSION_NAME.encode("ascii"))
    )
    body = (
        struct.pack(">HH16s16s32x", 1, 0, _title(called), _title(calling))
        + _item(0x10, APPLICATION_CONTEXT)
        + proposed
        + _item(0x50, user)
    )
    return struct.pack(">BxI", PduType.ASSOCIATE_RQ, len(body)) + body


def parse_associate_ac(body: bytes) -> Acceptance:
    """Read an A-ASSOCIATE-AC PDU (PS3.8 9.3.3) without its first six bytes.

    Raises:
        ProtocolError: it is malformed, or no P-DATA-TF PDU fits what the peer says it takes.
    """
    max_pdu, accepted, refused = UNSAID_MAX_PDU, {}, {}
    if len(body) < _FIXED:
        raise ProtocolError("its A-ASSOCIATE-AC is cut short")
    for kind, content in _items(memoryview(body)[_FIXED:]):
        if kind == 0x21:  # noqa: PLR2004 - a presentation context (PS3.8 9.3.3.2)
            if len(content) < 4:  # noqa: PLR2004 - id, reserved, result, reserved
                raise ProtocolError("a presentation context of its A-ASSOCIATE-AC is cut short")
            number, result = content[0], content[2]
            if result == 0:
                accepted[number] = _transfer_syntax(content[4:])
            else:
                refused[number] = result
        elif kind == 0x50:  # noqa: PLR2004 - user information (PS3.8 9.3.3.3)
            max_pdu = _max_pdu(content)
    if 0 < max_pdu < LEAST_MAX_PDU:
        raise ProtocolError(f"it takes PDUs of {max_pdu} bytes, into which nothing fits")
    return Acceptance(max_pdu=max_pdu, accepted=accepted, refused=refused)


def _max_pdu(items: memoryview) -> int:
    for kind, value in _items(items):
        if kind == 0x51 and len(value) == 4:  # noqa: PLR2004 - PS3.8 D.1
            return int.from_bytes(value, "big")
    return UNSAID_MAX_PDU


def _transfer_syntax(items: memoryview) -> str:
    for kind, value in _items(items):
        if kind == 0x40:  # noqa: PLR2004 - PS3.8 9.3.3.2.1
            return bytes(value).decode("ascii", "replace").rstrip("\0 ")
    raise ProtocolError("an accepted presentation context names no transfer syntax")


def _item(kind: int, content: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(content)) + content


def _items(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    while data:
        end = 4 + int.from_bytes(data[2:4], "big")
        if len(data) < max(4, end):
            raise ProtocolError("an item of its A-ASSOCIATE-AC is cut short")
        yield data[0], data[4:end]
        data = data[end:]


def _title(title: str) -> bytes:
    return title.encode("ascii", "replace")[:16].ljust(16)


# ---------------------------------------------------------------- messages


def p_data_header(context: int, control: int, length: int) -> bytes:
    """Return what precedes the one fragment of a P-DATA-TF PDU: PDU and PDV header, 12 bytes."""
    return _P_DATA.pack(PduType.P_DATA, length + PDV_OVERHEAD, length + 2, context, control)


def c_store_rq(context: Context, sop_instance_uid: str, message_id: int) -> bytes:
    """Return the command set of a C-STORE-RQ (PS3.7 9.3.1.1), medium priority."""
    return _command_set(
        _uid(AFFECTED_SOP_CLASS_UID, context.abstract_syntax),
        _us(COMMAND_FIELD, Command.C_STORE_RQ),
        _us(MESSAGE_ID, message_id),
        _us(PRIORITY, MEDIUM),
        _us(COMMAND_DATA_SET_TYPE, HAS_DATA_SET),
        _uid(AFFECTED_SOP_INSTANCE_UID, sop_instance_uid),
    )


def c_echo_rq(context: Context, message_id: int) -> bytes:
    """Return the command set of a C-ECHO-RQ (PS3.7 9.3.5.1)."""
    return _command_set(
        _uid(AFFECTED_SOP_CLASS_UID, context.abstract_syntax),
        _us(COMMAND_FIELD, Command.C_ECHO_RQ),
        _us(MESSAGE_ID, message_id),
        _us(COMMAND_DATA_SET_TYPE, HAS_NO_DATA_SET),
    )


def command_fragments(body: bytes, context: int, command: bytearray) -> bool:
    """Add the fragments of one P-DATA-TF PDU to a command set; say whether it is whole.

    Raises:
        ProtocolError: a fragment is malformed, of another context, or no part of a command.
    """
    whole, at = False, 0
    if not body:
        raise ProtocolError("it sent an empty P-DATA-TF PDU")
    while at < len(body):
        if len(body) - at < _PDV.size:
            raise ProtocolError("a PDV is cut short")
        length, number, control = _PDV.unpack_from(body, at)
        end = at + 4 + length
        if length < 2 or end > len(body):  # noqa: PLR2004 - context id and control header
            raise ProtocolError("the length of a PDV is wrong")
        if whole or number != context or not control & COMMAND:
            raise ProtocolError("it sent a PDV that is no part of a response")
        command += body[at + _PDV.size : end]
        whole, at = bool(control & LAST), end
    return whole


def parse_response(command: bytes) -> Response:
    """Read the command set of a response: Implicit VR Little Endian (PS3.7 6.3.1).

    Raises:
        ProtocolError: it is malformed, or an element that every response has is not in it.
    """
    found: dict[int, int] = {}
    at = 0
    while at < len(command):
        if len(command) - at < _ELEMENT.size:
            raise ProtocolError("its response is cut short")
        group, element, length = _ELEMENT.unpack_from(command, at)
        at += _ELEMENT.size
        if group != 0 or length > len(command) - at:
            raise ProtocolError("its response is no command set")
        if length == 2:  # noqa: PLR2004 - a US
            found[element] = int.from_bytes(command[at : at + 2], "little")
        at += length
    try:
        return Response(found[COMMAND_FIELD], found[MESSAGE_ID_ANSWERED], found[STATUS])
    except KeyError as error:
        raise ProtocolError("its response lacks a command field, message ID or status") from error


def _command_set(*elements: bytes) -> bytes:
    content = b"".join(elements)
    return _ELEMENT.pack(0, GROUP_LENGTH, 4) + struct.pack("<I", len(content)) + content


def _uid(element: int, value: str) -> bytes:
    encoded = value.encode("ascii")
    encoded += b"\0" * (len(encoded) % 2)
    return _ELEMENT.pack(0, element, len(encoded)) + encoded


def _us(element: int, value: int) -> bytes:
    return _ELEMENT.pack(0, element, 2) + struct.pack("<H", value)
