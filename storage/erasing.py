"""Takes received bytes off the disk: records out of a pack, or a pack as a whole.

Retention alone calls this, after a row says what goes and why (invariant 2).
"""

from __future__ import annotations

import fcntl
import os
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from storage.disk import punch_holes, resource_error, sync_folder
from storage.pack_format import FRAME, mark_erased, outline_at
from storage.packs import PackStore
from storage.records import Location

BLOCK: Final = 512  # what st_blocks counts, whatever the file system's own are


@dataclass(frozen=True, slots=True, kw_only=True)
class Erased:
    """What came of erasing records: bytes that went back to the disk.

    `whole` False: the file system cannot give parts of a file back; they go with their pack.
    """

    freed: int
    whole: bool


def erase_records(packs: PackStore, name: str, locations: Iterable[Location]) -> Erased:
    """Erase data and notes of records, as often as it is asked for; their neighbours stay.

    Each head is marked, durably, before its data goes: a crash in between leaves a record that
    says it is gone, never one that looks damaged.

    Raises:
        FileNotFoundError: the pack is not here.
        OutOfResourcesError: the disk is read-only or failing.
    """
    descriptor = os.open(packs.path_of(name), os.O_RDWR | os.O_CLOEXEC)
    try:
        before = os.fstat(descriptor).st_blocks
        holes = _mark(descriptor, name, locations)
        os.fdatasync(descriptor)
        whole = punch_holes(descriptor, holes)
        return Erased(freed=BLOCK * (before - os.fstat(descriptor).st_blocks), whole=whole)
    except OSError as error:
        raise resource_error(error) from error
    finally:
        os.close(descriptor)


def _mark(descriptor: int, name: str, locations: Iterable[Location]) -> list[tuple[int, int]]:
    """Mark the heads of records; return the ranges behind them. What is no record is left."""
    salt, holes = uuid.UUID(name).bytes, []
    for start in sorted({location.offset - FRAME for location in locations}):
        if not mark_erased(descriptor, salt, start):
            continue
        record = outline_at(descriptor, name, salt, start)
        if record is not None:
            holes.append((start + FRAME, record.end))
    return holes


def remove_pack(packs: PackStore, name: str, may: Callable[[], bool] = lambda: True) -> int | None:
    """Remove a whole pack, durably, and return the bytes that went back to the disk.

    None: somebody has it open to write, or `may` says no. It is asked while nobody has. A pack
    that was written to once is never opened again, so what `may` wrote down stays true.

    Raises:
        OutOfResourcesError: the disk is read-only or failing.
    """
    path = packs.path_of(name)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0 if may() else None
    except OSError as error:
        raise resource_error(error) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not may():
            return None
        freed = BLOCK * os.fstat(descriptor).st_blocks
        path.unlink(missing_ok=True)
        sync_folder(path.parent)
    except BlockingIOError:
        return None
    except OSError as error:
        raise resource_error(error) from error
    finally:
        os.close(descriptor)
    return freed
