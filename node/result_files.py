"""Moves a result file that a sandbox left and checked into the object store."""

from __future__ import annotations

from typing import Final

from node.messages import ResultMessage
from node.sandbox import SandboxFailed
from storage.objects import ObjectStore
from storage.records import NewResult

PART10_META_LENGTH_END: Final = 144
"""Preamble, DICM and the group length element (0002,0000) end here (PS3.10 7.1)."""


def keep_result(objects: ObjectStore, message: ResultMessage) -> NewResult:
    """Keep a checked result file, durably.

    Raises:
        SandboxFailed: it is no DICOM file.
        OutOfResourcesError: the disk could not take it now.
    """
    with message.path.open("rb") as file:
        prefix = _part10_prefix(file.read(PART10_META_LENGTH_END))
        file.seek(0)
        prefix_bytes = file.read(prefix)
        stored = objects.write(file, prefix=prefix_bytes)
    return NewResult(
        writer=message.writer,
        sop_class_uid=message.sop_class_uid,
        sop_instance_uid=message.sop_instance_uid,
        series_instance_uid=message.series_instance_uid,
        transfer_syntax_uid=message.transfer_syntax_uid,
        digest=stored.digest,
        size=stored.size,
    )


def _part10_prefix(head: bytes) -> int:
    """Return how many bytes preamble and file meta group take (PS3.10 7.1)."""
    if len(head) < PART10_META_LENGTH_END or head[128:132] != b"DICM":
        raise SandboxFailed("deterministic", "a result file is not a DICOM file")
    return PART10_META_LENGTH_END + int.from_bytes(head[140:144], "little")
