"""Plans on disk: whole or not at all, built once for each key, checked before they are used.

A plan `KEY.plan` has a record `KEY.json` beside it, written after it: what was built, how long it
is and its SHA-256. The lock is about the work of building; which plans there are is told by the
files alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from engines.errors import (
    PlanChangedError,
    PlanError,
    PlanTruncatedError,
    PlanVersionError,
    UnavailableError,
)
from engines.plan_key import BuiltBy, PlanRecipe

PLAN: Final = ".plan"
RECORD: Final = ".json"
LOCK: Final = ".lock"
DAMAGED: Final = ".damaged"
SEAL: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRecord:
    """What is kept beside a plan."""

    sha256: str
    size: int
    built_by: BuiltBy


class PlanCache:
    """A folder of plans that several processes share."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def plan(self, recipe: PlanRecipe, build: Callable[[], bytes]) -> bytes:
        """Return the plan of a recipe: from disk, or built now by one process for all.

        One that is damaged is set aside, with its record, and built again.

        Raises:
            UnavailableError: the folder cannot be read or written to.
            EngineError: what `build` raised.
        """
        key = recipe.key()
        if (found := self._sound(key, recipe.built_by)) is not None:
            return found
        with self._building(key):
            if (found := self._sound(key, recipe.built_by)) is not None:
                return found
            self._set_aside(key)
            data = build()
            self._write(key, data, recipe)
            return data

    def read(self, key: str, built_by: BuiltBy) -> bytes | None:
        """Return a plan whose digest was checked, or None where there is none.

        Raises:
            PlanChangedError, PlanTruncatedError, PlanVersionError: what is wrong with it.
            UnavailableError: the folder cannot be read.
        """
        try:
            record = _parse(self._path(key, RECORD).read_bytes())
            data = self._path(key, PLAN).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UnavailableError(f"plans cannot be read: {error.strerror}") from error
        return check_plan(data, record, built_by)

    def _sound(self, key: str, built_by: BuiltBy) -> bytes | None:
        try:
            return self.read(key, built_by)
        except PlanError:
            return None

    def _write(self, key: str, data: bytes, recipe: PlanRecipe) -> None:
        record = {
            "sha256": hashlib.sha256(data).hexdigest(),
            "size": len(data),
            "recipe": json.loads(recipe.canonical()),
        }
        _write_whole(self._path(key, PLAN), data)
        _write_whole(self._path(key, RECORD), json.dumps(record, indent=1).encode())

    def _set_aside(self, key: str) -> None:
        """Keep what is damaged for whoever asks why, and sweep what a killed build left."""
        for part in self._folder.glob(f"{key}.*.part"):
            part.unlink(missing_ok=True)
        for kind in (RECORD, PLAN):
            path = self._path(key, kind)
            if path.exists():
                path.replace(path.with_name(path.name + DAMAGED))

    def _path(self, key: str, kind: str) -> Path:
        return self._folder / f"{key}{kind}"

    @contextmanager
    def _building(self, key: str) -> Iterator[None]:
        """Hold the work of building a plan; the system lets go of it when a process dies."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._path(key, LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        except OSError as error:
            raise UnavailableError(f"plans cannot be kept: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def check_plan(data: bytes, record: PlanRecord, built_by: BuiltBy) -> bytes:
    """Check a plan against its record; nothing of it is parsed.

    Raises:
        PlanVersionError, PlanTruncatedError, PlanChangedError: in this order.
    """
    if record.built_by != built_by:
        was, is_now = record.built_by, built_by
        raise PlanVersionError(
            f"the plan was built by {was.backend} {was.version} with CUDA {was.cuda} on"
            f" {was.system} {was.machine}; here are {is_now.backend} {is_now.version} with CUDA"
            f" {is_now.cuda} on {is_now.system} {is_now.machine}"
        )
    if len(data) != record.size:
        raise PlanTruncatedError(f"the plan has {len(data)} bytes, {record.size} were built")
    found = hashlib.sha256(data).hexdigest()
    if found != record.sha256:
        raise PlanChangedError(f"the plan has the SHA-256 {found}, {record.sha256} was built")
    return data


def write_sealed(path: Path, data: bytes) -> None:
    """Keep bytes that only make things faster, behind their own SHA-256.

    Where the folder cannot be written to nothing is kept, and nothing is lost.
    """
    with contextlib.suppress(UnavailableError):
        _write_whole(path, hashlib.sha256(data).digest() + data)


def read_sealed(path: Path) -> bytes:
    """Return bytes that were kept so; nothing where there are none, or they changed."""
    try:
        sealed = path.read_bytes()
    except OSError:
        return b""
    data = sealed[SEAL:]
    return data if hashlib.sha256(data).digest() == sealed[:SEAL] else b""


def _parse(text: bytes) -> PlanRecord:
    try:
        table = json.loads(text)
        return PlanRecord(
            sha256=str(table["sha256"]),
            size=int(table["size"]),
            built_by=BuiltBy(**table["recipe"]["built_by"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise PlanChangedError("the record beside the plan cannot be read") from error


def _write_whole(path: Path, data: bytes) -> None:
    """Write a file that is there whole, on the disk, or not at all."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise UnavailableError(f"plans cannot be kept: {error.strerror}") from error
