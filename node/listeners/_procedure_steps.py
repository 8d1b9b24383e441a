"""What modalities and archives announce: procedure steps (PS3.4 F.7), availability (PS3.4 R.3).

Plain functions over decoded data sets: the association is the listener's. Each returns the status
data set of its response; nothing of a data set but UIDs goes on, none of it into an answer.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Final, TypeAlias

import structlog
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from node.expectation import Expectation, ExpectationError, ExpectationKind, StepState
from node.interfaces import Ingest

PROCEDURE_STEP: Final = "1.2.840.10008.3.1.2.3.3"
AVAILABILITY: Final = "1.2.840.10008.5.1.4.33"

SUCCESS: Final = 0x0000
INVALID_ATTRIBUTE_VALUE: Final = 0x0106
PROCESSING_FAILURE: Final = 0x0110
INVALID_INSTANCE: Final = 0x0117
MISSING_ATTRIBUTE: Final = 0x0120
SOP_CLASS_NOT_SUPPORTED: Final = 0x0122
LONGEST_COMMENT: Final = 64  # LO

UID: Final = re.compile(r"[0-9]+(\.[0-9]+)*")
LONGEST_UID: Final = 64
MOST_SERIES: Final = 10_000
MOST_INSTANCES: Final = 100_000
AVAILABLE: Final = frozenset({"ONLINE", "NEARLINE", "OFFLINE"})  # (0008,0056): not UNAVAILABLE
UNUSABLE: Final = (
    InvalidDicomError,
    AttributeError,
    EOFError,
    LookupError,
    NotImplementedError,
    OverflowError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
)

AttributeList: TypeAlias = Callable[[], Dataset]
"""Gives the data set of a request; it may fail to decode."""

log = structlog.get_logger()


class _Refused(Exception):
    """The message cannot be used; `status` is the answer."""

    def __init__(self, status: int, comment: str) -> None:
        super().__init__(comment)
        self.status = status


def n_create(
    sop_class_uid: str, sop_instance_uid: str, attributes: AttributeList, ingest: Ingest
) -> Dataset:
    """Take the beginning of a procedure step, or a notification of availability.

    Statuses: 0x0000; 0x0106 a value that is not allowed; 0x0110 not decodable; 0x0111 known
    already; 0x0117 no SOP Instance UID; 0x0120 a required attribute is missing; 0x0122 another SOP
    class; 0x0213 not now (PS3.7 10.1.5.1.6).
    """
    readers = {PROCEDURE_STEP: _created, AVAILABILITY: _available}
    reader = readers.get(sop_class_uid)
    if reader is None:
        return _status(SOP_CLASS_NOT_SUPPORTED, "neither procedure step nor availability")
    return _answered(ingest, lambda: reader(_instance_uid(sop_instance_uid), attributes()))


def n_set(
    sop_class_uid: str, sop_instance_uid: str, modifications: AttributeList, ingest: Ingest
) -> Dataset:
    """Take what a procedure step says now.

    Statuses: those of `n_create` and 0x0112 no such step, 0x0110 with Error ID 0xA710 the step has
    ended and may no longer be updated (PS3.4 F.7.2.2.2).
    """
    if sop_class_uid != PROCEDURE_STEP:
        return _status(SOP_CLASS_NOT_SUPPORTED, "only procedure steps are updated")
    return _answered(ingest, lambda: _updated(_instance_uid(sop_instance_uid), modifications()))


def _answered(ingest: Ingest, read: Callable[[], Expectation]) -> Dataset:
    try:
        ingest.expected(read())
    except _Refused as error:
        log.warning("notification.refused", status=f"0x{error.status:04X}", reason=str(error))
        return _status(error.status, str(error))
    except ExpectationError as error:
        log.warning("notification.refused", status=f"0x{error.status:04X}", reason=str(error))
        return _status(error.status, str(error), error.error_id)
    except UNUSABLE as error:  # pydicom's, of a data set or a value that cannot be decoded
        log.warning("notification.unreadable", error=type(error).__name__)
        return _status(PROCESSING_FAILURE, "the data set cannot be read")
    return _status(SUCCESS)


# ---------------------------------------------------------------- data sets


def _created(sop_instance_uid: str, attributes: Dataset) -> Expectation:
    """Read an N-CREATE of a procedure step: it begins, so it is in progress (PS3.4 F.7.2.1.2).

    A step for several requested procedures names their studies; its images are in the first.
    """
    if _state(attributes) is not StepState.IN_PROGRESS:
        raise _Refused(INVALID_ATTRIBUTE_VALUE, "a step is created IN PROGRESS")
    scheduled = next(_items(attributes, "ScheduledStepAttributesSequence"), None)
    if scheduled is None:
        raise _Refused(MISSING_ATTRIBUTE, "ScheduledStepAttributesSequence is missing")
    return Expectation(
        kind=ExpectationKind.STEP_CREATED,
        sop_instance_uid=sop_instance_uid,
        state=StepState.IN_PROGRESS,
        study_instance_uid=_uid(scheduled, "StudyInstanceUID"),
        series=_performed(attributes),
    )


def _updated(sop_instance_uid: str, modifications: Dataset) -> Expectation:
    """Read an N-SET of a procedure step; without a status it goes on."""
    given = "PerformedProcedureStepStatus" in modifications
    return Expectation(
        kind=ExpectationKind.STEP_SET,
        sop_instance_uid=sop_instance_uid,
        state=_state(modifications) if given else StepState.IN_PROGRESS,
        series=_performed(modifications),
    )


def _available(sop_instance_uid: str, attributes: Dataset) -> Expectation:
    """Read a notification of availability (PS3.4 table R.3.2-1); UNAVAILABLE is not counted."""
    series: dict[str, set[str]] = {}
    for item in _items(attributes, "ReferencedSeriesSequence"):
        instances = series.setdefault(_uid(item, "SeriesInstanceUID"), set())
        instances |= {
            _uid(one, "ReferencedSOPInstanceUID")
            for one in _items(item, "ReferencedSOPSequence")
            if _text(one, "InstanceAvailability") in AVAILABLE
        }
    if not series:
        raise _Refused(MISSING_ATTRIBUTE, "ReferencedSeriesSequence is missing")
    return Expectation(
        kind=ExpectationKind.AVAILABLE,
        sop_instance_uid=sop_instance_uid,
        state=StepState.COMPLETED,
        study_instance_uid=_uid(attributes, "StudyInstanceUID"),
        series=_bounded(series),
    )


def _performed(attributes: Dataset) -> Mapping[str, frozenset[str]] | None:
    """Return the instances of the Performed Series Sequence; None: the message has none.

    Images and other composite instances count alike (PS3.3 C.4.16).
    """
    if "PerformedSeriesSequence" not in attributes:
        return None
    series: dict[str, set[str]] = {}
    for item in _items(attributes, "PerformedSeriesSequence"):
        instances = series.setdefault(_uid(item, "SeriesInstanceUID"), set())
        for keyword in (
            "ReferencedImageSequence",
            "ReferencedNonImageCompositeSOPInstanceSequence",
        ):
            instances |= {_uid(one, "ReferencedSOPInstanceUID") for one in _items(item, keyword)}
    return _bounded(series)


def _bounded(series: Mapping[str, set[str]]) -> Mapping[str, frozenset[str]]:
    if len(series) > MOST_SERIES or sum(map(len, series.values())) > MOST_INSTANCES:
        raise _Refused(PROCESSING_FAILURE, "more instances than one study has")
    return {uid: frozenset(instances) for uid, instances in series.items()}


def _state(attributes: Dataset) -> StepState:
    text = _text(attributes, "PerformedProcedureStepStatus")
    if not text:
        raise _Refused(MISSING_ATTRIBUTE, "PerformedProcedureStepStatus is missing")
    try:
        return StepState(text)
    except ValueError as error:
        raise _Refused(
            INVALID_ATTRIBUTE_VALUE, "PerformedProcedureStepStatus is not a defined term"
        ) from error


def _items(dataset: Dataset, keyword: str) -> Iterator[Dataset]:
    yield from dataset.get(keyword) or ()


def _text(dataset: Dataset, keyword: str) -> str:
    """Return a value as it came: pydicom's own check would print a value that is not valid."""
    if keyword not in dataset:
        return ""
    value = dataset.get_item(keyword).value
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else str(value or "")
    return text.strip(" \0")


def _uid(dataset: Dataset, keyword: str) -> str:
    text = _text(dataset, keyword)
    if not text:
        raise _Refused(MISSING_ATTRIBUTE, f"{keyword} is missing")
    if len(text) > LONGEST_UID or not UID.fullmatch(text):
        raise _Refused(INVALID_ATTRIBUTE_VALUE, f"{keyword} is no UID")
    return text


def _instance_uid(text: str) -> str:
    if len(text) > LONGEST_UID or not UID.fullmatch(text):
        raise _Refused(INVALID_INSTANCE, "the Affected or Requested SOP Instance UID is no UID")
    return text


def _status(status: int, comment: str = "", error_id: int | None = None) -> Dataset:
    """Return a status with its comment: our own words only, nothing of the data set."""
    answer = Dataset()
    answer.Status = status
    if comment:
        answer.ErrorComment = comment[:LONGEST_COMMENT]
    if error_id is not None:
        answer.ErrorID = error_id
    return answer
