"""Where each process of a node writes its packs, and the lock by which it is the only one there.

Process 0 is the node itself: its packs lie in the root. The others are numbered from 1, and write
in a folder of that name below it. A lock is the kernel's: it goes when its process does.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Final

from storage.disk import resource_error
from storage.errors import InUseError

LOCK: Final = "writer.lock"
LOOK_SECONDS: Final = 0.1


def pack_folder(root: Path, process: int) -> Path:
    """Return where a process of the node writes its packs."""
    return root if process == 0 else root / str(process)


def owner_name(node: str, process: int) -> str:
    """Return how a process is named as the owner of associations and packs.

    A node's name has no backslash, so that no other node has this name.
    """
    return node if process == 0 else f"{node}\\{process}"


def numbered_folders(root: Path) -> Iterator[tuple[int, Path]]:
    """Yield the folders of the numbered processes that are there, as far as their numbers run."""
    for process in count(1):
        folder = pack_folder(root, process)
        if not folder.is_dir():
            return
        yield process, folder


def pack_name(text: str) -> str:
    """Return a pack's name if it is one: it becomes part of a path."""
    if len(text) != 32 or not set(text) <= set("0123456789abcdef"):  # noqa: PLR2004 - a UUID
        raise ValueError("a pack is named by 32 lower-case hexadecimal digits")
    return text


def packs_in(folder: Path, suffix: str) -> dict[str, int]:
    """Return the packs of one folder, with their length in bytes."""
    found = {}
    for item in os.scandir(folder):
        if item.name.endswith(suffix):
            with contextlib.suppress(FileNotFoundError):
                found[item.name.removesuffix(suffix)] = item.stat().st_size
    return found


def whereabouts(name: str, folder: Path, root: Path) -> Path:
    """Return where the file of a pack lies: in a folder, or in another one of the same node.

    A pack that is in none of them would be in the first.
    """
    others = (other / name for _, other in numbered_folders(root))
    places = (folder / name, root / name, *others)
    return next((place for place in places if place.exists()), places[0])


class WriterLock:
    """Held by whoever may write in a folder of packs; a context manager.

    Raises:
        InUseError: from `take`; another process holds it all the time that is waited.
        OutOfResourcesError: from `take`; the disk does not take a file.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOCK
        self._descriptor = -1

    def take(self, seconds: float) -> WriterLock:
        """Take the lock, waiting for it no longer than some seconds."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except OSError as error:
            raise resource_error(error) from error
        if not _locked(descriptor, time.monotonic() + seconds):
            os.close(descriptor)
            raise InUseError(f"{self._path.parent}: another process of a node writes there")
        self._descriptor = descriptor
        return self

    def release(self) -> None:
        """Let another process write there."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __enter__(self) -> WriterLock:
        """Hold the lock that was taken."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Release it."""
        self.release()


def _locked(descriptor: int, until: float) -> bool:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                return False
            time.sleep(LOOK_SECONDS)
        else:
            return True
