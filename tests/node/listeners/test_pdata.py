"""P-DATA taken apart in place: every fragmentation gives the same instances and answers."""

from __future__ import annotations

import io
import itertools
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.filereader import read_dataset
from pynetdicom.pdu import P_DATA_TF

from node.interfaces import (
    CannotUnderstand,
    DataSetMismatch,
    IngestError,
    OutOfResources,
    Source,
    TooLarge,
)
from node.listeners._commands import ProtocolError, read_command
from node.listeners._pdata import Context, MessageStream, Step
from tests.node.listeners.receiving import KeepingIngest

CT = "1.2.840.10008.5.1.4.1.1.2"
ECHO = "1.2.840.10008.1.1"
MPPS = "1.2.840.10008.3.1.2.3.3"
LITTLE = "1.2.840.10008.1.2.1"
CONTEXTS = {1: Context(CT, LITTLE), 3: Context(CT, "1.2.840.10008.1.2"), 5: Context(ECHO, LITTLE)}
OTHERS = {**CONTEXTS, 7: Context(MPPS, LITTLE), 9: Context(MPPS, LITTLE)}
BUFFER = 4096


def command(number: int, **elements: bytes) -> bytes:
    """Return a command set; elements by their number as `e0110=...`."""
    found = {0x0100: struct.pack("<H", number)}
    found |= {int(name[1:], 16): value for name, value in elements.items()}
    body = b"".join(
        struct.pack("<HHI", 0, tag, len(found[tag])) + found[tag] for tag in sorted(found)
    )
    return struct.pack("<HHII", 0, 0, 4, len(body)) + body


def store_request(uid: str, message_id: int = 1, sop_class: str = CT, data: int = 1) -> bytes:
    return command(
        0x0001,
        e0002=padded(sop_class),
        e0110=struct.pack("<H", message_id),
        e0700=b"\0\0",
        e0800=struct.pack("<H", data),
        e1000=padded(uid),
    )


def echo_request(message_id: int = 9) -> bytes:
    return command(
        0x0030,
        e0002=padded(ECHO),
        e0110=struct.pack("<H", message_id),
        e0800=struct.pack("<H", 0x0101),
    )


def padded(uid: str) -> bytes:
    content = uid.encode()
    return content + b"\0" * (len(content) % 2)


def pdv(context: int, control: int, content: bytes) -> bytes:
    return struct.pack(">IBB", len(content) + 2, context, control) + content


def pdu(*pdvs: bytes) -> bytes:
    body = b"".join(pdvs)
    return struct.pack(">BxI", 4, len(body)) + body


def message(context: int, request: bytes, data: bytes | None = None) -> bytes:
    """Return a message in one PDU for the command and one for the data set."""
    whole = pdu(pdv(context, 3, request))
    return whole if data is None else whole + pdu(pdv(context, 2, data))


@dataclass
class Desk:
    """A stream, with what it answered and handed on."""

    contexts: dict[int, Context] = field(default_factory=lambda: dict(CONTEXTS))
    answers: list[bytes] = field(default_factory=list)
    passed: list[bytes] = field(default_factory=list)
    refused: list[IngestError] = field(default_factory=list)
    longest_pdu: int = 1 << 16

    def __post_init__(self) -> None:
        self.ingest = KeepingIngest()
        self.buffer = bytearray(BUFFER)
        self.stream = MessageStream(
            self.buffer,
            self.ingest.open(Source(listener="test")),
            self.contexts,
            self.longest_pdu,
            self.answers.append,
            self.refused.append,
            lambda error: CannotUnderstand(f"incident {type(error).__name__}"),
        )
        self._start = self._stop = 0

    def feed(self, content: bytes) -> Step:
        """Let bytes arrive; return why the stream stopped last."""
        step = Step.MORE
        while content:
            if self._stop in {BUFFER, self._start}:
                self.stream.flush()
                rest = self._stop - self._start
                self.buffer[:rest] = self.buffer[self._start : self._stop]
                self._start, self._stop = 0, rest
            count = min(len(content), BUFFER - self._stop)
            self.buffer[self._stop : self._stop + count] = content[:count]
            self._stop += count
            content = content[count:]
            step = self._take()
        return step

    def _take(self) -> Step:
        while True:
            step, self._start = self.stream.take(self._start, self._stop)
            if step is Step.PASSED:
                self.passed.append(self.stream.passed)
            elif step is not Step.STORED:
                return step

    def statuses(self) -> list[int]:
        return [
            struct.unpack("<H", read_command(answer[12:])[0x0900])[0] for answer in self.answers
        ]


@st.composite
def fragmented(draw: st.DrawFn) -> tuple[dict[str, bytes], int, bytes]:
    """Return instances, a number of echoes, and one of the many byte streams that carry them."""
    instances: dict[str, bytes] = {}
    echoes = 0
    pdvs: list[bytes] = []
    for number in range(draw(st.integers(1, 4))):
        if draw(st.booleans()):
            echoes += 1
            pdvs += draw(cut(5, 1, echo_request(number)))
        uid, context = f"1.2.{number}", draw(st.sampled_from([1, 3]))
        data = draw(st.binary(max_size=6000))
        instances[uid] = data
        pdvs += draw(cut(context, 1, store_request(uid, number)))
        pdvs += draw(cut(context, 0, data))
    stream = b""
    while pdvs:
        count = draw(st.integers(1, len(pdvs)))
        stream += pdu(*pdvs[:count])
        del pdvs[:count]
    return instances, echoes, stream


@st.composite
def cut(draw: st.DrawFn, context: int, kind: int, content: bytes) -> list[bytes]:
    """Return a command (1) or data set (0) in PDVs of any lengths, some of them empty."""
    places = sorted(draw(st.lists(st.integers(0, len(content)), max_size=6)))
    bounds = [0, *places, len(content)]
    parts = [content[a:b] for a, b in itertools.pairwise(bounds)]
    return [pdv(context, kind | 2 * (at == len(parts) - 1), part) for at, part in enumerate(parts)]


@given(fragmented(), st.lists(st.integers(1, 5000), min_size=1, max_size=5))
@settings(max_examples=300, deadline=None)
def test_every_fragmentation_gives_the_same_instances(
    content: tuple[dict[str, bytes], int, bytes], steps: Sequence[int]
) -> None:
    instances, echoes, stream = content
    desk = Desk()
    position = number = 0
    while position < len(stream):
        step = steps[number % len(steps)]
        desk.feed(stream[position : position + step])
        position, number = position + step, number + 1
    assert desk.ingest.kept == instances
    assert desk.statuses() == [0] * len(instances)
    assert len(desk.passed) == echoes
    assert not desk.stream.inside_pdu


def test_the_answer_is_one_pdu_that_pynetdicom_reads() -> None:
    desk = Desk()
    desk.feed(message(1, store_request("1.2.3", 77), b"data"))
    answer = P_DATA_TF()
    answer.decode(desk.answers[0])
    (item,) = answer.presentation_data_value_items
    assert item.presentation_context_id == 1
    value = item.presentation_data_value
    assert value is not None
    assert value[0] == 3
    found = read_dataset(io.BytesIO(value[1:]), is_implicit_VR=True, is_little_endian=True)
    assert found.CommandField == 0x8001
    assert found.MessageIDBeingRespondedTo == 77
    assert (found.Status, found.CommandDataSetType) == (0, 0x0101)
    assert (found.AffectedSOPClassUID, found.AffectedSOPInstanceUID) == (CT, "1.2.3")
    assert found.CommandGroupLength == len(value) - 1 - 12


@pytest.mark.parametrize("size", [0, 10, 5000, 20_000])
def test_a_refusal_lets_the_data_set_pass_and_the_next_one_is_stored(size: int) -> None:
    desk = Desk()
    desk.ingest.errors = [OutOfResources("the disk is full")]
    desk.feed(message(1, store_request("1.2.3"), bytes(size)))
    desk.feed(message(1, store_request("1.2.4"), b"next"))
    assert desk.statuses() == [0xA700, 0]
    assert desk.ingest.kept == {"1.2.4": b"next"}
    assert read_command(desk.answers[0][12:])[0x0902] == b"the disk is full"
    assert [error.status for error in desk.refused] == [0xA700]


def test_a_refusal_names_the_element_that_is_wrong() -> None:
    """PS3.7 C.4.2: Offending Element and Error Comment, in the order of their tags."""
    desk = Desk()
    desk.ingest.errors = [DataSetMismatch("it differs", offending=0x00080018)]
    desk.feed(message(1, store_request("1.2.3"), b"data"))
    elements = read_command(desk.answers[0][12:])
    assert elements[0x0901] == b"\x08\x00\x18\x00"
    assert elements[0x0902] == b"it differs"
    assert [*elements] == sorted(elements)


def test_an_error_that_nobody_expected_is_answered_as_an_incident() -> None:
    desk = Desk()
    desk.ingest.errors = [KeyError("DOE^JANE")]
    desk.feed(message(1, store_request("1.2.3"), b"data"))
    assert desk.statuses() == [0xC000]
    assert read_command(desk.answers[0][12:])[0x0902].strip() == b"incident KeyError"


def test_an_object_that_is_too_large_is_cut_off() -> None:
    desk = Desk()
    desk.feed(pdu(pdv(1, 3, store_request("1.2.3"))))
    desk.stream._intake.write = raising(TooLarge("too large"))  # type: ignore[method-assign]
    with pytest.raises(ProtocolError, match="too large"):
        desk.feed(pdu(pdv(1, 0, bytes(20_000))))
    assert desk.answers == []
    assert [error.status for error in desk.refused] == [0xA700]


def raising(error: Exception):  # type: ignore[no-untyped-def]  # noqa: ANN201
    def act(_: object) -> None:
        raise error

    return act


def test_a_message_of_another_service_is_handed_on_whole() -> None:
    desk = Desk(contexts=OTHERS)
    request = command(
        0x0140, e0002=padded(MPPS), e0110=b"\x01\0", e0800=b"\x01\0", e1000=padded("1.2")
    )
    desk.feed(pdu(pdv(7, 1, request[:20])) + pdu(pdv(7, 3, request[20:]), pdv(7, 0, b"first")))
    desk.feed(pdu(pdv(7, 2, b"second")))
    desk.feed(message(1, store_request("1.2.3"), b"data"))
    assert desk.passed == [
        pdu(pdv(7, 3, request)),
        pdu(pdv(7, 0, b"first")),
        pdu(pdv(7, 2, b"second")),
    ]
    assert desk.ingest.kept == {"1.2.3": b"data"}


def test_an_echo_between_the_fragments_of_a_data_set_is_handed_on() -> None:
    desk = Desk()
    desk.feed(pdu(pdv(1, 3, store_request("1.2.3"))) + pdu(pdv(1, 0, b"first ")))
    desk.feed(message(5, echo_request()))
    desk.feed(pdu(pdv(1, 2, b"second")))
    assert desk.passed == [pdu(pdv(5, 3, echo_request()))]
    assert desk.ingest.kept == {"1.2.3": b"first second"}


def test_a_store_without_a_data_set_is_refused() -> None:
    desk = Desk()
    desk.feed(message(1, store_request("1.2.3", data=0x0101)))
    assert desk.statuses() == [0xC000]
    assert desk.ingest.kept == {}


def test_a_sop_class_that_is_not_the_contexts_is_refused() -> None:
    desk = Desk()
    desk.feed(message(1, store_request("1.2.3", sop_class=ECHO), b"data"))
    assert desk.statuses() == [0xA900]


def test_a_pdu_of_another_type_is_left_where_it_stands() -> None:
    desk = Desk()
    assert desk.feed(message(1, store_request("1.2.3"), b"data") + b"\x05\0") is Step.OTHER_PDU
    assert desk.buffer[desk._start] == 5


LONG = struct.pack("<HHI", 0, 0x0902, 20_000) + bytes(20_000)
BROKEN = {
    "longer than was announced": struct.pack(">BxIIBB", 4, 0xFFFFFFFF, 100, 1, 3),
    "no PDV": struct.pack(">BxI", 4, 0) + bytes(6),
    "PDV longer than its PDU": struct.pack(">BxIIBB", 4, 20, 17, 1, 3),
    "PDV too short": struct.pack(">BxIIBB", 4, 6, 1, 1, 3),
    "PDU ends inside a PDV header": struct.pack(">BxIIBB", 4, 9, 2, 1, 0) + bytes(3),
    "context that was not accepted": pdu(pdv(9, 3, store_request("1.2.3"))),
    "data without command": pdu(pdv(1, 2, b"data")),
    "data on another context": pdu(pdv(1, 3, store_request("1.2.3"))) + pdu(pdv(3, 2, b"x")),
    "command inside a data set": pdu(pdv(1, 3, store_request("1.2.3")), pdv(1, 3, echo_request())),
    "two stores at once": pdu(pdv(1, 3, store_request("1.2.3")), pdv(3, 3, store_request("1.2"))),
    "command too long": pdu(pdv(1, 1, LONG)),
    "command cut off": pdu(pdv(1, 3, store_request("1.2.3")[:-3])),
    "command of another group": pdu(pdv(1, 3, struct.pack("<HHI", 8, 5, 0))),
    "no Message ID": pdu(pdv(1, 3, command(0x0001, e0002=padded(CT), e0800=b"\x01\0"))),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_breaks_the_protocol_is_said(name: str) -> None:
    desk = Desk()
    with pytest.raises(ProtocolError):
        desk.feed(BROKEN[name])
    desk.stream.abandon()
    assert desk.ingest.kept == {}


def test_a_message_of_another_service_without_end_is_cut_off() -> None:
    desk = Desk(contexts=OTHERS)
    desk.feed(pdu(pdv(7, 3, command(0x0140, e0110=b"\x01\0", e0800=b"\x01\0"))))
    endless = pdu(pdv(7, 0, bytes(60_000))) * 400
    with pytest.raises(ProtocolError, match="longer than"):
        desk.feed(endless)


@pytest.mark.parametrize("context", [5, 7, 9])
def test_messages_of_other_services_are_not_mixed(context: int) -> None:
    """PS3.7 6.3.1; and so that 128 contexts hold no more than one."""
    desk = Desk(contexts=OTHERS)
    request = command(0x0140, e0110=b"\x01\0", e0800=b"\x01\0")
    desk.feed(pdu(pdv(7, 3, request), pdv(7, 0, b"first")))
    with pytest.raises(ProtocolError, match="before the message before it"):
        desk.feed(pdu(pdv(context, 3, echo_request() if context == 5 else request)))


@given(st.binary(max_size=300))
@settings(max_examples=300, deadline=None)
def test_random_bytes_end_in_an_error_of_the_protocol_or_wait(content: bytes) -> None:
    desk = Desk(longest_pdu=1000)
    try:
        desk.feed(b"\x04\0" + content)
    except ProtocolError:
        return
    assert not desk.ingest.kept or desk.answers
