"""What a status means to the outbox, whichever way out it came back by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from node.interfaces import SendVerdict, Sent

# A C-STORE response, or the failure or warning reason of an answer over the web
# (PS3.4 table B.2-1, PS3.7 annex C, PS3.18 table I.2-2).
EXACT: Final[Mapping[int, tuple[SendVerdict, str]]] = {
    0x0000: (SendVerdict.ACCEPTED, ""),
    0x0110: (SendVerdict.RETRY, "processing failure"),
    0x0111: (SendVerdict.WARNED, "duplicate SOP instance: it has had it before"),
    0x0112: (SendVerdict.REFUSED, "no such object instance"),
    0x0117: (SendVerdict.REFUSED, "invalid SOP Instance UID"),
    0x0122: (SendVerdict.REFUSED, "SOP class not supported"),
    0x0124: (SendVerdict.REFUSED, "not authorised"),
    0x0210: (SendVerdict.RETRY, "duplicate invocation"),
    0x0211: (SendVerdict.REFUSED, "unrecognised operation"),
    0x0212: (SendVerdict.REFUSED, "mistyped argument"),
    0x0213: (SendVerdict.RETRY, "resource limitation"),
}
BY_GROUP: Final[Mapping[int, tuple[SendVerdict, str]]] = {
    0xA7: (SendVerdict.RETRY, "out of resources"),
    0xA8: (SendVerdict.REFUSED, "refused"),
    0xA9: (SendVerdict.REFUSED, "data set does not match SOP class"),
    0xB0: (SendVerdict.WARNED, "kept, with a warning"),
}
BY_CLASS: Final[Mapping[int, tuple[SendVerdict, str]]] = {
    0xB: (SendVerdict.WARNED, "kept, with a warning"),
    0xC: (SendVerdict.REFUSED, "cannot understand"),
}


def judge(status: int | None) -> Sent:
    """Return what a C-STORE status means; None: no answer came."""
    if status is None:
        return Sent(
            verdict=SendVerdict.UNREACHABLE,
            message="no answer: the association was aborted or timed out",
        )
    found = EXACT.get(status) or BY_GROUP.get(status >> 8) or BY_CLASS.get(status >> 12)
    if found is None:  # it may be a warning
        return Sent(
            verdict=SendVerdict.REFUSED,
            status=status,
            message="unknown status",
            may_be_there=True,
        )
    verdict, meaning = found
    return Sent(verdict=verdict, status=status, message=meaning)
