"""What keeps a bench honest: memory that was touched before, a place to write, room enough.

A virtual machine pays for a page that it touches for the first time some six times what a used
page costs, also where it was free for some seconds and went back to the host; and a file system
that has just lost thousands of files makes new ones slowly. So output goes to memory, which is
touched before each run; on a real disk nothing is removed before the end.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

MEMORY: Final = Path("/dev/shm")  # noqa: S108 - a file system in memory, no predictable name
MEBIBYTE: Final = 1 << 20
SHARE: Final = 0.75
"""Of the memory and the room that are free, what a bench may take."""


class RoomError(Exception):
    """There is no room for the instances that are to be sent."""


def in_memory(folder: Path) -> bool:
    """Say whether a folder lies on a file system in memory."""
    mounts = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    by_place = {line.split()[1]: line.split()[2] for line in mounts}
    resolved = folder.resolve()
    for place in (resolved, *resolved.parents):
        if str(place) in by_place:
            return by_place[str(place)] in {"tmpfs", "ramfs"}
    return False


def need_room(folder: Path, wanted: int) -> None:
    """See that so many bytes can be written.

    Raises:
        RoomError: they cannot, or they would take most of the memory.
    """
    room = shutil.disk_usage(folder).free
    if in_memory(folder):
        room = min(room, _available())
    if wanted > SHARE * room:
        raise RoomError(
            f"{folder}: {wanted >> 20} MiB would be kept, {room >> 20} MiB are free; take fewer "
            "images, associations or repetitions, or another --root"
        )


def warm_memory(wanted: int) -> None:
    """Write so many bytes to memory and let them go, as far as memory is free."""
    if not MEMORY.is_dir():
        return
    room = min(shutil.disk_usage(MEMORY).free, _available())
    block = bytes(MEBIBYTE)
    path = MEMORY / f"wetread-bench-warm-{os.getpid()}"
    try:
        with path.open("xb", buffering=0) as file:
            for _ in range(int(min(wanted, SHARE * room)) // MEBIBYTE):
                file.write(block)
    finally:
        path.unlink(missing_ok=True)


def _available() -> int:
    text = Path("/proc/meminfo").read_text(encoding="utf-8")
    return 1024 * int(text.partition("MemAvailable:")[2].split()[0])
