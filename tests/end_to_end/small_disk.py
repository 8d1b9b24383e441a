"""A small disk of its own for a node's data folder, that can be full, read-only or fail.

As root an ext4 in a file on a loop device, which can also lose its power; where there is none, and
for others than root in a mount namespace of their own (`unshare`), a tmpfs.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

SHUTDOWN: Final = 0x8004587D
"""EXT4_IOC_SHUTDOWN; 2: without flushing the journal: what a power cut leaves."""
NO_LOG_FLUSH: Final = struct.pack("I", 2)
TRIES: Final = 20
FILLER: Final = "filler"
OWN_NAMESPACE: Final = "WETREAD_OWN_MOUNTS"
BUSY_SECONDS: Final = 20.0


class NoSmallDiskError(Exception):
    """Nothing can be mounted here: the faults of a disk cannot be played through."""


def enter_own_mounts() -> None:
    """Where mounting is not allowed: start this program again where it is, in a namespace."""
    if os.geteuid() == 0 or OWN_NAMESPACE in os.environ:
        return
    command = ["unshare", "--user", "--map-current-user", "--keep-caps", "--mount"]
    if subprocess.run([*command, "true"], check=False, capture_output=True).returncode:
        return  # mounting fails, and says so
    main = sys.modules["__main__"].__spec__
    assert main is not None, "run with python -m"
    arguments = [*command, sys.executable, "-m", main.name, *sys.argv[1:]]
    os.execvpe("unshare", arguments, {**os.environ, OWN_NAMESPACE: "1"})  # noqa: S606


class SmallDisk:
    """A file system of some MiB, mounted on a folder."""

    def __init__(self, folder: Path, image: Path, mib: int) -> None:
        self.folder = folder
        self._image = image
        folder.mkdir(parents=True)
        self.has_power_switch = self._make_ext4(mib)
        if not self.has_power_switch:
            size = f"size={mib}m,mode=0755"
            if not _succeeds("mount", "-t", "tmpfs", "-o", size, "none", str(folder)):
                raise NoSmallDiskError(
                    "neither an ext4 on a loop device nor a tmpfs can be mounted"
                )

    def _make_ext4(self, mib: int) -> bool:
        if os.geteuid() != 0:
            return False
        with self._image.open("wb") as file:
            file.truncate(mib << 20)
        return _succeeds("mkfs.ext4", "-q", "-F", "-m", "0", str(self._image)) and self._mount()

    def _mount(self) -> bool:
        return _succeeds("mount", "-o", "loop", str(self._image), str(self.folder))

    @property
    def name(self) -> str:
        """Which kind it is."""
        return "ext4 on a loop device" if self.has_power_switch else "tmpfs"

    def fill(self, leave: int) -> None:
        """Take all space but some bytes."""
        with (self.folder / FILLER).open("wb") as file:
            for step in (64 << 20, 4 << 20, 256 << 10, 4 << 10):
                with contextlib.suppress(OSError):
                    while self._free() - leave >= step:
                        os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, step)

    def _free(self) -> int:
        disk = os.statvfs(self.folder)
        return disk.f_bavail * disk.f_frsize

    def empty(self) -> None:
        """Give the space back."""
        (self.folder / FILLER).unlink()

    def make_read_only(self) -> None:
        """Let nothing be opened for writing; what is open for writing stays so.

        A file system with open files cannot be remounted, so a read-only mount is laid over it;
        again, where somebody opened a file through it in the moment before it was read-only.
        """
        folder = str(self.folder)
        for _ in range(TRIES):
            _run("mount", "--bind", folder, folder)
            if _succeeds("mount", "-o", "remount,bind,ro", folder):
                return
            _run("umount", "--lazy", folder)
        raise NoSmallDiskError(f"{folder} did not become read-only in {TRIES} tries")

    def make_writable(self) -> None:
        """Take the read-only mount away."""
        _run("umount", "--lazy", str(self.folder))

    def fail(self) -> None:
        """Fail every read, write and sync from now on (EIO), and lose what was not synced."""
        try:
            descriptor = os.open(self.folder, os.O_RDONLY)
        except OSError:
            return  # it has failed before
        try:
            fcntl.ioctl(descriptor, SHUTDOWN, NO_LOG_FLUSH)
        finally:
            os.close(descriptor)

    def restore(self) -> None:
        """Mount again what had failed, as after a power cut; nobody may have files open there."""
        self._unmount()
        if not self._mount():
            raise NoSmallDiskError("the file system cannot be mounted again")

    def close(self) -> None:
        """Unmount it; the image of an ext4 stays in its file."""
        self._unmount()

    def _unmount(self) -> None:
        until = time.monotonic() + BUSY_SECONDS
        while not _succeeds("umount", str(self.folder)):
            if time.monotonic() > until:
                _run("umount", "--lazy", str(self.folder))
                raise NoSmallDiskError("somebody still has files open on the disk")
            time.sleep(0.1)

    def __enter__(self) -> SmallDisk:
        """Do nothing more."""
        return self

    def __exit__(self, *_: object) -> None:
        """Unmount it."""
        with contextlib.suppress(NoSmallDiskError):
            self.close()


def _succeeds(*command: str) -> bool:
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
