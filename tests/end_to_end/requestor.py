"""A bare socket that speaks, and mis-speaks, the upper layer; it believes nothing it is told."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Final, TypeAlias

from tests.end_to_end.pdus import (
    ASSOCIATE_AC,
    CONTEXTS,
    CT_CONTEXT,
    ECHO_CONTEXT,
    MESSAGE_ID_RESPONDED,
    P_DATA,
    STATUS,
    Context,
    associate_rq,
    c_echo_rq,
    c_store_rq,
    command_elements,
    context_results,
    message,
    number,
    p_data,
    pdvs,
    release_rq,
)

PATIENCE: Final = 20.0  # a bound on hanging, not a measurement
HEADER: Final = 6

Pdu: TypeAlias = tuple[int, bytes]


class Requestor:
    """One connection to the node, from any loopback address."""

    def __init__(
        self, port: int, *, address: str = "127.0.0.1", patience: float = PATIENCE
    ) -> None:
        self.socket = socket.socket()
        self.socket.settimeout(patience)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.accepted: dict[int, int] = {}
        self.answered: list[tuple[int, int]] = []  # (message id, status) of every response read
        self.last: dict[int, bytes] = {}  # elements of the last response
        try:
            self.socket.bind((address, 0))
            self.socket.connect(("127.0.0.1", port))
        except OSError:
            self.socket.close()
            raise

    def __enter__(self) -> Requestor:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.socket.close()

    def send(self, *content: bytes) -> bool:
        """Send bytes; say whether the node still took them."""
        try:
            self.socket.sendall(b"".join(content))
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def vanish(self) -> None:
        """Close with RST, as a power cut or a pulled cable is seen later."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def half_close(self) -> None:
        """Send no more, but listen; nothing happens where the node has closed already."""
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    # ------------------------------------------------------------ reading

    def pdu(self) -> Pdu | None:
        """Read the next PDU; None when the node has closed.

        Raises:
            TimeoutError: neither came within the patience.
        """
        head = self._exactly(HEADER)
        if head is None:
            return None
        kind, _, length = struct.unpack(">BBI", head)
        content = self._exactly(length)
        return None if content is None else (kind, content)

    def rest(self) -> list[Pdu]:
        """Read to the end of the connection: it must come within the patience."""
        found = []
        until = time.monotonic() + (self.socket.gettimeout() or PATIENCE)
        while (answer := self.pdu()) is not None:
            found.append(answer)
            if time.monotonic() > until:
                raise TimeoutError("the connection does not end")
        return found

    def is_closed(self) -> bool:
        """Say, without waiting, whether the node has closed and all it sent was read."""
        patience = self.socket.gettimeout()
        self.socket.setblocking(False)
        try:
            return not self.socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True
        finally:
            self.socket.settimeout(patience)

    def _exactly(self, count: int) -> bytes | None:
        content = b""
        while len(content) < count:
            try:
                got = self.socket.recv(count - len(content))
            except ConnectionResetError:
                return None
            if not got:
                return None
            content += got
        return content

    # ------------------------------------------------------------ services

    def associate(self, request: bytes | None = None) -> Pdu | None:
        """Ask for an association; remember which contexts were accepted."""
        self.send(associate_rq(CONTEXTS) if request is None else request)
        answer = self.pdu()
        if answer is not None and answer[0] == ASSOCIATE_AC:
            results = context_results(answer[1])
            self.accepted = {context: result for context, result in results.items() if result == 0}
        return answer

    def response(self) -> tuple[int, int] | None:
        """Read the next response: (message id responded to, status); None: aborted or closed."""
        command = b""
        while (answer := self.pdu()) is not None and answer[0] == P_DATA:
            for _, control, fragment in pdvs(answer[1]):
                command += fragment
                if control & 2:
                    elements = self.last = command_elements(command)
                    pair = number(elements[MESSAGE_ID_RESPONDED]), number(elements[STATUS])
                    self.answered.append(pair)
                    return pair
        return None

    def echo(self, message_id: int = 1, *, context: int = ECHO_CONTEXT.id) -> int | None:
        """Send a C-ECHO; return its status, None when there was none."""
        self.send(p_data(*message(context, c_echo_rq(message_id), command=True)))
        return self._status(message_id)

    def store(
        self,
        sop_instance_uid: bytes | str,
        content: bytes,
        *,
        message_id: int = 1,
        context: int = CT_CONTEXT.id,
        command: bytes | None = None,
    ) -> int | None:
        """Send a C-STORE; return its status, None when the association ended instead."""
        request = command or c_store_rq(sop_instance_uid, message_id=message_id)
        items = message(context, request, command=True)
        items += message(context, content, command=False)
        if not all(self.send(p_data(item)) for item in items):
            return None
        return self._status(message_id)

    def release(self) -> Pdu | None:
        """Ask for the release of the association; return what came back."""
        self.send(release_rq())
        return self.pdu()

    def _status(self, message_id: int) -> int | None:
        answer = self.response()
        if answer is None:
            return None
        assert answer[0] == message_id, "the response is to another message"
        return answer[1]


def associated(
    port: int, *, address: str = "127.0.0.1", contexts: Sequence[Context] = CONTEXTS
) -> Requestor:
    """Return a requestor whose association was accepted."""
    requestor = Requestor(port, address=address)
    answer = requestor.associate(associate_rq(contexts))
    if answer is None or answer[0] != ASSOCIATE_AC:
        requestor.socket.close()
        raise AssertionError(f"no association from {address}: {answer}")
    return requestor


def echoes(port: int, *, address: str = "127.0.0.1") -> bool:
    """Say whether an association and a C-ECHO from an address succeed."""
    try:
        with Requestor(port, address=address) as requestor:
            answer = requestor.associate()
            return (
                answer is not None
                and answer[0] == ASSOCIATE_AC
                and requestor.echo() == 0
                and requestor.release() is not None
            )
    except OSError:
        return False
