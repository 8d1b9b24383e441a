"""Bytes of what is held: as they lie, or read by a sandbox."""

from __future__ import annotations

import base64
import queue
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

from pydantic import JsonValue

from engines.byte_range import ByteRange
from node.dicomweb.attributes import Json
from node.sandbox import Deadlines, Sandbox, SandboxError, SandboxFailed
from storage.holdings import HeldInstance
from storage.objects import ObjectStore
from storage.packs import PackStore

PATIENCE: Final = Deadlines(soft=30, hard=60)
CHUNK: Final = 256 << 10
AT_ONCE: Final = 50
"""Files in one question: so long another caller may have to wait."""
PREAMBLE: Final = 128


class GoneError(Exception):
    """Its bytes are not there any more."""


class UnreadableError(Exception):
    """It cannot be read as asked for; `kind` says why."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Frames:
    """Frames, each in pieces as they are read, and their transfer syntax."""

    transfer_syntax_uid: str
    frames: Sequence[Iterator[bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """How a frame is to be shown: its number from 1, centre and width, largest width and height."""

    number: int = 1
    window: tuple[float, float] | None = None
    size: tuple[int, int] | None = None
    jpeg: bool = False


class Reader:
    """Reads what is held; a few sandboxes parse it, each for one caller at a time."""

    def __init__(
        self, packs: PackStore, objects: ObjectStore, *, processes: int, memory_mib: int
    ) -> None:
        self._packs = packs
        self._objects = objects
        self._sandboxes = [Sandbox(memory_mib=memory_mib) for _ in range(processes)]
        self._idle: queue.LifoQueue[Sandbox] = queue.LifoQueue()
        for sandbox in self._sandboxes:
            self._idle.put(sandbox)

    def close(self) -> None:
        """End the sandboxes."""
        for sandbox in self._sandboxes:
            sandbox.close()

    # ------------------------------------------------------------ as it lies

    def size(self, held: HeldInstance) -> int:
        """Return the length of its DICOM file.

        Raises:
            GoneError
        """
        with self._opened(held) as file:
            if file.read_at(PREAMBLE, 4) != b"DICM":  # retention erased it a moment ago
                raise GoneError
            return file.size

    def pieces(
        self, held: HeldInstance, start: int = 0, length: int | None = None
    ) -> Iterator[bytes]:
        """Yield bytes of its DICOM file.

        Raises:
            GoneError: they are not all there.
        """
        with self._opened(held) as file:
            left = file.size - start if length is None else length
            while left:
                piece = file.read_at(start, min(CHUNK, left))
                if not piece:
                    raise GoneError
                start += len(piece)
                left -= len(piece)
                yield piece

    @contextmanager
    def _opened(self, held: HeldInstance) -> Iterator[ByteRange]:
        try:
            path, offset, length = self._place(held)
            file = ByteRange(path, offset, length)
        except OSError as error:
            raise GoneError from error
        with file:
            yield file

    def _place(self, held: HeldInstance) -> tuple[Path, int, int | None]:
        if held.location is None:
            return self._objects.path(held.digest), 0, None
        return self._packs.path(held.location), held.location.offset, held.location.length

    def _message(self, held: HeldInstance) -> dict[str, JsonValue]:
        path, offset, length = self._place(held)
        return {"path": str(path), "offset": offset, "length": length}

    # ------------------------------------------------------------ parsed

    def headers(self, held: Sequence[HeldInstance], tags: Sequence[int]) -> list[Json]:
        """Return some attributes of each as JSON; nothing of what cannot be read."""
        return [
            found or {}
            for start in range(0, len(held), AT_ONCE)
            for found in self._metadata(held[start : start + AT_ONCE], tags, "")
        ]

    def metadata(self, held: Sequence[HeldInstance], address: str) -> Iterator[Json | None]:
        """Yield all attributes of each; None where it cannot be read."""
        for start in range(0, len(held), AT_ONCE):
            yield from self._metadata(held[start : start + AT_ONCE], (), address)

    def _metadata(
        self, held: Sequence[HeldInstance], tags: Sequence[int], address: str
    ) -> Sequence[Json | None]:
        if not held:
            return ()
        files: list[JsonValue] = [self._message(item) for item in held]
        bulkdata: list[JsonValue] = [
            f"{address}/studies/{item.study_instance_uid}/series/{item.series_instance_uid}"
            f"/instances/{item.sop_instance_uid}/bulkdata"
            for item in held
        ]
        answer = self._ask("metadata", {"files": files, "tags": list(tags), "bulkdata": bulkdata})
        return cast("Sequence[Json | None]", answer["files"])

    def frames(self, held: HeldInstance, numbers: Sequence[int], accepted: Sequence[str]) -> Frames:
        """Return frames by number, from 1; without numbers all of them.

        Raises:
            UnreadableError
        """
        request: dict[str, JsonValue] = {
            "file": self._message(held),
            "numbers": list(numbers),
            "accepted": list(accepted),
        }
        answer = self._ask("frames", request)
        found = cast("Sequence[Mapping[str, object]]", answer["frames"])
        return Frames(
            transfer_syntax_uid=str(answer["transfer_syntax"]),
            frames=[self._part(held, item) for item in found],
        )

    def bulkdata(self, held: HeldInstance, path: str) -> Iterator[bytes]:
        """Return a long value.

        Raises:
            UnreadableError
        """
        answer = self._ask("bulkdata", {"file": self._message(held), "path": path})
        return self._part(held, cast("Mapping[str, object]", answer["part"]))

    def picture(self, held: HeldInstance, picture: Picture) -> bytes:
        """Return a frame as PNG or JPEG.

        Raises:
            UnreadableError
        """
        request: dict[str, JsonValue] = {
            "file": self._message(held),
            "number": picture.number,
            "window": None if picture.window is None else list(picture.window),
            "size": None if picture.size is None else list(picture.size),
            "jpeg": picture.jpeg,
        }
        return base64.b64decode(str(self._ask("picture", request)["content"]))

    def _part(self, held: HeldInstance, item: Mapping[str, object]) -> Iterator[bytes]:
        if "content" in item:
            return iter((base64.b64decode(str(item["content"])),))
        return self.pieces(held, int(str(item["offset"])), int(str(item["length"])))

    def _ask(self, operation: str, request: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
        sandbox = self._idle.get()
        try:
            return sandbox.call(operation, request, deadlines=PATIENCE)
        except SandboxFailed as error:
            raise UnreadableError(error.kind, "it cannot be read") from error
        except SandboxError as error:
            raise UnreadableError("gave_up", "it cannot be read here") from error
        finally:
            self._idle.put(sandbox)
