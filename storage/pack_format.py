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
ERASED: Final = b"GONE"
"""What retention writes over MARK: data and note are erased, the head stays and says how long they
were, so that who walks through a pack comes to the records behind."""
FIRST: Final = 64
"""Where the first record of a pack starts: behind MAGIC and the pack's id."""
CHUNK: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class PackRecord:
    """A finished record as it is found in a pack. `end` is where the next one starts.

    Of one that retention erased only the head is there: its note is empty.
    """

    location: Location
    digest: str
    size: int
    note: bytes
    end: int
    erased: bool = False


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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Head:
    """A head whose checksum agrees."""

    erased: bool
    note_crc: int
    data: int
    prefix: int
    note: int
    digest: bytes


def record_at(descriptor: int, name: str, salt: bytes, start: int) -> PackRecord | None:
    """Return the record that starts there, if one was finished there: head and digest agree."""
    record = outline_at(descriptor, name, salt, start)
    if record is None or record.erased:
        return record
    prefix = record.location.length - record.size
    first = record.location.offset + prefix
    agrees = _digest_agrees(descriptor, first, record.size, bytes.fromhex(record.digest))
    return record if agrees else None


def outline_at(descriptor: int, name: str, salt: bytes, start: int) -> PackRecord | None:
    """Return the record that starts there by its head and note alone; its data is not read."""
    head = _head_at(descriptor, salt, start)
    if head is None:
        return None
    first = start + FRAME
    behind = first + head.prefix + head.data
    text = b"" if head.erased else os.pread(descriptor, head.note, behind)
    if not head.erased and zlib.crc32(text) != head.note_crc:
        return None
    return PackRecord(
        location=Location(pack=name, offset=first, length=head.prefix + head.data),
        digest=head.digest.hex(),
        size=head.data,
        note=text,
        end=behind + head.note + -(behind + head.note) % 8,
        erased=head.erased,
    )


def mark_erased(descriptor: int, salt: bytes, start: int) -> bool:
    """Write over a record's mark that it is erased; False: no record was finished there."""
    head = _head_at(descriptor, salt, start)
    if head is None:
        return False
    if not head.erased:
        os.pwrite(descriptor, ERASED, start)
    return True


def _head_at(descriptor: int, salt: bytes, start: int) -> _Head | None:
    head = os.pread(descriptor, FRAME, start)
    if len(head) < FRAME or head[:4] not in {MARK, ERASED}:
        return None
    crc, note_crc, data, prefix, note, digest = HEAD.unpack(head)
    if crc != zlib.crc32(head[8:], zlib.crc32(salt)):
        return None
    return _Head(
        erased=head[:4] == ERASED,
        note_crc=note_crc,
        data=data,
        prefix=prefix,
        note=note,
        digest=digest,
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
