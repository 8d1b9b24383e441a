"""P-DATA-TF PDUs of one association: C-STORE straight into its intake (PS3.8 9.3.5, PS3.7 9.3.1).

No PDU, primitive or message object is made for a C-STORE: PDV headers are read in the receive
buffer, and the data set's bytes go from there to the intake. Everything else (C-ECHO, N-CREATE...)
is handed on whole, one PDV at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final, NoReturn, ParamSpec

from node.interfaces import CannotUnderstand, DataSetMismatch, IngestError, Intake, TooLarge
from node.listeners._commands import (
    AFFECTED_SOP_CLASS,
    AFFECTED_SOP_INSTANCE,
    C_STORE_RQ,
    COMMAND_FIELD,
    DATA_SET_TYPE,
    IS_COMMAND,
    IS_LAST,
    KNOWN_REQUESTS,
    LENGTH_OF_CONTROL,
    LENGTH_OF_US,
    MESSAGE_ID,
    NO_DATA_SET,
    P_DATA,
    PDU_AND_PDV,
    PDV,
    ProtocolError,
    read_command,
    store_response,
    whole_pdu,
)

LONGEST_COMMAND: Final = 16 << 10
LONGEST_OTHER_MESSAGE: Final = 2 << 20

P = ParamSpec("P")


class Step(Enum):
    """Why `MessageStream.take` stopped."""

    MORE = "more bytes are needed"
    STORED = "a C-STORE was answered"
    OTHER_PDU = "a PDU that is not P-DATA-TF stands next"
    PASSED = "`passed` holds a P-DATA-TF PDU for others"


@dataclass(frozen=True, slots=True)
class Context:
    """An accepted presentation context."""

    abstract_syntax: str
    transfer_syntax: str


class MessageStream:
    """Takes what arrives in a buffer apart.

    Args:
        buffer: where bytes arrive; slices of it are handed to the intake.
        intake: takes the instances.
        contexts: accepted presentation contexts, by id.
        longest_pdu: what was announced to the peer, in bytes.
        answer: sends a whole PDU.
        refused: told of each C-STORE that was not answered with success.
        incident: turns an error that nobody expected into the answer to give.

    After MORE, and before the buffer is reused, `flush` must be called.
    """

    def __init__(  # noqa: PLR0917 - what an association is made of
        self,
        buffer: bytearray,
        intake: Intake,
        contexts: Mapping[int, Context],
        longest_pdu: int,
        answer: Callable[[bytes], None],
        refused: Callable[[IngestError], None],
        incident: Callable[[Exception], IngestError],
    ) -> None:
        self._buffer = buffer
        self._view = memoryview(buffer)
        self._intake = intake
        self._contexts = contexts
        self._longest_pdu = longest_pdu
        self._answer = answer
        self._refused = refused
        self._incident = incident
        self._pdu_left = 0  # bytes of this PDU behind the PDV in hand
        self._pdv_left = 0  # bytes of the PDV in hand
        self._context = 0
        self._control = 0
        self._commands: dict[int, bytearray] = {}
        self._store: _Store | None = None
        self._pieces: list[memoryview] = []
        self._other: dict[int, int] = {}  # context -> bytes of another service's message so far
        self._other_pdv = bytearray()
        self.passed = b""
        self.pdus = 0  # how many were begun

    @property
    def holds_buffer(self) -> bool:
        """Say whether bytes in the buffer are still needed."""
        return bool(self._pieces)

    @property
    def inside_pdu(self) -> bool:
        """Say whether a PDU was begun and has not ended."""
        return bool(self._pdu_left or self._pdv_left)

    def take(self, start: int, stop: int) -> tuple[Step, int]:
        """Take bytes [start, stop) of the buffer; return why it stopped, and where.

        Raises:
            ProtocolError: the association must be aborted.
        """
        while True:
            if not self._pdv_left:
                if not self._pdu_left and start < stop and self._buffer[start] != P_DATA:
                    return Step.OTHER_PDU, start
                behind = self._header(start, stop)
                if behind == start:
                    return Step.MORE, start
                start = behind
            count = min(self._pdv_left, stop - start)
            self._pdv_left -= count
            piece = self._view[start : start + count]
            start += count
            step = self._take_piece(piece, last=not self._pdv_left)
            if step is not None:
                return step, start
            if self._pdv_left:
                return Step.MORE, start

    def flush(self) -> None:
        """Hand on what lies in the buffer, so that it can be reused."""
        pieces, self._pieces = self._pieces, []
        if pieces and self._store is not None and self._store.error is None:
            self._ask(self._store, self._intake.write, pieces)

    def abandon(self) -> None:
        """Give up: the association ends."""
        if self._store is not None:
            self._store = None
            self._intake.abandon()

    def _header(self, start: int, stop: int) -> int:
        """Read the header of the next PDV, and of its PDU; return where its bytes start."""
        if self._pdu_left:
            if stop - start < PDV.size:
                return start
            length, self._context, self._control = PDV.unpack_from(self._buffer, start)
            room, size = self._pdu_left, PDV.size
        else:
            if stop - start < PDU_AND_PDV.size:
                return start
            _, room, length, self._context, self._control = PDU_AND_PDV.unpack_from(
                self._buffer, start
            )
            if room > self._longest_pdu:
                raise ProtocolError("a PDU is longer than was announced")
            self.pdus += 1
            size = PDU_AND_PDV.size
        if length < LENGTH_OF_CONTROL or length + 4 > room:
            raise ProtocolError("a PDV does not fit into its PDU")
        self._pdu_left = room - 4 - length
        if 0 < self._pdu_left < PDV.size:
            raise ProtocolError("a PDU ends inside a PDV header")
        if self._context not in self._contexts:
            raise ProtocolError("a PDV names a presentation context that was not accepted")
        self._pdv_left = length - LENGTH_OF_CONTROL
        return start + size

    def _take_piece(self, piece: memoryview, *, last: bool) -> Step | None:
        """Take bytes of one PDV; `last` says that it ends with them."""
        ended = last and bool(self._control & IS_LAST)
        if self._control & IS_COMMAND:
            return self._take_command(piece, ended=ended)
        store = self._store
        if store is not None and store.context == self._context:
            if store.error is None and len(piece):
                self._pieces.append(piece)
            return self._finish(store) if ended else None
        if self._context in self._other:
            return self._take_other(piece, last=last)
        raise ProtocolError("a data set came without its command")

    # ------------------------------------------------------------ commands

    def _take_command(self, piece: memoryview, *, ended: bool) -> Step | None:
        if self._store is not None and self._store.context == self._context:
            raise ProtocolError("a command came inside a data set of its context")
        command = self._commands.setdefault(self._context, bytearray())
        command += piece
        if len(command) > LONGEST_COMMAND:
            raise ProtocolError(f"a command is longer than {LONGEST_COMMAND} bytes")
        if not ended:
            return None
        del self._commands[self._context]
        elements = read_command(command)
        field = elements.get(COMMAND_FIELD)
        if field == C_STORE_RQ:
            return self._begin(elements)
        if field not in KNOWN_REQUESTS:
            raise ProtocolError("a command has no Command Field that is known")
        if self._other:
            raise ProtocolError("a command came before the message before it had ended")
        if elements.get(DATA_SET_TYPE) != NO_DATA_SET:
            self._other[self._context] = 0
        self.passed = whole_pdu(self._context, IS_COMMAND | IS_LAST, command)
        return Step.PASSED

    def _begin(self, elements: Mapping[int, bytes]) -> Step | None:
        if self._store is not None or self._other:
            raise ProtocolError("a C-STORE-RQ came before the message before it had ended")
        message_id = elements.get(MESSAGE_ID, b"")
        if len(message_id) != LENGTH_OF_US:
            raise ProtocolError("a C-STORE-RQ has no Message ID")
        store = self._store = _Store(
            context=self._context,
            message_id=message_id,
            sop_class=elements.get(AFFECTED_SOP_CLASS, b""),
            sop_instance=elements.get(AFFECTED_SOP_INSTANCE, b""),
        )
        context = self._contexts[self._context]
        sop_class = _text(store.sop_class)
        if sop_class == context.abstract_syntax:
            uid, syntax = _text(store.sop_instance), context.transfer_syntax
            self._ask(store, self._intake.begin, sop_class, uid, syntax)
        else:
            words = "(0000,0002) is not the context's SOP class"
            self._fail(store, DataSetMismatch(words, offending=AFFECTED_SOP_CLASS))
        if elements.get(DATA_SET_TYPE) == NO_DATA_SET:
            self._fail(store, CannotUnderstand("the C-STORE-RQ has no data set"))
            return self._finish(store)
        return None

    # ------------------------------------------------------------ the data set

    def _finish(self, store: _Store) -> Step:
        """Answer a C-STORE whose last byte has come."""
        pieces, self._pieces = self._pieces, []
        if store.error is None:
            self._ask(store, self._intake.finish, pieces)
        self._store = None
        if store.error is None:
            self._answer(store.response())
        else:
            self._refused(store.error)
            self._answer(store.response(store.error))
        return Step.STORED

    def _ask(self, store: _Store, act: Callable[P, None], *args: P.args, **more: P.kwargs) -> None:
        """Have the intake do something; its refusal becomes the answer."""
        try:
            act(*args, **more)
        except IngestError as error:
            self._fail(store, error)
        except Exception as error:  # noqa: BLE001 - the edge of an association: told by status
            self._fail(store, self._incident(error))

    def _fail(self, store: _Store, error: IngestError) -> None:
        """Let the rest of the data set pass by; one without an end is cut off."""
        if store.error is None:
            self._intake.abandon()
            store.error = error
        self._pieces.clear()
        if isinstance(error, TooLarge):
            self._too_large(error)

    def _too_large(self, error: TooLarge) -> NoReturn:
        self._store = None
        self._refused(error)
        raise ProtocolError(str(error))

    # ------------------------------------------------------------ other services

    def _take_other(self, piece: memoryview, *, last: bool) -> Step | None:
        self._other_pdv += piece
        self._other[self._context] += len(piece)
        if self._other[self._context] > LONGEST_OTHER_MESSAGE:
            raise ProtocolError(f"a message is longer than {LONGEST_OTHER_MESSAGE} bytes")
        if not last:
            return None
        content, self._other_pdv = self._other_pdv, bytearray()
        if self._control & IS_LAST:
            del self._other[self._context]
        self.passed = whole_pdu(self._context, self._control, content)
        return Step.PASSED


@dataclass(slots=True, kw_only=True)
class _Store:
    """The C-STORE in hand."""

    context: int
    message_id: bytes
    sop_class: bytes
    sop_instance: bytes
    error: IngestError | None = None

    def response(self, error: IngestError | None = None) -> bytes:
        """Return the C-STORE-RSP as one PDU."""
        return store_response(
            self.context, self.message_id, self.sop_class, self.sop_instance, error
        )


def _text(uid: bytes) -> str:
    return uid.rstrip(b"\0 ").decode("ascii", "replace")
