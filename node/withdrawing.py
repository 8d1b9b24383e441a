"""Makes the notes that wait to be made: destinations are told which of their results are rejected.

A recall is written by whoever calls for it, and what is superseded by the job that did; the node
takes both up here, and again after a crash. The notes go the way of every result, and are tried
until they are there (invariant 10).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

import structlog

from node.clock import Clock
from node.interfaces import DeviceIdentity
from node.messages import RejectedMessage, RejectionAnswer, RejectionRequest
from node.result_files import keep_result
from node.sandbox import Deadlines, Sandbox, SandboxCancelled, SandboxError
from storage.index_records import StudyRecord
from storage.objects import ObjectStore
from storage.recall_records import PendingWithdrawal, RejectedResult, WithdrawalRecord
from storage.records import NewResult, OutOfResourcesError
from storage.withdrawals import WithdrawalStore

BATCH: Final = 50
REST_SECONDS: Final = 60.0
"""After one that could not be made: until they are tried again."""
DEADLINES: Final = Deadlines(soft=30.0, hard=60.0)
SUPERSEDED: Final = "113001"
REPLACED: Final = "A newer AI result on this study takes its place."
"""Title and reason of what nobody recalled: it was superseded."""
ATTRIBUTES: Final[Mapping[str, str]] = {
    "PatientID": "patient_id",
    "IssuerOfPatientID": "issuer_of_patient_id",
    "PatientName": "patient_name",
    "PatientBirthDate": "patient_birth_date",
    "PatientSex": "patient_sex",
    "AccessionNumber": "accession_number",
    "StudyID": "study_id",
    "StudyDate": "study_date",
    "StudyTime": "study_time",
    "StudyDescription": "study_description",
    "ReferringPhysicianName": "referring_physician_name",
}
"""What the index holds of patient and study (PS3.3 C.7.1, C.7.2)."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Lot:
    """What one note names, and the name of the note itself."""

    key: str
    rejected: tuple[RejectedResult, ...]


class Withdrawer:
    """Makes notes in a sandbox of its own, which is there only while there are some to make."""

    def __init__(
        self,
        *,
        withdrawals: WithdrawalStore,
        objects: ObjectStore,
        device: DeviceIdentity,
        staging: Path,
        memory_mib: int,
        clock: Clock,
        made: Callable[[], None] = lambda: None,
    ) -> None:
        """Say when something was `made`: it waits to be sent."""
        self._withdrawals = withdrawals
        self._objects = objects
        self._device = device
        self._staging = staging
        self._memory_mib = memory_mib
        self._clock = clock
        self._made = made
        self._rests_until = clock()

    def sweep(self) -> None:
        """Make what waits; what cannot be made now says why, and waits on."""
        if self._clock() < self._rests_until:
            return
        pending = self._withdrawals.pending(limit=BATCH)
        if not pending:
            return
        sandbox = Sandbox(memory_mib=self._memory_mib)
        try:
            for item in pending:
                self._try(sandbox, item)
        finally:
            sandbox.close()
        self._made()

    def _try(self, sandbox: Sandbox, item: PendingWithdrawal) -> None:
        record = item.withdrawal
        try:
            notes = [self._notes(sandbox, item, lot) for lot in lots_of(item)]
        except (SandboxError, OutOfResourcesError, OSError) as error:
            if isinstance(error, SandboxCancelled):
                raise
            self._withdrawals.failed(record.id, _described(error))
            self._rests_until = self._clock() + timedelta(seconds=REST_SECONDS)
            log.error("withdrawal.failed", withdrawal=record.id, error=type(error).__name__)
            return
        deliveries = self._withdrawals.made(record.id, notes)
        log.info(
            "withdrawal.made",
            withdrawal=record.id,
            recall=record.recall_id,
            destination=record.destination,
            rejected=len(item.rejected),
            deliveries=len(deliveries),
        )

    def _notes(self, sandbox: Sandbox, item: PendingWithdrawal, lot: Lot) -> tuple[NewResult, ...]:
        with tempfile.TemporaryDirectory(dir=self._staging) as staging:
            request = self._request(item, lot, Path(staging))
            answer = RejectionAnswer.model_validate(
                sandbox.call("reject", request.model_dump(mode="json"), deadlines=DEADLINES)
            )
            return tuple(keep_result(self._objects, message) for message in answer.results)

    def _request(self, item: PendingWithdrawal, lot: Lot, staging: Path) -> RejectionRequest:
        kept = [one.digest for one in item.rejected if not one.deleted]
        record = item.withdrawal
        return RejectionRequest(
            staging=staging,
            key=lot.key,
            at=record.at,
            code=record.code or SUPERSEDED,
            reason=record.reason or REPLACED,
            engine=item.engine,
            engine_version=item.engine_version,
            engine_digest=item.engine_digest,
            device={
                "manufacturer": self._device.manufacturer,
                "model": self._device.model,
                "serial_number": self._device.serial_number,
                "station_name": self._device.station_name,
                "software_version": self._device.software_version,
            },
            rejected=tuple(
                RejectedMessage(
                    sop_class_uid=one.sop_class_uid,
                    sop_instance_uid=one.sop_instance_uid,
                    series_instance_uid=one.series_instance_uid,
                )
                for one in lot.rejected
            ),
            header=self._objects.path(kept[0]) if kept else None,
            attributes=attributes_of(item.study),
        )


def lots_of(item: PendingWithdrawal) -> tuple[Lot, ...]:
    """Return what each note is to name: all that was taken together, each doubtful one alone.

    An archive can refuse a note as a whole that names an object which it does not have (dcm4chee
    does): what is doubtful may not stand in the way of what is sure.
    """
    key = withdrawal_key(item.withdrawal)
    taken = tuple(one for one in item.rejected if one.taken)
    doubtful = [one for one in item.rejected if not one.taken]
    alone = [Lot(key=f"{key}|{one.sop_instance_uid}", rejected=(one,)) for one in doubtful]
    return (*([Lot(key=key, rejected=taken)] if taken else ()), *alone)


def withdrawal_key(record: WithdrawalRecord) -> str:
    """Name a note so that a second try makes the same one; no row's id, as for jobs."""
    parts = (record.study_instance_uid, record.destination, record.code, record.at.isoformat())
    return "|".join(("withdrawal", *parts))


def attributes_of(study: StudyRecord) -> dict[str, str]:
    """Return what the index knows of patient and study, by keyword."""
    known = {key: str(getattr(study.attributes, name)) for key, name in ATTRIBUTES.items()}
    return {"StudyInstanceUID": study.study_instance_uid, **known}


def _described(error: Exception) -> str:
    """Word an error for its row: no text of a data set can be in it."""
    if isinstance(error, OSError):
        return type(error).__name__
    return str(error)[:1000]
