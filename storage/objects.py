"""Result objects by key: whole or not at all, synced, named by their digest only."""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Final

from storage.digests import digest_of, new_digest
from storage.disk import resource_error, sync_folder
from storage.records import ObjectTooLargeError, StoredObject

CHUNK: Final = 1 << 20
DIGEST_LENGTH: Final = 64
RESOURCE_ERRORS: Final = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE}
)


class ObjectStore:
    """Files under `root/objects`, named by the digest of their data; parts in `root/incoming`.

    A part file is written and synced, then renamed to its name, then the folders are synced: a
    name under `objects` always has all of its bytes on the disk.
    """

    def __init__(self, root: Path) -> None:
        self._objects = root / "objects"
        self._incoming = root / "incoming"
        for folder in (self._objects, self._incoming):
            folder.mkdir(parents=True, exist_ok=True)
        for folder in (root, root.absolute().parent):
            sync_folder(folder)

    def write(
        self, data: BinaryIO, *, prefix: bytes = b"", limit: int | None = None
    ) -> StoredObject:
        """Keep `prefix` and all of `data` as one object; when this returns it is durable.

        The digest is over `data` alone. Bytes that are there already are not written twice.

        Raises:
            ObjectTooLargeError: `data` is longer than `limit`.
            OutOfResourcesError: the disk is full, over quota, read-only or failing.
        """
        part = self._incoming / f"{uuid.uuid4().hex}.part"
        with _resources():
            try:
                return self._keep(part, data, prefix, limit)
            finally:
                part.unlink(missing_ok=True)

    def _keep(self, part: Path, data: BinaryIO, prefix: bytes, limit: int | None) -> StoredObject:
        with part.open("xb") as file:
            digest, size = self._write_part(file, data, prefix, limit)
            target = self.path(digest)
            created = not _there(target, len(prefix) + size, digest, size)
            if created:
                self._sync(file)
                self._rename(part, target)
        # What is there already may have been renamed by a writer that has not synced it yet.
        sync_folder(target.parent)
        sync_folder(self._objects)
        return StoredObject(digest=digest, size=size, created=created)

    def path(self, digest: str) -> Path:
        """Return where the object with this digest lies, or would lie."""
        if not _is_digest(digest):
            raise ValueError("a digest is 64 lower-case hexadecimal digits")
        return self._objects / digest[:2] / digest[2:]

    def open(self, digest: str) -> BinaryIO:
        """Open an object for reading, from its first byte (the prefix)."""
        return self.path(digest).open("rb")

    def exists(self, digest: str) -> bool:
        """Say whether the object is there."""
        return self.path(digest).is_file()

    def delete(self, digest: str) -> int:
        """Remove an object; return its bytes. Only retention may call this (invariant 2).

        Raises:
            OutOfResourcesError: the disk is read-only or failing.
        """
        target = self.path(digest)
        with _resources():
            try:
                freed = target.stat().st_size
                target.unlink()
            except FileNotFoundError:
                freed = 0  # it is gone, but perhaps not for certain
            if target.parent.is_dir():
                sync_folder(target.parent)
        return freed

    def digests(self) -> Iterator[str]:
        """Yield the digest of every object, in order; files that are no objects are left out."""
        for folder in sorted(self._objects.iterdir()):
            items = sorted(folder.iterdir()) if folder.is_dir() else ()
            yield from filter(_is_digest, (folder.name + item.name for item in items))

    def sweep_parts(self, older_than: datetime) -> int:
        """Remove part files last written before a moment; return how many there were."""
        count = 0
        for part in self._incoming.iterdir():
            try:
                written = datetime.fromtimestamp(part.stat().st_mtime, UTC)
                if written < older_than:
                    part.unlink()
                    count += 1
            except FileNotFoundError:
                continue  # its writer ended meanwhile
        return count

    def free_bytes(self) -> int:
        """Return how much the disk under the objects can still take."""
        return shutil.disk_usage(self._objects).free

    # Three steps that a power cut can come between, each on its own so that a test can cut there.

    def _write_part(
        self, file: BinaryIO, data: BinaryIO, prefix: bytes, limit: int | None
    ) -> tuple[str, int]:
        digest, size = new_digest(), 0
        file.write(prefix)
        while chunk := data.read(CHUNK):
            size += len(chunk)
            if limit is not None and size > limit:
                raise ObjectTooLargeError(f"the object is larger than {limit} bytes")
            digest.update(chunk)
            file.write(chunk)
        file.flush()
        return digest.hexdigest(), size

    def _sync(self, file: BinaryIO) -> None:
        os.fsync(file.fileno())

    def _rename(self, part: Path, target: Path) -> None:
        target.parent.mkdir(exist_ok=True)
        part.rename(target)


def _there(target: Path, whole: int, digest: str, size: int) -> bool:
    """Say whether the object is there, all of it; a damaged one is not, and is written again.

    An earlier writer's prefix may have had another length: then the data behind it must be ours.
    """
    try:
        there = target.stat().st_size
    except FileNotFoundError:
        return False
    if there == whole:
        return True
    if there < size:
        return False
    with target.open("rb") as file:
        file.seek(there - size)
        return digest_of(file) == digest


def _is_digest(name: str) -> bool:
    return len(name) == DIGEST_LENGTH and set(name) <= set("0123456789abcdef")


@contextmanager
def _resources() -> Iterator[None]:
    """Turn the operating system's lack of resources into the domain's error."""
    try:
        yield
    except OSError as error:
        if error.errno in RESOURCE_ERRORS:
            raise resource_error(error) from error
        raise
