"""What a store answer over the web says of one object (PS3.18 10.5.3, tables I.2-1 and I.2-2)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, cast

from node.delivery._statuses import judge
from node.interfaces import SendVerdict, Sent

MOST_ANSWER: Final = 1 << 20
"""Bytes of an answer to one object; those of real archives have some hundreds."""

SOP_INSTANCE: Final = "00081155"
WARNING_REASON: Final = "00081196"
FAILURE_REASON: Final = "00081197"
FAILED: Final = "00081198"
REFERENCED: Final = "00081199"
OTHER_FAILURES: Final = "0008119A"

# What an answer means that gives no reason of its own for the object (PS3.18 table 10.5.3-1).
BY_STATUS: Final[Mapping[int, tuple[SendVerdict, str]]] = {
    401: (SendVerdict.UNREACHABLE, "it wants other credentials"),
    403: (SendVerdict.UNREACHABLE, "it does not let us in"),
    404: (SendVerdict.UNREACHABLE, "there is no store service at this address"),
    405: (SendVerdict.UNREACHABLE, "there is no store service at this address"),
    407: (SendVerdict.UNREACHABLE, "a proxy wants credentials"),
    408: (SendVerdict.RETRY, "it waited too long for the object"),
    409: (SendVerdict.REFUSED, "it took no object, without a reason"),
    410: (SendVerdict.UNREACHABLE, "there is no store service at this address any more"),
    413: (SendVerdict.REFUSED, "the object is too large for it"),
    415: (SendVerdict.REFUSED, "it does not take this media type"),
    425: (SendVerdict.RETRY, "it is not ready"),
    429: (SendVerdict.RETRY, "it takes no more for now"),
    500: (SendVerdict.RETRY, "processing failure"),
    503: (SendVerdict.RETRY, "it is busy"),
    507: (SendVerdict.RETRY, "out of resources"),
}
BY_HUNDRED: Final[Mapping[int, tuple[SendVerdict, str]]] = {
    2: (SendVerdict.RETRY, "it does not say that it kept the object"),
    3: (SendVerdict.UNREACHABLE, "it is at another address now"),
    4: (SendVerdict.REFUSED, "it does not understand the request"),
    5: (SendVerdict.UNREACHABLE, "it does not work"),
}
NO_SERVICE: Final = "this is no store service: its answer is no DICOM JSON"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back: status line, media type, and the whole body."""

    status: int
    content_type: str
    content: bytes
    retry_later: bool = False  # it said when to come again


def judge_answer(answer: Answer, sop_instance_uid: str) -> Sent:
    """Return what became of the object that was sent.

    An answer counts as success only if it names the object: a web server that answers 200 to
    whatever it is sent keeps nothing.
    """
    found = _read(answer)
    if found is not None:
        said = _said_of(found, sop_instance_uid, kept=answer.status // 100 == HTTPStatus.OK // 100)
        if said is not None:
            return said
    if answer.status // 100 == HTTPStatus.OK // 100 and found is None:
        return _worded(SendVerdict.UNREACHABLE, answer.status, NO_SERVICE)
    if answer.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE and answer.retry_later:
        return _worded(SendVerdict.RETRY, answer.status, "it has no room for the object now")
    return judge_status(answer.status)


def judge_status(status: int) -> Sent:
    """Return what an HTTP status alone means."""
    verdict, meaning = BY_STATUS.get(
        status, BY_HUNDRED.get(status // 100, (SendVerdict.UNREACHABLE, "unknown status"))
    )
    return _worded(verdict, status, meaning)


def _worded(verdict: SendVerdict, status: int, meaning: str) -> Sent:
    """Word it; what a client did wrong was not done, while behind a gateway it may have been."""
    kept = None if status // 100 in {2, 5} else False
    return Sent(verdict=verdict, message=f"HTTP {status}: {meaning}", may_be_there=kept)


def _said_of(found: Mapping[str, object], sop_instance_uid: str, *, kept: bool) -> Sent | None:
    for item in _items(found, FAILED):
        if _text(item, SOP_INSTANCE) == sop_instance_uid:
            return _failed(item)
    for item in _items(found, REFERENCED):
        if kept and _text(item, SOP_INSTANCE) == sop_instance_uid:
            reason = _number(item, WARNING_REASON)
            return judge(reason or 0x0000)
    for item in _items(found, OTHER_FAILURES):  # nothing else was sent with it
        return _failed(item)
    return None


def _failed(item: Mapping[str, object]) -> Sent:
    reason = _number(item, FAILURE_REASON)
    if reason is None:
        return Sent(verdict=SendVerdict.REFUSED, message="refused, without a reason")
    sent = judge(reason)
    if sent.verdict is SendVerdict.ACCEPTED:  # a failure of reason 0 is none
        return Sent(verdict=SendVerdict.REFUSED, status=reason, message="refused, reason 0")
    return sent


def _read(answer: Answer) -> Mapping[str, object] | None:
    """Return the data set of an answer; None: it is none in JSON (PS3.18 F.2)."""
    if "json" not in answer.content_type.lower():
        return None
    try:
        found: object = json.loads(answer.content)
    except (ValueError, RecursionError):
        return None
    if isinstance(found, list) and len(found) == 1:  # some give an array of one
        found = found[0]
    return cast("Mapping[str, object]", found) if isinstance(found, dict) else None


def _values(item: Mapping[str, object], tag: str) -> list[object]:
    element = item.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return values if isinstance(values, list) else []


def _items(item: Mapping[str, object], tag: str) -> Iterator[Mapping[str, object]]:
    return (value for value in _values(item, tag) if isinstance(value, dict))


def _text(item: Mapping[str, object], tag: str) -> str:
    return next((value for value in _values(item, tag) if isinstance(value, str)), "")


def _number(item: Mapping[str, object], tag: str) -> int | None:
    for value in _values(item, tag):
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 0xFFFF:  # noqa: PLR2004 - US
            return value
        if isinstance(value, str) and value.isascii() and value.isdigit():
            return int(value[:5]) & 0xFFFF
    return None
