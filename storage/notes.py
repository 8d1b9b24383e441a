"""What a pack says of each of its records, so that the index can be rebuilt from it (JSON)."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from storage.pack_format import PackRecord
from storage.records import (
    Brought,
    NewInstance,
    QuarantinedInstance,
    SeriesAttributes,
    StudyAttributes,
)


class NoteError(Exception):
    """The note of a finished record is not one of ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One record of a pack, about to be indexed: an instance, or what is in quarantine.

    The pack has rows for all up to `end` when this one has.
    """

    brought: Brought
    at: datetime
    what: NewInstance | QuarantinedInstance
    end: int


class NoteWriter:
    """Writes the notes of one association; what its instances have in common is encoded once."""

    def __init__(self, brought: Brought) -> None:
        self._brought = json.dumps(asdict(brought))
        self._key: tuple[object, ...] = ()
        self._shared = ""

    def of_instance(self, new: NewInstance, at: datetime) -> bytes:
        """Return the note of an instance. Its location, digest and size stand in the record."""
        key = (
            new.study,
            new.series,
            new.study_instance_uid,
            new.series_instance_uid,
            new.sop_class_uid,
            new.transfer_syntax_uid,
            new.quiet_seconds,
            new.own_result,
        )
        if key != self._key:
            self._key, self._shared = key, _shared(new)
        return (
            f'{{"at":{at.timestamp()!r},"brought":{self._brought},{self._shared}'
            f'"sop_instance_uid":{json.dumps(new.sop_instance_uid)},'
            f'"instance_number":{json.dumps(new.instance_number)}}}'
        ).encode()

    def of_quarantine(self, reason: str, at: datetime) -> bytes:
        """Return the note of bytes that were refused and kept."""
        return (
            f'{{"at":{at.timestamp()!r},"brought":{self._brought},"reason":{json.dumps(reason)}}}'
        ).encode()


def _shared(new: NewInstance) -> str:
    shared = {
        "study_instance_uid": new.study_instance_uid,
        "series_instance_uid": new.series_instance_uid,
        "sop_class_uid": new.sop_class_uid,
        "transfer_syntax_uid": new.transfer_syntax_uid,
        "study": asdict(new.study),
        "series": asdict(new.series),
        "quiet_seconds": new.quiet_seconds,
        "own_result": new.own_result,
    }
    return json.dumps(shared)[1:-1] + ","


def read_note(record: PackRecord) -> Entry:
    """Return what a record says of itself.

    Raises:
        NoteError: it was written by another program, or by a version that knew other things.
    """
    try:
        note = json.loads(record.note)
        brought = Brought(**note.pop("brought"))
        at = datetime.fromtimestamp(note.pop("at"), UTC)
        what = (
            _quarantined(record, brought, note) if "reason" in note else _new(record, brought, note)
        )
    except (ValueError, TypeError, KeyError) as error:
        raise NoteError(f"the note of a record cannot be read: {type(error).__name__}") from error
    return Entry(brought=brought, at=at, what=what, end=record.end)


def _new(record: PackRecord, brought: Brought, note: dict[str, object]) -> NewInstance:
    study, series = note.pop("study"), note.pop("series")
    return NewInstance(
        digest=record.digest,
        size=record.size,
        location=record.location,
        study=StudyAttributes(**study),  # type: ignore[arg-type]  # checked by the constructor
        series=SeriesAttributes(**series),  # type: ignore[arg-type]
        listener=brought.listener,
        calling_ae=brought.calling_ae,
        peer_address=brought.peer_address,
        **note,  # type: ignore[arg-type]
    )


def _quarantined(
    record: PackRecord, brought: Brought, note: dict[str, object]
) -> QuarantinedInstance:
    return QuarantinedInstance(
        digest=record.digest,
        size=record.size,
        location=record.location,
        reason=str(note["reason"]),
        listener=brought.listener,
        calling_ae=brought.calling_ae,
        peer_address=brought.peer_address,
    )
