"""Tells who asks for it of PDUs that go past pynetdicom's own reading and sending.

EVT_DATA_RECV, EVT_PDU_RECV, EVT_DATA_SENT and EVT_PDU_SENT are told of a C-STORE's PDUs as of all
others; where nobody is bound, no PDU is put together. EVT_C_STORE and EVT_DIMSE_RECV have no
meaning for a C-STORE here: its data set goes to the intake, and no message is made of it.
"""

from __future__ import annotations

import struct
from typing import Final

from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.dul import _PDU_TYPES

HEADER: Final = struct.Struct(">BxI")  # type and length of a PDU (PS3.8 9.3.1)


class PduNotices:
    """What arrives on one association, put together to PDUs while somebody listens."""

    def __init__(self, association: Association) -> None:
        self._association = association
        self._content = bytearray()
        self.listening = False

    def look(self, *, inside_pdu: bool) -> None:
        """Look whether somebody listens now; who begins to in mid-PDU is told from the next on."""
        wanted = _is_bound(self._association, evt.EVT_DATA_RECV, evt.EVT_PDU_RECV)
        self.listening = wanted and (self.listening or not inside_pdu)
        if not wanted:
            self._content.clear()

    def take(self, content: memoryview) -> None:
        """Take bytes in the order in which they arrived; tell of each PDU that is whole."""
        self._content += content
        while len(self._content) >= HEADER.size:
            end = HEADER.size + HEADER.unpack_from(self._content)[1]
            if len(self._content) < end:
                return
            whole = bytes(self._content[:end])
            del self._content[:end]
            _tell(self._association, whole, evt.EVT_DATA_RECV, evt.EVT_PDU_RECV)


def tell_sent(association: Association, content: bytes) -> None:
    """Tell of a whole PDU that was sent."""
    if _is_bound(association, evt.EVT_DATA_SENT, evt.EVT_PDU_SENT):
        _tell(association, content, evt.EVT_DATA_SENT, evt.EVT_PDU_SENT)


def _is_bound(
    association: Association, of_bytes: evt.NotificationEvent, of_pdu: evt.NotificationEvent
) -> bool:
    handlers = association._handlers  # without a call: it is asked at every read
    return bool(handlers.get(of_bytes) or handlers.get(of_pdu))


def _tell(
    association: Association,
    content: bytes,
    of_bytes: evt.NotificationEvent,
    of_pdu: evt.NotificationEvent,
) -> None:
    evt.trigger(association, of_bytes, {"data": content})
    if association.get_handlers(of_pdu):
        kind, _ = _PDU_TYPES[content[:1]]
        pdu = kind()
        pdu.decode(content)
        evt.trigger(association, of_pdu, {"pdu": pdu})
