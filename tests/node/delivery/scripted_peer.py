"""A peer that does what its script says, on a raw socket: every way in which a PACS can fail.

It reads what a requestor sends by the letter of PS3.8, apart from the code under test: the
A-ASSOCIATE-RQ and the command sets through pynetdicom and pydicom.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from io import BytesIO
from types import TracebackType
from typing import Final, TypeAlias

from pydicom.dataset import Dataset
from pynetdicom.dsutils import decode, encode
from pynetdicom.pdu import A_ASSOCIATE_RQ

PATIENCE_SECONDS: Final = 20.0
NO_DATA_SET: Final = 0x0101
ASSOCIATE_AC, ASSOCIATE_RJ, P_DATA, RELEASE_RQ, RELEASE_RP, ABORT = 2, 3, 4, 5, 6, 7


@dataclass(frozen=True, kw_only=True)
class Message:
    """A DIMSE message as it came.

    `longest` is the length that its longest PDU gives, `fragments` the length of each fragment.
    """

    context_id: int
    command: Dataset
    data_set: bytes = b""
    longest: int
    fragments: tuple[int, ...]


class Link:
    """One association from the acceptor's end; a script is handed it."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.proposed: Mapping[int, tuple[str, tuple[str, ...]]] = {}

    def send(self, *parts: bytes) -> None:
        """Send bytes as they are."""
        self.connection.sendall(b"".join(parts))

    def reset(self) -> None:
        """Close with RST."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def wait_for_end(self) -> bytes:
        """Read until the requestor closes; return what came."""
        found = b""
        try:
            while chunk := self.connection.recv(1 << 16):
                found = (found + chunk)[-64:]
        except ConnectionResetError:
            pass
        return found

    def read(self, count: int) -> bytes:
        """Read so many bytes."""
        found = bytearray()
        while len(found) < count:
            chunk = self.connection.recv(count - len(found))
            assert chunk, "the requestor closed in the middle of a PDU"
            found += chunk
        return bytes(found)

    def pdu(self) -> tuple[int, bytes]:
        """Read one PDU: type and content."""
        header = self.read(6)
        return header[0], self.read(int.from_bytes(header[2:], "big"))

    def request(self) -> A_ASSOCIATE_RQ:
        """Read the A-ASSOCIATE-RQ."""
        kind, body = self.pdu()
        assert kind == 1
        request = A_ASSOCIATE_RQ()
        request.decode(pdu(1, body))
        self.proposed = {
            int(context.context_id or 0): (
                str(context.abstract_syntax),
                tuple(str(uid) for uid in context.transfer_syntax),
            )
            for context in request.presentation_context
        }
        return request

    def accept(self, *, max_pdu: int = 16384, results: Mapping[int, int] | None = None) -> None:
        """Read the A-ASSOCIATE-RQ and accept its contexts, but those with another result."""
        self.request()
        contexts = {
            number: ((results or {}).get(number, 0), syntaxes[0])
            for number, (_, syntaxes) in self.proposed.items()
        }
        self.send(associate_ac(contexts, max_pdu))

    def message_or_release(self) -> Message | None:
        """Read a message; or an A-RELEASE-RQ, which is answered."""
        if self.connection.recv(1, socket.MSG_PEEK) == bytes((P_DATA,)):
            return self.message()
        self.release()
        return None

    def command(self) -> Message:
        """Read the command set of a message."""
        number, content, longest, fragments = self._fragments(1)
        return Message(
            context_id=number,
            command=decode(BytesIO(content), is_implicit_vr=True, is_little_endian=True),
            longest=longest,
            fragments=fragments,
        )

    def message(self) -> Message:
        """Read a message, with the data set that its command set announces."""
        message = self.command()
        if message.command.CommandDataSetType == NO_DATA_SET:
            return message
        number, content, longest, fragments = self._fragments(0)
        assert number == message.context_id
        return replace(
            message,
            data_set=content,
            longest=max(longest, message.longest),
            fragments=(*message.fragments, *fragments),
        )

    def data_set(self) -> None:
        """Read what follows a command set."""
        self._fragments(0)

    def _fragments(self, control: int) -> tuple[int, bytes, int, tuple[int, ...]]:
        """Read PDUs to the last fragment: context, content, longest PDU, and their lengths."""
        content, longest, lengths, last, number = bytearray(), 0, [], False, 0
        while not last:
            kind, body = self.pdu()
            assert kind == P_DATA, f"a PDU of type {kind}"
            length, number, flags = struct.unpack_from(">IBB", body)
            assert length == len(body) - 4, "more than one PDV"
            assert flags & 1 == control
            content += body[6:]
            longest, last = max(longest, len(body)), bool(flags & 2)
            lengths.append(len(body) - 6)
        return number, bytes(content), longest, tuple(lengths)

    def answer(self, message: Message, status: int = 0x0000) -> None:
        """Answer a message."""
        self.send(response(message, status))

    def release(self) -> None:
        """Read the A-RELEASE-RQ and answer it."""
        assert self.pdu()[0] == RELEASE_RQ
        self.send(pdu(RELEASE_RP, bytes(4)))


Script: TypeAlias = Callable[[Link], object]


class ScriptedPeer:
    """Plays a script with each association. What a script raises is raised at the end."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._errors: list[BaseException] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self._server.settimeout(PATIENCE_SECONDS)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self.associations = 0

    @property
    def port(self) -> int:
        """The port that is listened on."""
        port: int = self._server.getsockname()[1]
        return port

    def __enter__(self) -> ScriptedPeer:
        """Listen."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop."""
        self._server.shutdown(socket.SHUT_RDWR)
        self._thread.join(PATIENCE_SECONDS)
        self._server.close()
        assert not self._thread.is_alive(), "the script has not ended"
        if kind is None and self._errors:
            raise self._errors[0]

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            self.associations += 1
            connection.settimeout(PATIENCE_SECONDS)
            with connection:
                try:
                    self._script(Link(connection))
                except (AssertionError, OSError) as error:
                    self._errors.append(error)


def pdu(kind: int, body: bytes) -> bytes:
    """Return a PDU."""
    return struct.pack(">BxI", kind, len(body)) + body


def pdv(context_id: int, control: int, fragment: bytes) -> bytes:
    """Return a PDV item (PS3.8 9.3.5.1)."""
    return struct.pack(">IBB", len(fragment) + 2, context_id, control) + fragment


def associate_ac(contexts: Mapping[int, tuple[int, str]], max_pdu: int) -> bytes:
    """Return an A-ASSOCIATE-AC with a result and a transfer syntax for each context."""
    items = item(0x10, b"1.2.840.10008.3.1.1.1")
    for number, (result, syntax) in contexts.items():
        items += item(0x21, bytes((number, 0, result, 0)) + item(0x40, syntax.encode()))
    user = item(0x51, struct.pack(">I", max_pdu)) + item(0x52, b"1.2.3")
    return pdu(ASSOCIATE_AC, b"\0\1" + bytes(66) + items + item(0x50, user))


def item(kind: int, content: bytes) -> bytes:
    """Return an item of an A-ASSOCIATE PDU."""
    return struct.pack(">BxH", kind, len(content)) + content


def command_set(
    message: Message, status: int | None = 0x0000, *, field: int = 0x8001, shift: int = 0
) -> bytes:
    """Return the command set of a response; `shift` makes it answer another message."""
    answer = Dataset()
    answer.CommandGroupLength = 0
    answer.AffectedSOPClassUID = message.command.AffectedSOPClassUID
    answer.CommandField = field
    answer.MessageIDBeingRespondedTo = message.command.MessageID + shift
    answer.CommandDataSetType = 0x0101
    if status is not None:
        answer.Status = status
    encoded = encode(answer, is_implicit_vr=True, is_little_endian=True)
    assert encoded is not None
    return encoded


def response(message: Message, status: int = 0x0000) -> bytes:
    """Return a whole C-STORE-RSP in one PDU."""
    return pdu(P_DATA, pdv(message.context_id, 3, command_set(message, status)))
