"""The digest that names stored bytes: BLAKE3, 256 bits, as 64 lower-case hexadecimal digits.

Nine gigabytes a second on one core, where SHA-256 takes five times as long: the digest of every
received instance is worked out while its bytes pass by.
"""

from __future__ import annotations

from typing import BinaryIO, Final

from blake3 import blake3

CHUNK: Final = 1 << 20
BLOCK: Final = 32 << 10
"""BLAKE3 works on many 1 KiB chunks at a time, where blocks start at a multiple of this."""


class Digest:
    """A digest of bytes that come in pieces of any length.

    Pieces that end inside a chunk would halve the speed (P-DATA fragments always do), so what is
    left over of a piece waits for the next one.
    """

    __slots__ = ("_blake3", "_rest", "_waiting")

    def __init__(self) -> None:
        self._blake3 = blake3()
        self._rest = bytearray(BLOCK)
        self._waiting = 0

    def update(self, piece: bytes | memoryview) -> None:
        """Add bytes."""
        view = memoryview(piece)
        if self._waiting:
            missing = BLOCK - self._waiting
            if len(view) < missing:
                self._rest[self._waiting : self._waiting + len(view)] = view
                self._waiting += len(view)
                return
            self._rest[self._waiting :] = view[:missing]
            self._blake3.update(self._rest)
            view = view[missing:]
        whole = len(view) - len(view) % BLOCK
        if whole:
            self._blake3.update(view[:whole])
        self._waiting = len(view) - whole
        self._rest[: self._waiting] = view[whole:]

    def digest(self) -> bytes:
        """Return the digest, 32 bytes; nothing can be added afterwards."""
        if self._waiting:
            self._blake3.update(memoryview(self._rest)[: self._waiting])
            self._waiting = 0
        return self._blake3.digest()

    def hexdigest(self) -> str:
        """Return the digest as 64 hexadecimal digits."""
        return self.digest().hex()


def new_digest(content: bytes = b"") -> Digest:
    """Return a digest to add bytes to."""
    digest = Digest()
    digest.update(content)
    return digest


def digest_of(file: BinaryIO) -> str:
    """Return the digest of what is left to read of a file."""
    digest = new_digest()
    while chunk := file.read(CHUNK):
        digest.update(chunk)
    return digest.hexdigest()
