"""A C-STORE SCU over a plain socket: fast, able to vanish, and independent of what is under test.

It speaks the upper layer protocol itself (PS3.8 9.3), and costs little beside the node.
"""

from __future__ import annotations

import random
import socket
import struct
from typing import Final

from pydicom.uid import ExplicitVRLittleEndian

from tests.end_to_end.made_images import SOP_CLASSES, Image

OFFERED_PDU: Final = 16384
ANSWER_SECONDS: Final = 60.0


class AssociationRejectedError(ConnectionRefusedError):
    """The node wants no association; `reason` has result, source and reason (PS3.8 9.3.4)."""

    def __init__(self, reason: tuple[int, int, int]) -> None:
        super().__init__(f"the association was rejected: {reason}")
        self.reason = reason


class StoreAssociation:
    """An association that sends C-STORE requests, one at a time.

    Raises:
        OSError: from every method: refused, rejected, aborted, reset, or no answer in time.
    """

    def __init__(self, port: int, *, calling: str, called: str = "WETREAD") -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), ANSWER_SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._message = 0
        try:
            self._socket.sendall(_associate_rq(calling, called))
            kind, body = self._pdu()
            if kind == 0x03:
                raise AssociationRejectedError((body[1], body[2], body[3]))
            if kind != 0x02:
                raise ConnectionRefusedError(f"the association was answered with PDU {kind:#04x}")
            self._most = _max_length(body)
        except OSError:
            self.close()
            raise

    def store(self, image: Image) -> int:
        """Send an image; return the status of the response."""
        self._socket.sendall(b"".join(self._request(image)))
        return self._status()

    def vanish(self, image: Image, chance: random.Random) -> None:
        """Send a part of an image and break the connection, by FIN or by RST."""
        whole = b"".join(self._request(image))
        self._socket.sendall(whole[: chance.randrange(1, len(whole))])
        if chance.random() < 0.5:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def release(self) -> None:
        """Release the association and close the connection."""
        try:
            self._socket.sendall(b"\x05\x00\x00\x00\x00\x04\x00\x00\x00\x00")
            self._pdu()
        finally:
            self.close()

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def _request(self, image: Image) -> list[bytes]:
        self._message = self._message % 0xFFFF + 1
        context = SOP_CLASSES.index(image.sop_class_uid) * 2 + 1
        command = _c_store_rq(image, self._message)
        pieces = [struct.pack(">BxIIBB", 4, len(command) + 6, len(command) + 2, context, 3)]
        pieces.append(command)
        room = self._most - 6
        data = memoryview(image.data_set)
        for start in range(0, len(data), room):
            part = data[start : start + room]
            last = 2 if start + room >= len(data) else 0
            pieces.append(struct.pack(">BxIIBB", 4, len(part) + 6, len(part) + 2, context, last))
            pieces.append(bytes(part))
        return pieces

    def _status(self) -> int:
        kind, body = self._pdu()
        if kind != 0x04:
            raise ConnectionAbortedError(f"a C-STORE was answered with PDU {kind:#04x}")
        position, elements = 6, {}
        while position < len(body):
            group, element, length = struct.unpack_from("<HHI", body, position)
            elements[group, element] = body[position + 8 : position + 8 + length]
            position += 8 + length
        (answered,) = struct.unpack("<H", elements[0x0000, 0x0120])
        if answered != self._message:
            raise ConnectionAbortedError("another message was answered")
        status: int = struct.unpack("<H", elements[0x0000, 0x0900])[0]
        return status

    def _pdu(self) -> tuple[int, bytes]:
        kind, length = struct.unpack(">BxI", self._exactly(6))
        return kind, self._exactly(length)

    def _exactly(self, count: int) -> bytes:
        content = b""
        while len(content) < count:
            piece = self._socket.recv(count - len(content))
            if not piece:
                raise ConnectionResetError("the node closed the connection")
            content += piece
        return content


def _item(kind: int, content: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(content)) + content


def _associate_rq(calling: str, called: str) -> bytes:
    """Return an A-ASSOCIATE-RQ PDU with a context for each SOP class (PS3.8 9.3.2)."""
    contexts = b"".join(
        _item(
            0x20,
            bytes([number * 2 + 1, 0, 0, 0])
            + _item(0x30, uid.encode())
            + _item(0x40, ExplicitVRLittleEndian.encode()),
        )
        for number, uid in enumerate(SOP_CLASSES)
    )
    user = _item(0x51, struct.pack(">I", OFFERED_PDU)) + _item(0x52, b"2.25.1") + _item(0x55, b"L")
    body = b"\x00\x01\x00\x00" + called.ljust(16).encode() + calling.ljust(16).encode()
    body += bytes(32) + _item(0x10, b"1.2.840.10008.3.1.1.1") + contexts + _item(0x50, user)
    return struct.pack(">BxI", 1, len(body)) + body


def _max_length(body: bytes) -> int:
    """Return the longest PDU that the acceptor of an A-ASSOCIATE-AC takes; all contexts must be."""
    position, most, accepted = 68, 1 << 20, 0
    while position < len(body):
        kind, length = struct.unpack_from(">BxH", body, position)
        content = body[position + 4 : position + 4 + length]
        if kind == 0x21 and content[2] == 0:
            accepted += 1
        if kind == 0x50:
            most = struct.unpack_from(">I", content, 4)[0] or most
        position += 4 + length
    if accepted != len(SOP_CLASSES):
        raise ConnectionRefusedError(f"only {accepted} presentation contexts were accepted")
    return most


def _c_store_rq(image: Image, message: int) -> bytes:
    """Return the command set of a C-STORE-RQ, Implicit VR Little Endian (PS3.7 9.3.1.1)."""
    elements = b""
    for element, value in (
        (0x0002, image.sop_class_uid.encode()),
        (0x0100, struct.pack("<H", 1)),
        (0x0110, struct.pack("<H", message)),
        (0x0700, bytes(2)),
        (0x0800, bytes(2)),
        (0x1000, image.sop_instance_uid.encode()),
    ):
        even = value + bytes(len(value) % 2)
        elements += struct.pack("<HHI", 0, element, len(even)) + even
    return struct.pack("<HHII", 0, 0, 4, len(elements)) + elements
