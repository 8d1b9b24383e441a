"""Makes the notes that results are rejected, from what the node knows of them. Sandbox only.

Patient and study are those of a rejected object, as it was sent; where retention deleted all of
them, those of the index.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, TypeAlias

from pydantic import JsonValue
from pydicom import dcmread
from pydicom.dataset import Dataset

from node.interfaces import DeviceIdentity, EngineIdentity
from node.messages import RejectionAnswer, RejectionRequest, ResultMessage
from node.results._rejection import Rejected, Rejection, check_note, write_notes

Progress: TypeAlias = Callable[[str], None]

CLINICAL_USE: Final = "Not for clinical use"


def rejection_operation(
    request: Mapping[str, JsonValue], progress: Progress
) -> Mapping[str, JsonValue]:
    """Write the note and the notice for its place; see `RejectionRequest`, `RejectionAnswer`.

    Raises:
        ResultError: one could not be made, or is not what was asked for. Nothing is sent.
    """
    wanted = RejectionRequest.model_validate(request)
    progress("encoding")
    rejection = _rejection(wanted)
    results = []
    for name, dataset in write_notes(rejection):
        path = wanted.staging / f"{name}.dcm"
        dataset.save_as(path, enforce_file_format=True)
        check_note(path, rejection)
        results.append(_message(name, path, dataset))
    return RejectionAnswer(results=tuple(results)).model_dump(mode="json")


def _rejection(wanted: RejectionRequest) -> Rejection:
    return Rejection(
        key=wanted.key,
        at=wanted.at,
        code=wanted.code,
        reason=wanted.reason,
        rejected=tuple(
            Rejected(
                sop_class_uid=item.sop_class_uid,
                sop_instance_uid=item.sop_instance_uid,
                series_instance_uid=item.series_instance_uid,
            )
            for item in wanted.rejected
        ),
        header=_header(wanted),
        device=DeviceIdentity(**wanted.device),
        engine=EngineIdentity(
            name=wanted.engine,
            version=wanted.engine_version,
            digest=wanted.engine_digest,
            intended_use="",
            clinical_use=CLINICAL_USE,
        ),
    )


def _header(wanted: RejectionRequest) -> Dataset:
    if wanted.header is not None:
        return dcmread(wanted.header, stop_before_pixels=True)
    header = Dataset()
    header.SpecificCharacterSet = "ISO_IR 192"
    for keyword, value in wanted.attributes.items():
        setattr(header, keyword, value)
    return header


def _message(name: str, path: Path, dataset: Dataset) -> ResultMessage:
    return ResultMessage(
        writer=name,
        path=path,
        sop_class_uid=dataset.SOPClassUID,
        sop_instance_uid=dataset.SOPInstanceUID,
        series_instance_uid=dataset.SeriesInstanceUID,
        transfer_syntax_uid=dataset.file_meta.TransferSyntaxUID,
    )
