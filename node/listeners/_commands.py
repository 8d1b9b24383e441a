"""Command sets, and P-DATA-TF PDUs of one PDV that carry them (PS3.7 6.3 and 9.3, PS3.8 9.3.5)."""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Final

from node.interfaces import IngestError

P_DATA: Final = 0x04
PDU_AND_PDV: Final = struct.Struct(">BxIIBB")
"""PDU type and length, PDV length, presentation context id, message control header."""
PDV: Final = struct.Struct(">IBB")
HEADING: Final = struct.Struct("<HHI")
"""Group, element and length of an element of a command set (PS3.7 6.3.1)."""
LENGTH_OF_CONTROL: Final = 2  # context id and message control header count as the PDV's (9.3.5.1)
IS_COMMAND: Final = 0x01
IS_LAST: Final = 0x02
"""Bits of the message control header (PS3.8 E.2)."""

C_STORE_RQ: Final = b"\x01\x00"
NO_DATA_SET: Final = b"\x01\x01"
KNOWN_REQUESTS: Final = frozenset(
    struct.pack("<H", field)
    for field in (
        0x0001, 0x0010, 0x0020, 0x0021, 0x0030, 0x0FFF,
        0x0100, 0x0110, 0x0120, 0x0130, 0x0140, 0x0150,
    )
)  # fmt: skip
"""Command Fields of requests (PS3.7 E.1-1): C-STORE, GET, FIND, MOVE, ECHO, CANCEL; N-..."""
LENGTH_OF_US: Final = 2
SUCCESS: Final = 0x0000
"""A procedure step that names 10,000 instances has some 1.3 MB."""
LONGEST_COMMENT: Final = 64  # LO

GROUP_LENGTH: Final = 0x0000
AFFECTED_SOP_CLASS: Final = 0x0002
COMMAND_FIELD: Final = 0x0100
MESSAGE_ID: Final = 0x0110
RESPONDED_TO: Final = 0x0120
DATA_SET_TYPE: Final = 0x0800
STATUS: Final = 0x0900
OFFENDING_ELEMENT: Final = 0x0901
ERROR_COMMENT: Final = 0x0902
AFFECTED_SOP_INSTANCE: Final = 0x1000
"""Elements of group 0000 (PS3.7 E.1)."""


class ProtocolError(Exception):
    """The peer breaks the upper layer protocol or its limits: the association is aborted."""


def store_response(
    context: int,
    message_id: bytes,
    sop_class: bytes,
    sop_instance: bytes,
    error: IngestError | None,
) -> bytes:
    """Return a C-STORE-RSP as one PDU, which goes out in one segment (PS3.7 9.3.1.2)."""
    status, words = (SUCCESS, b"") if error is None else (error.status, _words(error))
    before, behind = _around_message_id(context, sop_class, status, words, len(sop_instance))
    return before + message_id + behind + sop_instance


def _words(error: IngestError) -> bytes:
    """Return Offending Element, where it is one, and Error Comment (PS3.7 C.4.2)."""
    words = b""
    if error.offending is not None:
        tag = struct.pack("<HH", error.offending >> 16, error.offending & 0xFFFF)
        words = _element(OFFENDING_ELEMENT, tag)
    text = str(error)[:LONGEST_COMMENT].encode("ascii", "replace")
    return words + _element(ERROR_COMMENT, text + b" " * (len(text) % 2)) if text else words


@lru_cache(maxsize=512)
def _around_message_id(
    context: int, sop_class: bytes, status: int, words: bytes, uid_length: int
) -> tuple[bytes, bytes]:
    """Return what stands in a C-STORE-RSP before the message id, and from there to the UID."""
    before = (
        _element(AFFECTED_SOP_CLASS, sop_class)
        + _element(COMMAND_FIELD, b"\x01\x80")
        + HEADING.pack(0, RESPONDED_TO, LENGTH_OF_US)
    )
    behind = (
        _element(DATA_SET_TYPE, NO_DATA_SET)
        + _element(STATUS, struct.pack("<H", status))
        + words
        + HEADING.pack(0, AFFECTED_SOP_INSTANCE, uid_length)
    )
    length = len(before) + LENGTH_OF_US + len(behind) + uid_length
    group = _element(GROUP_LENGTH, struct.pack("<I", length))
    length += len(group) + LENGTH_OF_CONTROL
    pdu = PDU_AND_PDV.pack(P_DATA, length + 4, length, context, IS_COMMAND | IS_LAST)
    return pdu + group + before, behind


def _element(element: int, value: bytes) -> bytes:
    return HEADING.pack(0x0000, element, len(value)) + value


def whole_pdu(context: int, control: int, content: bytes | bytearray) -> bytes:
    """Return a P-DATA-TF PDU with one PDV."""
    length = len(content) + LENGTH_OF_CONTROL
    return PDU_AND_PDV.pack(P_DATA, length + 4, length, context, control) + content


def read_command(command: bytes | bytearray) -> dict[int, bytes]:
    """Return the elements of a command set (implicit VR little endian, PS3.7 6.3.1).

    Raises:
        ProtocolError: it is no such thing.
    """
    found: dict[int, bytes] = {}
    content, heading = bytes(command), HEADING.unpack_from
    position, end = 0, len(content)
    while position < end:
        if position + 8 > end:
            raise ProtocolError("a command ends inside an element")
        group, element, length = heading(content, position)
        value = position + 8
        position = value + length
        if group != 0 or position > end:
            raise ProtocolError("a command holds something else than its group")
        found[element] = content[value:position]
    return found
