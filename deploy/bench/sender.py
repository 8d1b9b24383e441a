"""A C-STORE sender that costs next to nothing, so that what is measured is the server.

One process an association. The image is mapped, the headers of its P-DATA-TF PDUs (PS3.8 9.3.5)
are made once, and each instance leaves by one `sendmsg` for a thousand pieces, after its UID was
put in. It waits for each response before the next instance, as every storage SCU does.
"""

from __future__ import annotations

import mmap
import multiprocessing
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from typing import Final, TypeAlias

from objects import (
    IMPLEMENTATION_CLASS_UID,
    SERIES,
    STUDY,
    TRANSFER_SYNTAX,
    Template,
    instance_uid,
    new_token,
    put,
    uid,
)

CALLING_AE: Final = "BENCH"
APPLICATION_CONTEXT: Final = "1.2.840.10008.3.1.1.1"
CONTEXT_ID: Final = 1
MOST_PIECES: Final = 1024  # IOV_MAX
LARGEST_PDU: Final = 1 << 20
"""Taken where a server sets no limit."""
SMALLEST_PDU: Final = 4096
PATIENCE_SECONDS: Final = 300
ACCEPTED, DATA, RELEASED = 0x02, 0x04, 0x06
PDV_LAST_DATA, PDV_COMMAND, PDV_LAST_COMMAND = 2, 1, 3  # PS3.8 annex E.2
PDU_HEADER: Final = struct.Struct(">BxI")
PDV_HEADER: Final = struct.Struct(">BxIIBB")
STATUS: Final = struct.pack("<HHI", 0x0000, 0x0900, 2)
RELEASE_REQUEST: Final = PDU_HEADER.pack(0x05, 4) + bytes(4)

Pieces: TypeAlias = list[memoryview]


class SendError(Exception):
    """A server would not negotiate, or broke the protocol."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What one association did: monotonic times in seconds, and how many answers were 0x0000.

    `seen` is what its sender saw of the server just before it asked for release.
    """

    started: float
    ended: float
    acknowledged: int
    seen: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a server on loopback listens, and as whom."""

    port: int
    called_ae: str


Look: TypeAlias = Callable[[], Mapping[int, int]]
_Job: TypeAlias = tuple[Address, Template, int, int, int, Look]


def send(address: Address, template: Template, counts: Sequence[int], look: Look) -> list[Sent]:
    """Send new instances over as many associations as there are counts, side by side.

    All associations stand before the first instance leaves; each is released when its own last
    response is there, as an idle one may hold a thread of the server. Just before, its sender
    calls `look`: the processes that serve it are still there.

    Raises:
        SendError: an association was refused, or a sender did not come to its end.
    """
    context = multiprocessing.get_context("fork")
    standing, token = context.Barrier(len(counts)), new_token()
    workers, ends = [], []
    for association, count in enumerate(counts):
        end, other = context.Pipe(duplex=False)
        job = (address, template, token, association, count, look)
        workers.append(
            context.Process(target=_work, args=(standing, other, job), daemon=True),
        )
        workers[-1].start()
        other.close()
        ends.append(end)
    results = [_result(end) for end in ends]
    for worker in workers:
        worker.join()
    failed = [result for result in results if isinstance(result, str)]
    if failed:
        raise SendError("; ".join(sorted(set(failed))))
    return [result for result in results if isinstance(result, Sent)]


def _result(end: Connection) -> Sent | str:
    with end:
        try:
            result: Sent | str = end.recv()
        except EOFError:
            return "a sender ended without a word"
    return result


def _work(standing: Barrier, end: Connection, job: _Job) -> None:
    """Be the process of one association."""
    address, template, token, association, count, look = job
    try:
        with _Association(address, template, token, association) as sender:
            standing.wait(PATIENCE_SECONDS)
            sent = replace(sender.store(count), seen=look())
            if sent.acknowledged == count:
                sender.release()
        end.send(sent)
    except (SendError, OSError) as error:
        standing.abort()
        end.send(f"{type(error).__name__}: {error}")
    except threading.BrokenBarrierError:
        end.send("a sender beside it failed, or took too long")


class _Association:
    """One association, from negotiation to release."""

    def __init__(self, address: Address, template: Template, token: int, number: int) -> None:
        self._template = template
        self._token = token
        self._number = number
        with template.path.open("rb") as file:
            self._map = mmap.mmap(
                file.fileno(),
                template.length,
                flags=mmap.MAP_PRIVATE | getattr(mmap, "MAP_POPULATE", 0),
                prot=mmap.PROT_READ | mmap.PROT_WRITE,
            )
        self._content = memoryview(self._map)
        put(self._content, template.study, uid(token, STUDY + number))
        put(self._content, template.series, uid(token, SERIES + number))
        self._socket = socket.create_connection(("127.0.0.1", address.port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        patience = struct.pack("ll", PATIENCE_SECONDS, 0)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, patience)
        self._socket.settimeout(None)
        self._largest_pdu = self._negotiate(address.called_ae)

    def __enter__(self) -> _Association:
        """Return itself, negotiated."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        self._socket.close()

    def store(self, count: int) -> Sent:
        """Send instances one after the other; stop when the server goes away."""
        command, message_id, command_uid = self._command()
        batches = self._batches(command)
        instances, acknowledged = self._template.instance, 0
        names = [instance_uid(self._token, self._number, index) for index in range(count)]
        started = time.monotonic()
        with suppress(OSError):
            for index, name in enumerate(names):
                put(self._content, instances, name)
                put(command, (command_uid,), name)
                struct.pack_into("<H", command, message_id, index % 0xFFFF + 1)
                for pieces, length in batches:
                    self._send(pieces, length)
                acknowledged += self._status() == 0
        return Sent(started=started, ended=time.monotonic(), acknowledged=acknowledged)

    def release(self) -> None:
        """Ask for release and wait for the answer (PS3.8 9.3.6)."""
        self._socket.sendall(RELEASE_REQUEST)
        with suppress(OSError):  # a server may close at once
            self._pdu()

    # ------------------------------------------------------------ P-DATA-TF

    def _command(self) -> tuple[bytearray, int, int]:
        """Return the PDU of a C-STORE-RQ, and where its message id and instance UID lie."""
        name = instance_uid(self._token, self._number, 0)
        elements = [
            _element(0x0002, _even(self._template.sop_class_uid)),
            _element(0x0100, b"\x01\x00"),  # C-STORE-RQ
            _element(0x0110, b"\x01\x00"),  # message id
            _element(0x0700, b"\x00\x00"),  # medium priority
            _element(0x0800, b"\x01\x00"),  # a data set follows
            _element(0x1000, _even(name)),
        ]
        body = b"".join(elements)
        body = _element(0x0000, struct.pack("<I", len(body))) + body
        pdu = bytearray(_pdv(len(body), PDV_LAST_COMMAND) + body)
        before = len(pdu) - sum(len(element) for element in elements[2:])
        return pdu, before + 8, pdu.index(name.encode("ascii"))

    def _batches(self, command: bytearray) -> list[tuple[Pieces, int]]:
        """Return command and data set as pieces to be sent, so many as one call takes."""
        pieces = [memoryview(command), *self._fragments()]
        parts = [pieces[at : at + MOST_PIECES] for at in range(0, len(pieces), MOST_PIECES)]
        return [(part, sum(len(piece) for piece in part)) for part in parts]

    def _fragments(self) -> Iterator[memoryview]:
        most = self._largest_pdu - 6  # a PDV's length, context id and control header
        end = self._template.length
        for at in range(self._template.data_set, end, most):
            upto = min(at + most, end)
            last = PDV_LAST_DATA if upto == end else 0
            yield memoryview(_pdv(upto - at, last))
            yield self._content[at:upto]

    def _send(self, pieces: Pieces, length: int) -> None:
        sent = self._socket.sendmsg(pieces)
        if sent < length:
            self._socket.sendall(b"".join(pieces)[sent:])

    def _status(self) -> int:
        """Return the status of the next response (PS3.7 9.3.1.2)."""
        kind, body = self._pdu()
        place = body.rfind(STATUS)  # a message id may look like it, before
        if kind != DATA or place < 0:
            raise ConnectionError(f"a PDU of type {kind} instead of a response")
        return int.from_bytes(body[place + 8 : place + 10], "little")

    # ------------------------------------------------------------ PDUs

    def _negotiate(self, called_ae: str) -> int:
        """Ask for an association (PS3.8 9.3.2); return how long the peer lets a PDU be."""
        context = struct.pack(">B3x", CONTEXT_ID)
        context += _item(0x30, self._template.sop_class_uid.encode())
        context += _item(0x40, TRANSFER_SYNTAX.encode())
        user = _item(0x51, struct.pack(">I", 16384)) + _item(
            0x52, IMPLEMENTATION_CLASS_UID.encode()
        )
        body = struct.pack(">H2x16s16s32x", 1, *(_title(name) for name in (called_ae, CALLING_AE)))
        body += _item(0x10, APPLICATION_CONTEXT.encode()) + _item(0x20, context) + _item(0x50, user)
        self._socket.sendall(PDU_HEADER.pack(0x01, len(body)) + body)
        kind, answer = self._pdu()
        if kind != ACCEPTED:
            raise SendError(f"association refused: PDU type {kind}, {answer[:4].hex()}")
        return _largest_pdu(answer)

    def _pdu(self) -> tuple[int, bytes]:
        kind, length = PDU_HEADER.unpack(self._exactly(PDU_HEADER.size))
        return kind, self._exactly(length)

    def _exactly(self, length: int) -> bytes:
        found = b""
        while len(found) < length:
            more = self._socket.recv(length - len(found))
            if not more:
                raise ConnectionError("the server closed the connection")
            found += more
        return found


def _largest_pdu(answer: bytes) -> int:
    """Read an A-ASSOCIATE-AC (PS3.8 9.3.3): the one context accepted, the maximum length."""
    limit = 0
    for kind, value in _items(answer, 68):
        if kind == 0x21 and value[2] != 0:  # noqa: PLR2004 - presentation context item
            raise SendError(f"presentation context refused: result {value[2]}")
        if kind == 0x50:  # noqa: PLR2004 - user information item
            limits = [inner for sub, inner in _items(value, 0) if sub == 0x51]  # noqa: PLR2004
            limit = int.from_bytes(limits[0], "big") if limits else 0
    return max(SMALLEST_PDU, min(limit or LARGEST_PDU, LARGEST_PDU))


def _items(content: bytes, start: int) -> Iterator[tuple[int, bytes]]:
    while start + 4 <= len(content):
        length = int.from_bytes(content[start + 2 : start + 4], "big")
        yield content[start], content[start + 4 : start + 4 + length]
        start += 4 + length


def _item(kind: int, value: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(value)) + value


def _element(number: int, value: bytes) -> bytes:
    """Encode an element of a command set (PS3.7 6.3.1: implicit VR little endian)."""
    return struct.pack("<HHI", 0x0000, number, len(value)) + value


def _pdv(length: int, control: int) -> bytes:
    return PDV_HEADER.pack(DATA, length + 6, length + 2, CONTEXT_ID, control)


def _even(value: str) -> bytes:
    encoded = value.encode("ascii")
    return encoded + b"\0" * (len(encoded) % 2)


def _title(name: str) -> bytes:
    return name.encode("ascii").ljust(16)
