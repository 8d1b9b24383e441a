"""An association as requestor: kept data sets out, answers in, no thread.

Negotiation, C-STORE, C-ECHO and release (PS3.8 9.2 for a requestor). A data set goes out a window
at a time, through one buffer small enough for the processor's cache.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Final

from node.delivery._connection import AssociationError, Connection, LostError, RejectedError
from node.delivery._part10 import DataSet
from node.delivery._upper_layer import (
    COMMAND,
    LAST,
    PDV_OVERHEAD,
    RELEASE_RP,
    RELEASE_RQ,
    Command,
    Context,
    PduType,
    ProtocolError,
    associate_rq,
    c_echo_rq,
    c_store_rq,
    command_fragments,
    context_id,
    p_data_header,
    parse_associate_ac,
    parse_response,
)

WINDOW: Final = 1 << 18  # bytes that are read and sent at a time
LARGEST_FRAGMENT: Final = WINDOW  # to a peer that takes any PDU
MOST_FRAGMENTS: Final = 500  # in one window
MOST_ANSWER: Final = 1 << 16  # bytes of all PDUs of one answer, which needs some hundred


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Whom to call, and how long to wait for it, in seconds.

    `dimse_seconds` is the longest time in which it takes not one byte of an object, and the time
    it has to answer one that it got.
    """

    host: str
    port: int
    called: str
    calling: str
    connect_seconds: float
    acse_seconds: float
    dimse_seconds: float


class StoreAssociation:
    """An association; as a context it is released at the end, and aborted after an error.

    Any method raises an `AssociationError` once there is no association any more.
    """

    def __init__(self, peer: Peer, contexts: Sequence[Context], until: float) -> None:
        """Connect and negotiate. `until`, on the monotonic clock, is the end of everything."""
        self._peer = peer
        self._message_id = 0
        self._buffer = bytearray(WINDOW)
        self._connection = Connection(
            peer.host, peer.port, seconds=peer.connect_seconds, until=until
        )
        try:
            self._negotiate(contexts)
        except BaseException:
            self._connection.close()
            raise

    def __enter__(self) -> StoreAssociation:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Release it; after an error abort it."""
        try:
            if kind is None:
                self._release()
        finally:
            self._connection.close()

    def refusal(self, context: Context) -> int | None:
        """Return why a proposed context was not accepted (PS3.8 table 9-18); None: it was."""
        return None if context in self._accepted else self._refused.get(context, 0)

    def look(self) -> None:
        """Notice what the peer did since the last answer: it may have ended the association."""
        if self._connection.look():
            until = self._connection.deadline(self._peer.acse_seconds)
            self._connection.ended(*self._connection.next_pdu(until))

    def store(self, context: Context, sop_instance_uid: str, data_set: DataSet) -> int:
        """Send one object in an accepted context and return the status of its answer.

        Raises:
            UnreadableError: the file failed midway; the association is no more.
        """
        number, message_id = self._accepted[context], self._next_message_id()
        parts = self._fragments(
            number, c_store_rq(context, sop_instance_uid, message_id), control=COMMAND
        )
        step = self._fragment * min(WINDOW // self._fragment, MOST_FRAGMENTS)
        for start in range(0, data_set.length, step):
            stop = min(start + step, data_set.length)
            window = memoryview(self._buffer)[: stop - start]
            data_set.read_into(window, start)
            parts += self._fragments(number, window, last=stop == data_set.length)
            self._connection.send(parts, stall=self._peer.dimse_seconds)
            parts = []
        return self._status(number, Command.C_STORE_RSP, message_id)

    def echo(self, context: Context) -> int:
        """Send a C-ECHO in an accepted context and return the status of its answer."""
        number, message_id = self._accepted[context], self._next_message_id()
        parts = self._fragments(number, c_echo_rq(context, message_id), control=COMMAND)
        self._connection.send(parts, stall=self._peer.dimse_seconds)
        return self._status(number, Command.C_ECHO_RSP, message_id)

    def _negotiate(self, contexts: Sequence[Context]) -> None:
        until = self._connection.deadline(self._peer.acse_seconds)
        request = associate_rq(self._peer.called, self._peer.calling, contexts)
        self._connection.send([memoryview(request)], until=until)
        kind, body = self._connection.next_pdu(until)
        if kind == PduType.ASSOCIATE_RJ and len(body) == 4:  # noqa: PLR2004 - PS3.8 9.3.4
            self._connection.over()
            raise RejectedError(*body[1:])
        if kind != PduType.ASSOCIATE_AC:
            self._connection.ended(kind, body)
        try:
            answer = parse_associate_ac(body)
        except ProtocolError as error:
            raise LostError(f"it broke the protocol: {error}") from error
        longest = answer.max_pdu - PDV_OVERHEAD if answer.max_pdu else LARGEST_FRAGMENT
        self._fragment = min(longest, LARGEST_FRAGMENT) & ~1
        by_context = {context: context_id(index) for index, context in enumerate(contexts)}
        self._accepted: Mapping[Context, int] = {
            context: number
            for context, number in by_context.items()
            if answer.accepted.get(number) == context.transfer_syntax
        }
        self._refused: Mapping[Context, int] = {
            context: answer.refused[number]
            for context, number in by_context.items()
            if number in answer.refused
        }

    def _release(self) -> None:
        """Ask for the release and wait for the answer; whatever happens, it is over."""
        until = self._connection.deadline(self._peer.acse_seconds)
        with suppress(AssociationError):
            self._connection.send([memoryview(RELEASE_RQ)], until=until)
            kind, _ = self._connection.next_pdu(until)
            if kind == PduType.RELEASE_RQ:  # both asked (PS3.8 9.2.3, states 9 and 11)
                self._connection.send([memoryview(RELEASE_RP)], until=until)
                kind, _ = self._connection.next_pdu(until)
            if kind == PduType.RELEASE_RP:
                self._connection.over()

    def _next_message_id(self) -> int:
        self._message_id = self._message_id % 0xFFFF + 1
        return self._message_id

    def _fragments(
        self, number: int, content: bytes | memoryview, *, control: int = 0, last: bool = True
    ) -> list[memoryview]:
        """Cut a command set or a part of a data set into P-DATA-TF PDUs of one fragment each."""
        size, total = self._fragment, len(content)
        parts: list[memoryview] = []
        view = memoryview(content)
        for start in range(0, total, size):
            stop = min(start + size, total)
            flags = control | LAST if last and stop == total else control
            header = p_data_header(number, flags, stop - start)
            parts += (memoryview(header), view[start:stop])
        return parts

    def _status(self, number: int, field: Command, message_id: int) -> int:
        """Wait for the answer to a message and return its status.

        The time begins now, and an answer has a most of bytes, however it is cut into pieces.
        """
        until, received = self._connection.deadline(self._peer.dimse_seconds), 0
        command, whole = bytearray(), False
        try:
            while not whole:
                kind, body = self._connection.next_pdu(until)
                if kind != PduType.P_DATA:
                    self._connection.ended(kind, body)
                received += len(body)
                if received > MOST_ANSWER:
                    raise ProtocolError("its answer has no end")  # noqa: TRY301 - as the parsers do
                whole = command_fragments(body, number, command)
            response = parse_response(bytes(command))
        except ProtocolError as error:
            raise LostError(f"it broke the protocol: {error}") from error
        if response[:2] != (field, message_id):
            raise LostError("it broke the protocol: it answered another message")
        return response.status
