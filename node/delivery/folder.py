"""Results into a folder: each file whole or not at all, for sites that collect files."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Final

from pydantic import Field

from node.interfaces import (
    DeliveryTarget,
    Negotiated,
    Offer,
    Outgoing,
    PluginSettings,
    ReportSent,
    SendVerdict,
    Sent,
)

UID: Final = re.compile(r"[0-9.]{1,64}")
CHUNK: Final = 1 << 20


class FolderTargetSettings(PluginSettings):
    """[destinations.NAME] with kind = "folder"."""

    folder: Path = Field(description="Folder for the files; it must be there.")


class FolderTarget(DeliveryTarget[FolderTargetSettings]):
    """Writes `<SOP Instance UID>.dcm`, synced, by rename."""

    name: ClassVar[str] = "folder"
    settings_type: ClassVar[type[PluginSettings]] = FolderTargetSettings

    def __init__(self, settings: FolderTargetSettings) -> None:
        self._folder = settings.folder

    def negotiate(self, offers: Sequence[Offer]) -> Negotiated:
        """Take everything."""
        return Negotiated(accepted=frozenset(offers))

    def address(self) -> str:
        """Say where results go."""
        return str(self._folder)

    def send(self, objects: Sequence[Outgoing], report: ReportSent) -> None:
        """Write each object; the same UID again replaces its file with the same bytes."""
        for index, item in enumerate(objects):
            report(index, self._write(item))

    def probe(self) -> Sent:
        """Ask whether the folder is there and can be written to."""
        if os.access(self._folder, os.W_OK | os.X_OK) and self._folder.is_dir():
            return Sent(verdict=SendVerdict.ACCEPTED)
        return Sent(verdict=SendVerdict.UNREACHABLE, message="the folder cannot be written to")

    def _write(self, item: Outgoing) -> Sent:
        if not UID.fullmatch(item.sop_instance_uid):
            return Sent(verdict=SendVerdict.REFUSED, message="the SOP Instance UID is malformed")
        part = self._folder / f".{uuid.uuid4().hex}.part"
        whole = False
        try:
            with item.path.open("rb") as source, part.open("xb") as target:
                while chunk := source.read(CHUNK):
                    target.write(chunk)
                target.flush()
                os.fsync(target.fileno())
            whole = True
            part.rename(self._folder / f"{item.sop_instance_uid}.dcm")
            _sync(self._folder)
        except OSError as error:
            part.unlink(missing_ok=True)
            return Sent(
                verdict=SendVerdict.UNREACHABLE, message=str(error.strerror), may_be_there=whole
            )
        return Sent(verdict=SendVerdict.ACCEPTED)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
