"""Received instances, one behind the other in append-only files: one sync makes one durable.

A pack is written by one association at a time. Each record in it is a whole DICOM file (PS3.10) and
a note that says what the index must know, framed by a head:

    head (FRAME)  preamble, file meta, data set  note  padding to 8 bytes

A record whose head, digest and note agree was finished; the sender of any other one was never
answered. Packs are filled with zeros in advance where they can be: a sync then has only data to
write and no space to allocate, which is several times as fast on a journaling file system.
"""

from __future__ import annotations

import contextlib
import os
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, TypeAlias

from storage.disk import behind, claim, resource_error, sync_file, sync_folder
from storage.pack_folders import numbered_folders, pack_name, packs_in, whereabouts
from storage.pack_format import (
    CHUNK,
    FIRST,
    FRAME,
    MAGIC,
    PackRecord,
    check_version,
    head_of,
    outline_at,
    record_at,
)
from storage.records import Location

MOST_PIECES: Final = 1000  # and some of ours; a system call takes 1024
SUFFIX: Final = ".pack"
UNFINISHED: Final = ".new"
Look: TypeAlias = Callable[[int, str, bytes, int], PackRecord | None]
"""(descriptor, pack, its id, position) -> the record that was finished there."""


class Pack:
    """One open pack, in the hands of one association: `begin`, `write`..., then `finish`.

    Raises:
        OutOfResourcesError: from every method that writes; the record is given up, those before it
            stand. After a failed sync nothing more is written to this pack.
    """

    def __init__(self, path: Path, descriptor: int, *, durable: bool, prepared: int = 0) -> None:
        self.name = path.stem
        self.path = path
        self.descriptor = descriptor
        self.end = FIRST  # where the next record starts
        self.failed = False
        self.unsynced = 0
        self._durable = durable
        self._prepared = prepared  # written in advance up to here
        self._salt = uuid.UUID(self.name).bytes
        self._position = FIRST
        self._prefix = 0
        self._held = b""
        self.open_record = False

    def begin(self, prefix: bytes) -> None:
        """Start a record with preamble and file meta; they are written with the first bytes."""
        self._prefix = len(prefix)
        self._held = prefix
        self._position = self.end + FRAME
        self.open_record = True

    def write(self, pieces: Sequence[bytes | memoryview]) -> None:
        """Append bytes of the data set, as they came."""
        for start in range(0, len(pieces) or 1, MOST_PIECES):
            self._put(list(pieces[start : start + MOST_PIECES]))

    def read_back(self, offset: int, length: int) -> bytes:
        """Return bytes of the open record's data set, counted from its first byte."""
        first = self.end + FRAME + self._prefix + offset
        return os.pread(self.descriptor, max(0, min(length, self._position - first)), first)

    def location(self, pieces: Sequence[bytes | memoryview] = ()) -> Location:
        """Return where the open record's DICOM file lies, once these pieces are added to it."""
        length = self._position - self.end - FRAME + len(self._held) + sum(map(len, pieces))
        return Location(pack=self.name, offset=self.end + FRAME, length=length)

    def finish(self, digest: bytes, note: bytes, pieces: Sequence[bytes | memoryview] = ()) -> None:
        """Add the last bytes and close the record; with `durable` it is on the disk then."""
        if len(pieces) > MOST_PIECES:
            self.write(pieces)
            pieces = ()
        length = self.location(pieces).length
        behind = self.end + FRAME + length + len(note)
        head = head_of(self._salt, length - self._prefix, self._prefix, note, digest)
        rest = [*pieces, note, bytes(-behind % 8)]
        if self._held:  # nothing of it was written yet: all in one go
            self._held = head + self._held
            self._position = self.end
            self._put(rest)
        else:
            self._put(rest)
            self._put_head(head)
        self.unsynced += self._position - self.end
        if self._durable:
            self.sync()
        self.end = self._position
        self.open_record = False

    def _put_head(self, head: bytes) -> None:
        try:
            os.pwrite(self.descriptor, head, self.end)
        except OSError as error:
            raise resource_error(error) from error

    def abandon(self) -> None:
        """Give the open record up: the next one takes its place, and its space goes back."""
        rest = max(self.end, self._prepared)
        if self._position > rest:
            with contextlib.suppress(OSError):  # then it stays until the pack is sealed
                os.ftruncate(self.descriptor, rest)
        self._position = self.end
        self._held = b""
        self.open_record = False

    def sync(self) -> None:
        """Bring what was written to the disk."""
        try:
            os.fdatasync(self.descriptor)
        except OSError as error:
            self.failed = True  # what the kernel then does with the pages is not known
            raise resource_error(error) from error
        self.unsynced = 0

    def _put(self, pieces: list[bytes | memoryview]) -> None:
        if self._held:
            pieces.insert(0, self._held)
        want = sum(map(len, pieces))
        try:
            done = os.pwritev(self.descriptor, pieces, self._position)
            while done < want:
                pieces = behind(pieces, done)
                self._position += done
                want -= done
                done = os.pwritev(self.descriptor, pieces, self._position)
        except OSError as error:
            raise resource_error(error) from error
        self._position += done
        self._held = b""

    def seal(self) -> None:
        """End the pack where its last record ends, and close it."""
        try:
            os.ftruncate(self.descriptor, self.end)
            os.fdatasync(self.descriptor)
        except OSError as error:
            raise resource_error(error) from error
        finally:
            os.close(self.descriptor)


class PackStore:
    """The packs in one folder. `durable` False: a record is synced later, by `flush`.

    What is read may lie in the folder of another process below `root`; what is written never does.
    """

    def __init__(
        self,
        folder: Path,
        *,
        root: Path | None = None,
        pack_bytes: int = 64 << 20,
        durable: bool = True,
    ) -> None:
        self.folder = folder
        self._root = root or folder
        self.pack_bytes = pack_bytes
        self._durable = durable
        self._lock = threading.Lock()
        self._idle: list[Pack] = []
        self._lent: set[Pack] = set()
        self._spares: list[Path] = []
        folder.mkdir(parents=True, exist_ok=True)
        for level in (folder, folder.absolute().parent, folder.absolute().parent.parent):
            sync_folder(level)

    # ------------------------------------------------------------ writing

    def borrow(self) -> Pack:
        """Hand out a pack that nobody else writes to.

        Raises:
            OutOfResourcesError: there is no spare one, and a new one cannot be made.
        """
        with self._lock:
            pack = self._idle.pop() if self._idle else None
            spare = self._spares.pop() if pack is None and self._spares else None
        if pack is None:
            pack = self._open_spare(spare) if spare is not None else self._create()
        with self._lock:
            self._lent.add(pack)
        return pack

    def give_back(self, pack: Pack) -> None:
        """Take a pack back; a full one, or one whose disk failed, is sealed."""
        pack.abandon()
        usable = not pack.failed and pack.end < self.pack_bytes
        with self._lock:
            self._lent.discard(pack)
            if usable:
                self._idle.append(pack)
        if not usable:
            pack.seal()

    def flush(self) -> None:
        """Bring every finished record to the disk (`durable` False: they may not be there yet).

        Raises:
            OutOfResourcesError: the disk fails.
        """
        with self._lock:
            packs = [pack for pack in (*self._idle, *self._lent) if pack.unsynced]
        for pack in packs:
            pack.sync()

    @property
    def unsynced(self) -> int:
        """Bytes of finished records that are not on the disk for certain."""
        with self._lock:
            return sum(pack.unsynced for pack in (*self._idle, *self._lent))

    def prepare_spare(self, keep_going: threading.Event | None = None) -> bool:
        """Write one spare pack in advance; False if told to stop meanwhile.

        Raises:
            OutOfResourcesError: the disk cannot take it.
        """
        name = uuid.uuid4().hex
        unfinished = self.folder / f"{name}{UNFINISHED}"
        try:
            complete = _write_zeros(unfinished, name, self.pack_bytes, keep_going)
            if complete:
                unfinished.rename(self.folder / f"{name}{SUFFIX}")
                sync_folder(self.folder)
        except OSError as error:
            raise resource_error(error) from error
        finally:
            with contextlib.suppress(OSError):
                unfinished.unlink(missing_ok=True)
        if complete:
            with self._lock:
                self._spares.append(self.folder / f"{name}{SUFFIX}")
        return complete

    def spare_count(self) -> int:
        """How many packs lie ready."""
        with self._lock:
            return len(self._spares) + len(self._idle)

    def close(self) -> None:
        """Seal every pack that has a record; empty ones stay as spares of the next start."""
        with self._lock:
            packs, self._idle = self._idle, []
        for pack in packs:
            if pack.end > FIRST:
                pack.seal()
            else:
                os.close(pack.descriptor)
                self.settle(pack.name, FIRST)

    def _open_spare(self, path: Path) -> Pack:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise resource_error(error) from error
        claim(descriptor)
        return Pack(path, descriptor, durable=self._durable, prepared=self.pack_bytes)

    def _create(self) -> Pack:
        name = uuid.uuid4().hex
        path = self.folder / f"{name}{SUFFIX}"
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
            claim(descriptor)
            os.pwrite(descriptor, MAGIC + uuid.UUID(name).bytes, 0)
            os.fsync(descriptor)
            sync_folder(self.folder)
        except OSError as error:
            raise resource_error(error) from error
        return Pack(path, descriptor, durable=self._durable)

    # ------------------------------------------------------------ reading

    def path(self, location: Location) -> Path:
        """Return the file that holds an instance."""
        return self.path_of(location.pack)

    def path_of(self, name: str) -> Path:
        """Return the file of a pack, whichever process of the node wrote it."""
        return whereabouts(f"{pack_name(name)}{SUFFIX}", self.folder, self._root)

    def read(self, location: Location) -> bytes:
        """Return the DICOM file of an instance.

        Raises:
            OSError: the pack is not there.
        """
        with self.path(location).open("rb") as file:
            file.seek(location.offset)
            return file.read(location.length)

    def free_bytes(self) -> int:
        """Return how much the disk under the packs can still take."""
        disk = os.statvfs(self.folder)
        return disk.f_bavail * disk.f_frsize

    def names(self) -> dict[str, int]:
        """Return the packs that are there, with their length in bytes."""
        return packs_in(self.folder, SUFFIX)

    def names_of_all(self) -> dict[str, int]:
        """Return those that other processes of the node write too."""
        found = self.names()
        for _, folder in numbered_folders(self._root):
            found |= packs_in(folder, SUFFIX)
        return found

    def records(self, name: str, start: int = 0) -> Iterator[PackRecord]:
        """Yield the finished records of a pack from a position on, each checked whole, and durable.

        Those that retention erased are among them.

        Raises:
            StorageError: another version wrote the pack, in another way; or the disk fails.
        """
        sync_file(self.path_of(name))  # a writer that was killed may have left them in memory only
        return self._walk(name, start, record_at)

    def outlines(self, name: str) -> Iterator[PackRecord]:
        """Yield the finished records of a pack by heads and notes; their data is not read."""
        return self._walk(name, FIRST, outline_at)

    def _walk(self, name: str, start: int, look: Look) -> Iterator[PackRecord]:
        path = self.path_of(name)
        salt = uuid.UUID(name).bytes
        position = max(start, FIRST)
        with path.open("rb") as file:
            check_version(file.fileno(), name)
            while (record := look(file.fileno(), name, salt, position)) is not None:
                yield record
                position = record.end

    # ------------------------------------------------------------ tidying

    def settle(self, name: str, end: int) -> None:
        """After a crash: cut a pack behind its last record, or keep an empty one as a spare.

        Raises:
            OutOfResourcesError: the disk is read-only or failing.
        """
        path = self.path_of(name)
        try:
            size = path.stat().st_size
            if end > FIRST:
                if size > end:
                    os.truncate(path, end)
            elif size == self.pack_bytes:
                with self._lock:
                    self._spares.append(path)
            else:
                path.unlink()
        except OSError as error:
            raise resource_error(error) from error

    def sweep(self) -> int:
        """Remove spares whose writing was cut off; return how many. Before anything is borrowed."""
        left = list(self.folder.glob(f"*{UNFINISHED}"))
        for path in left:
            path.unlink(missing_ok=True)
        return len(left)


def _write_zeros(path: Path, name: str, length: int, keep_going: threading.Event | None) -> bool:
    zeros = bytes(CHUNK)
    with path.open("xb") as file:
        path.chmod(0o640)
        for written in range(0, length, CHUNK):
            if keep_going is not None and not keep_going.is_set():
                return False
            file.write(zeros[: length - written])
        file.flush()
        os.fsync(file.fileno())
        os.pwrite(file.fileno(), MAGIC + uuid.UUID(name).bytes, 0)
        os.fsync(file.fileno())
    return True
