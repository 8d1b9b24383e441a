"""A watched folder: files that are put there are taken in, then moved aside. Loses none."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import ClassVar, Final

import structlog
from pydantic import Field, PositiveFloat
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info

from node.interfaces import (
    CannotUnderstand,
    Ingest,
    IngestError,
    Listener,
    ListenerError,
    OutOfResources,
    PluginSettings,
    Received,
    Source,
)

META_START: Final = 144  # preamble, DICM and (0002,0000) (PS3.10 7.1)

log = structlog.get_logger()


class FolderListenerSettings(PluginSettings):
    """[listeners.folder]: a watched folder."""

    folder: Path = Field(description="Folder to watch; `done` and `failed` are made inside it.")
    settle_seconds: PositiveFloat = Field(
        2.0, description="A file is taken once it was unchanged for so long, in seconds."
    )
    poll_seconds: PositiveFloat = Field(1.0, description="Seconds between two looks.")
    keep: bool = Field(True, description="Keep taken files in `done`; otherwise remove them.")


class FolderListener(Listener[FolderListenerSettings]):
    """Takes DICOM files (PS3.10) from a folder."""

    name: ClassVar[str] = "folder"
    settings_type: ClassVar[type[PluginSettings]] = FolderListenerSettings

    def __init__(self, settings: FolderListenerSettings, ingest: Ingest) -> None:
        self._settings = settings
        self._ingest = ingest
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="folder", daemon=True)

    def start(self) -> None:
        """Begin to watch.

        Raises:
            ListenerError: the folder cannot be used.
        """
        try:
            for name in ("done", "failed"):
                (self._settings.folder / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ListenerError(f"listeners.folder: {self._settings.folder}: {error}") from error
        self._thread.start()

    def stop(self) -> None:
        """Finish the file in hand and watch no more."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def address(self) -> str:
        """Say which folder is watched."""
        return str(self._settings.folder)

    def _loop(self) -> None:
        while not self._stop.is_set():
            self.look()
            self._stop.wait(self._settings.poll_seconds)

    def look(self) -> int:
        """Take every file that has settled; return how many were taken."""
        taken = 0
        for path in sorted(self._settings.folder.iterdir()):
            if self._stop.is_set():
                break
            if path.is_file() and not path.name.startswith(".") and self._settled(path):
                taken += self._take(path)
        return taken

    def _settled(self, path: Path) -> bool:
        try:
            age = time.time() - path.stat().st_mtime  # file times are wall-clock times
        except OSError:
            return False
        return age >= self._settings.settle_seconds

    def _take(self, path: Path) -> bool:
        try:
            self._accept(path)
        except OutOfResources as error:
            log.warning("file.waits", reason=str(error))
            return False  # it stays where it is: tried again at the next look
        except (IngestError, OSError) as error:
            self._set_aside(path, error)
            return False
        if self._settings.keep:
            path.rename(_free_name(self._settings.folder / "done" / path.name))
        else:
            path.unlink()
        return True

    def _accept(self, path: Path) -> None:
        try:
            meta = read_file_meta_info(path)
            start = META_START + int(meta.FileMetaInformationGroupLength)
            sop_class, instance = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
            transfer_syntax = meta.TransferSyntaxUID
        except (InvalidDicomError, AttributeError, ValueError, KeyError) as error:
            raise CannotUnderstand("no DICOM file, or its file meta group is broken") from error
        with path.open("rb") as file:
            file.seek(start)
            self._ingest.accept(
                Received(
                    source=Source(listener=self.name),
                    sop_class_uid=str(sop_class),
                    sop_instance_uid=str(instance),
                    transfer_syntax_uid=str(transfer_syntax),
                    data=file,
                )
            )

    def _set_aside(self, path: Path, error: Exception) -> None:
        """Move a file that cannot be taken, with the reason beside it."""
        target = _free_name(self._settings.folder / "failed" / path.name)
        path.rename(target)
        reason = str(error) if isinstance(error, IngestError) else type(error).__name__
        target.with_name(f"{target.name}.reason.txt").write_text(f"{reason}\n", encoding="utf-8")
        log.warning("file.refused", reason=reason)


def _free_name(path: Path) -> Path:
    """Return the path, or one beside it that is free: nothing is ever overwritten."""
    number = 0
    free = path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return free
