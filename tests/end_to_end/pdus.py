"""PDUs and DIMSE messages byte by byte, right ones and wrong ones; independent of pynetdicom.

PS3.8 9.3 (upper layer PDUs), annex E.2 (message control header), PS3.7 annex D.3 (user
information), 6.3 and annex E (command sets). Every length can be set apart from its content.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

APPLICATION_CONTEXT: Final = "1.2.840.10008.3.1.1.1"
VERIFICATION: Final = "1.2.840.10008.1.1"
CT_IMAGE_STORAGE: Final = "1.2.840.10008.5.1.4.1.1.2"
MR_IMAGE_STORAGE: Final = "1.2.840.10008.5.1.4.1.1.4"
IMPLICIT: Final = "1.2.840.10008.1.2"
EXPLICIT: Final = "1.2.840.10008.1.2.1"
DEFLATED: Final = "1.2.840.10008.1.2.1.99"
RLE: Final = "1.2.840.10008.1.2.5"
PROCEDURE_STEP: Final = "1.2.840.10008.3.1.2.3.3"
IMPLEMENTATION_CLASS_UID: Final = "2.25.151515"

# PDU types (PS3.8 9.3.1).
ASSOCIATE_RQ: Final = 0x01
ASSOCIATE_AC: Final = 0x02
ASSOCIATE_RJ: Final = 0x03
P_DATA: Final = 0x04
RELEASE_RQ: Final = 0x05
RELEASE_RP: Final = 0x06
ABORT: Final = 0x07

# Message control header (PS3.8 E.2): bit 0 command, bit 1 last fragment.
DATA: Final = 0x00
COMMAND: Final = 0x01
LAST_DATA: Final = 0x02
LAST_COMMAND: Final = 0x03

# Command fields and their responses (PS3.7 E.1-1).
C_STORE_RQ: Final = 0x0001
C_STORE_RSP: Final = 0x8001
C_ECHO_RQ: Final = 0x0030
C_ECHO_RSP: Final = 0x8030
N_CREATE_RQ: Final = 0x0140
NO_DATA_SET: Final = 0x0101
WITH_DATA_SET: Final = 0x0001

# Elements of a command set, group 0000 (PS3.7 E.1).
AFFECTED_SOP_CLASS_UID: Final = 0x0002
COMMAND_FIELD: Final = 0x0100
MESSAGE_ID: Final = 0x0110
MESSAGE_ID_RESPONDED: Final = 0x0120
PRIORITY: Final = 0x0700
DATA_SET_TYPE: Final = 0x0800
STATUS: Final = 0x0900
AFFECTED_SOP_INSTANCE_UID: Final = 0x1000


@dataclass(frozen=True, kw_only=True)
class Context:
    """One proposed presentation context (PS3.8 9.3.2.2)."""

    id: int
    abstract_syntax: str
    transfer_syntaxes: Sequence[str] = (EXPLICIT, IMPLICIT)


ECHO_CONTEXT: Final = Context(id=1, abstract_syntax=VERIFICATION, transfer_syntaxes=(IMPLICIT,))
CT_CONTEXT: Final = Context(id=3, abstract_syntax=CT_IMAGE_STORAGE, transfer_syntaxes=(EXPLICIT,))
CONTEXTS: Final = (ECHO_CONTEXT, CT_CONTEXT)


# ---------------------------------------------------------------- upper layer


def pdu(kind: int, content: bytes, *, length: int | None = None) -> bytes:
    """Return a PDU; `length` may lie about the content."""
    said = len(content) if length is None else length
    return struct.pack(">BBI", kind, 0, said) + content


def item(kind: int, content: bytes, *, length: int | None = None) -> bytes:
    """Return an item or sub-item with its 16-bit length (PS3.8 9.3.2)."""
    said = len(content) if length is None else length
    return struct.pack(">BBH", kind, 0, said) + content


def context_item(context: Context) -> bytes:
    """Return the item of a proposed presentation context (PS3.8 9.3.2.2)."""
    syntaxes = b"".join(item(0x40, uid.encode()) for uid in context.transfer_syntaxes)
    abstract = item(0x30, context.abstract_syntax.encode())
    return item(0x20, bytes([context.id, 0, 0, 0]) + abstract + syntaxes)


def maximum_length(size: int) -> bytes:
    """Return the sub-item that says how large a PDU the sender takes (PS3.8 D.1)."""
    return item(0x51, struct.pack(">I", size))


def implementation() -> bytes:
    """Return the two sub-items that name an implementation (PS3.7 D.3.3.2)."""
    return item(0x52, IMPLEMENTATION_CLASS_UID.encode()) + item(0x55, b"PDUS")


def operations_window(invoked: int, performed: int) -> bytes:
    """Return the sub-item that asks for several operations at a time (PS3.7 D.3.3.3)."""
    return item(0x53, struct.pack(">HH", invoked, performed))


def role(sop_class_uid: str, *, scu: int, scp: int) -> bytes:
    """Return the sub-item that proposes roles for a SOP class (PS3.7 D.3.3.4)."""
    return item(0x54, _counted(sop_class_uid.encode()) + bytes([scu, scp]))


def extended(sop_class_uid: str, information: bytes) -> bytes:
    """Return the sub-item of a SOP class's extended negotiation (PS3.7 D.3.3.5)."""
    return item(0x56, _counted(sop_class_uid.encode()) + information)


def common_extended(sop_class_uid: str, service_class_uid: str) -> bytes:
    """Return the sub-item that names a SOP class's service class (PS3.7 D.3.3.6)."""
    named = _counted(sop_class_uid.encode()) + _counted(service_class_uid.encode())
    return item(0x57, named + bytes(2))


def _counted(content: bytes) -> bytes:
    return struct.pack(">H", len(content)) + content


def associate_rq(
    contexts: Sequence[Context] = CONTEXTS,
    *,
    calling: bytes = b"SCANNER",
    called: bytes = b"WETREAD",
    version: int = 1,
    application_context: str = APPLICATION_CONTEXT,
    user_items: bytes | None = None,
) -> bytes:
    """Return an A-ASSOCIATE-RQ (PS3.8 table 9-11); titles are padded to 16 with blanks."""
    titles = called.ljust(16)[:16] + calling.ljust(16)[:16]
    users = maximum_length(16384) + implementation() if user_items is None else user_items
    return pdu(
        ASSOCIATE_RQ,
        struct.pack(">HH", version, 0)
        + titles
        + bytes(32)
        + item(0x10, application_context.encode())
        + b"".join(map(context_item, contexts))
        + item(0x50, users),
    )


def release_rq() -> bytes:
    """Return an A-RELEASE-RQ (PS3.8 9.3.6)."""
    return pdu(RELEASE_RQ, bytes(4))


def abort(source: int = 0, reason: int = 0) -> bytes:
    """Return an A-ABORT (PS3.8 9.3.8)."""
    return pdu(ABORT, bytes([0, 0, source, reason]))


def pdv(context: int, control: int, fragment: bytes, *, length: int | None = None) -> bytes:
    """Return a presentation-data-value item (PS3.8 9.3.5.1); its length counts id and header."""
    said = len(fragment) + 2 if length is None else length
    return struct.pack(">IBB", said & 0xFFFFFFFF, context & 0xFF, control & 0xFF) + fragment


def p_data(*items: bytes, length: int | None = None) -> bytes:
    """Return a P-DATA-TF PDU with these PDV items."""
    return pdu(P_DATA, b"".join(items), length=length)


def fragments(content: bytes, size: int) -> list[bytes]:
    """Cut a message into fragments of a size; an empty one is one empty fragment."""
    return [content[at : at + size] for at in range(0, len(content), size)] or [b""]


def message(context: int, content: bytes, *, command: bool, size: int = 16372) -> list[bytes]:
    """Return the PDV items of a command set or a data set, the last one marked as last."""
    parts = fragments(content, size)
    plain, last = (COMMAND, LAST_COMMAND) if command else (DATA, LAST_DATA)
    controls = [plain] * (len(parts) - 1) + [last]
    return [pdv(context, *pair) for pair in zip(controls, parts, strict=True)]


# ---------------------------------------------------------------- command sets


def command_set(elements: Mapping[int, bytes | str | int]) -> bytes:
    """Return a command set: group 0000, Implicit VR Little Endian (PS3.7 6.3.1).

    Numbers become US, strings UI padded with NUL, bytes go as they are.
    """
    body = b""
    for element, value in sorted(elements.items()):
        if isinstance(value, int):
            raw = struct.pack("<H", value & 0xFFFF)
        else:
            raw = value.encode() if isinstance(value, str) else value
            raw += bytes(len(raw) % 2)
        body += struct.pack("<HHI", 0, element, len(raw)) + raw
    return struct.pack("<HHII", 0, 0, 4, len(body)) + body


def c_echo_rq(message_id: int = 1) -> bytes:
    """Return the command set of a C-ECHO-RQ (PS3.7 table 9.3-12)."""
    return command_set(
        {
            AFFECTED_SOP_CLASS_UID: VERIFICATION,
            COMMAND_FIELD: C_ECHO_RQ,
            MESSAGE_ID: message_id,
            DATA_SET_TYPE: NO_DATA_SET,
        }
    )


def c_store_rq(
    sop_instance_uid: bytes | str,
    *,
    message_id: int = 1,
    sop_class_uid: bytes | str = CT_IMAGE_STORAGE,
    data_set_type: int = WITH_DATA_SET,
) -> bytes:
    """Return the command set of a C-STORE-RQ (PS3.7 table 9.3-1)."""
    return command_set(
        {
            AFFECTED_SOP_CLASS_UID: sop_class_uid,
            COMMAND_FIELD: C_STORE_RQ,
            MESSAGE_ID: message_id,
            PRIORITY: 0,
            DATA_SET_TYPE: data_set_type,
            AFFECTED_SOP_INSTANCE_UID: sop_instance_uid,
        }
    )


def n_create_rq(sop_instance_uid: bytes | str, *, message_id: int = 1) -> bytes:
    """Return the command set of an N-CREATE-RQ of a procedure step (PS3.7 table 10.3-9)."""
    return command_set(
        {
            AFFECTED_SOP_CLASS_UID: PROCEDURE_STEP,
            COMMAND_FIELD: N_CREATE_RQ,
            MESSAGE_ID: message_id,
            DATA_SET_TYPE: WITH_DATA_SET,
            AFFECTED_SOP_INSTANCE_UID: sop_instance_uid,
        }
    )


# ---------------------------------------------------------------- data sets


def element(tag: int, vr: str, value: bytes | str, *, length: int | None = None) -> bytes:
    """Return an element in Explicit VR Little Endian (PS3.5 7.1.2); `length` may lie."""
    raw = value.encode() if isinstance(value, str) else value
    raw += (b"\0" if vr in {"UI", "OB", "OW", "UN"} else b" ") * (len(raw) % 2)
    said = len(raw) if length is None else length
    if vr in {"OB", "OW", "SQ", "UN", "UT"}:
        return struct.pack("<HH2sHI", tag >> 16, tag & 0xFFFF, vr.encode(), 0, said) + raw
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr.encode(), said & 0xFFFF) + raw


def data_set(
    sop_instance_uid: bytes | str,
    *,
    sop_class_uid: bytes | str = CT_IMAGE_STORAGE,
    study_instance_uid: bytes | str = "2.25.7001",
    series_instance_uid: bytes | str = "2.25.7002",
    before_study: bytes = b"",
    pixels: bytes = b"",
) -> bytes:
    """Return a small data set in Explicit VR Little Endian; `before_study` lies before (0020,)."""
    return (
        element(0x00080016, "UI", sop_class_uid)
        + element(0x00080018, "UI", sop_instance_uid)
        + element(0x00080060, "CS", "CT")
        + element(0x00100010, "PN", "Made^Up")
        + element(0x00100020, "LO", "P1")
        + before_study
        + element(0x0020000D, "UI", study_instance_uid)
        + element(0x0020000E, "UI", series_instance_uid)
        + element(0x00200013, "IS", "1")
        + element(0x7FE00010, "OW", pixels)
    )


# ---------------------------------------------------------------- what comes back


def pdvs(content: bytes) -> list[tuple[int, int, bytes]]:
    """Return (context, control, fragment) of every PDV of a P-DATA-TF's content."""
    found = []
    while content:
        length, context, control = struct.unpack_from(">IBB", content)
        found.append((context, control, content[6 : 4 + length]))
        content = content[4 + length :]
    return found


def command_elements(content: bytes) -> dict[int, bytes]:
    """Return the elements of a command set by their number."""
    found = {}
    while content:
        _, number, length = struct.unpack_from("<HHI", content)
        found[number] = content[8 : 8 + length]
        content = content[8 + length :]
    return found


def number(raw: bytes) -> int:
    """Return the value of a US element."""
    return int.from_bytes(raw[:2], "little")


def context_results(content: bytes) -> dict[int, int]:
    """Return presentation context id -> result of an A-ASSOCIATE-AC's content (PS3.8 9.3.3.2)."""
    return {value[0]: value[2] for kind, value in _items(content[68:]) if kind == 0x21}


def context_syntaxes(content: bytes) -> dict[int, str]:
    """Return presentation context id -> transfer syntax of those that were accepted."""
    return {
        value[0]: value[8:].decode()
        for kind, value in _items(content[68:])
        if kind == 0x21 and value[2] == 0
    }


def user_items(content: bytes) -> dict[int, bytes]:
    """Return the sub-items of the user information of an A-ASSOCIATE-AC's content, by type."""
    (users,) = [value for kind, value in _items(content[68:]) if kind == 0x50]
    return dict(_items(users))


def _items(content: bytes) -> list[tuple[int, bytes]]:
    found = []
    while content:
        kind, _, length = struct.unpack_from(">BBH", content)
        found.append((kind, content[4 : 4 + length]))
        content = content[4 + length :]
    return found
