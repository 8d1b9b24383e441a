"""What a node and its sandbox say to each other: ids and paths, no patient attributes."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, JsonValue

from engines.manifest import RungTable
from node.result_profiles import FindingKind


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FileMessage(_Message):
    """A DICOM file: bytes of a file that may hold others too; `length` None: to its end."""

    path: Path
    offset: int = 0
    length: int | None = None


class InstanceMessage(FileMessage):
    """One instance of the job's series."""

    sop_instance_uid: str
    sop_class_uid: str


class JobRequest(_Message):
    """What the child needs to know of a job. Holds no patient attributes, only ids and paths.

    `rung` is the way to run the engine's model that was released on this node; None: its usual
    one. `plans` is the folder where plans are kept. `objects` are the result objects that somebody
    wants, by kind of finding; None: all that can be made.
    """

    engine_folder: Path
    engine_digest: str
    rung: RungTable | None = None
    plans: Path | None = None
    instances: tuple[InstanceMessage, ...]
    series_instance_uids: tuple[str, ...]
    staging: Path
    threads: int
    job_key: str
    generation: int
    created: datetime
    series_created: datetime
    rule: str
    rule_revision: int
    device: dict[str, str]
    superseded: tuple[dict[str, str], ...]
    objects: dict[str, tuple[str, ...]] | None = None


class ResultMessage(_Message):
    """One result object that was written and checked."""

    writer: str
    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    transfer_syntax_uid: str


class HeldMessage(_Message):
    """What the engine found and a person has to see before anybody is given it."""

    kind: FindingKind
    reason: str
    results: tuple[ResultMessage, ...]


class JobAnswer(_Message):
    """How a job ended in the child."""

    refused: bool
    kind: FindingKind
    results: tuple[ResultMessage, ...]
    summary: dict[str, JsonValue]
    timings: dict[str, float]
    held: HeldMessage | None = None


class RejectedMessage(_Message):
    """One result object that is rejected."""

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str


class RejectionRequest(_Message):
    """Which results are rejected, and why.

    `header` is the file of one of them, for its patient and study; None: those of `attributes`, by
    keyword. The engine is the one that made them.
    """

    staging: Path
    key: str
    at: datetime
    code: str
    reason: str
    engine: str
    engine_version: str
    engine_digest: str
    device: dict[str, str]
    rejected: tuple[RejectedMessage, ...]
    header: Path | None
    attributes: dict[str, str]


class RejectionAnswer(_Message):
    """The note, and what goes in its place where it is refused."""

    results: tuple[ResultMessage, ...]


class VerifyRequest(_Message):
    """Which engine to run on its golden case."""

    engine_folder: Path
    threads: int


class ReleaseRequest(VerifyRequest):
    """Which rung of an engine's ladder to hold against the reference."""

    rung: RungTable
    plans: Path | None


class ReadValuesRequest(_Message):
    """Which fields to read from which files."""

    fields: tuple[str, ...]
    files: tuple[FileMessage, ...]


class MetadataRequest(_Message):
    """Whose metadata are wanted: all of it, or some tags; `bulkdata` is the address of each."""

    files: tuple[FileMessage, ...]
    tags: tuple[int, ...] = ()
    bulkdata: tuple[str, ...] = ()


class PartRequest(_Message):
    """Which long value of a file is wanted."""

    file: FileMessage
    path: str


class FramesRequest(_Message):
    """Which frames of a file are wanted, from 1, and in which transfer syntaxes as they are."""

    file: FileMessage
    numbers: tuple[int, ...] = ()
    accepted: tuple[str, ...] = ()


class PictureRequest(_Message):
    """Which frame is to be a picture, how it is windowed, and the largest size it may have."""

    file: FileMessage
    number: int = 1
    window: tuple[float, float] | None = None
    size: tuple[int, int] | None = None
    jpeg: bool = False
