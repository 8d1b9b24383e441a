"""How records lie in a pack, and when one counts as finished."""

from __future__ import annotations

import os
import struct
import zlib
from dataclasses import dataclass
from typing import Final

from storage.digests import INSTANCE_DIGEST_BYTES, InstanceDigest
from storage.errors import StorageError
from storage.records import Location

MAGIC: Final = b"WETREAD PACK 2\r\n"
HEAD: Final = struct.Struct(f"<4xII4xQII{INSTANCE_DIGEST_BYTES}s16x")
"""CRC-32 of the pack's id and what follows; CRC-32 of the note; lengths of data, prefix and note;
digest of the data. The id is random, so that nobody can send bytes that look like a record."""
FRAME: Final = 64
FAMILY: Final = MAGIC[:13]
MARK: Final = b"INST"
FIRST: Final = 64
"""Where the first record of a pack starts: behind MAGIC and the pack's id."""
CHUNK: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class PackRecord:
    """A finished record as it is found in a pack. `end` is where the next one starts."""

    location: Location
    digest: str
    size: int
    note: bytes
    end: int


def check_version(descriptor: int, name: str) -> None:
    """Hold that a pack is of this version: what another wrote must not be taken for unfinished.

    Raises:
        StorageError: it is not.
    """
    magic = os.pread(descriptor, len(MAGIC), 0)
    if magic.startswith(FAMILY) and magic != MAGIC:
        raise StorageError(f"pack {name} was written by another version of this program")


def head_of(salt: bytes, data: int, prefix: int, note: bytes, digest: bytes) -> bytes:
    """Return the head of a record; `salt` is the pack's id."""
    head = bytearray(HEAD.pack(0, zlib.crc32(note), data, prefix, len(note), digest))
    head[:4] = MARK
    struct.pack_into("<I", head, 4, zlib.crc32(head[8:], zlib.crc32(salt)))
    return bytes(head)


def record_at(descriptor: int, name: str, salt: bytes, start: int) -> PackRecord | None:
    """Return the record that starts there, if one was finished there: head and digest agree."""
    head = os.pread(descriptor, FRAME, start)
    if len(head) < FRAME or head[:4] != MARK:
        return None
    crc, note_crc, data, prefix, note, digest = HEAD.unpack(head)
    if crc != zlib.crc32(head[8:], zlib.crc32(salt)):
        return None
    first = start + FRAME
    if not _digest_agrees(descriptor, first + prefix, data, digest):
        return None
    behind = first + prefix + data
    text = os.pread(descriptor, note, behind)
    if zlib.crc32(text) != note_crc:
        return None
    return PackRecord(
        location=Location(pack=name, offset=first, length=prefix + data),
        digest=digest.hex(),
        size=data,
        note=text,
        end=behind + note + -(behind + note) % 8,
    )


def _digest_agrees(descriptor: int, start: int, length: int, expected: bytes) -> bool:
    digest, position, stop = InstanceDigest(), start, start + length
    while position < stop:
        chunk = os.pread(descriptor, min(CHUNK, stop - position), position)
        if not chunk:
            return False
        digest.update(chunk)
        position += len(chunk)
    return digest.digest() == expected
