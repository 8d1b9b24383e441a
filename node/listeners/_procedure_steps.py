"""What modalities and archives announce: procedure steps (PS3.4 F.7), availability (PS3.4 R.3).

Plain functions over messages: the association is the listener's. Each returns the status data set
of its response; nothing of a data set but UIDs goes on, none of it into an answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Final

import structlog
from pydicom.datadict import keyword_for_tag
from pydicom.dataset import Dataset

from node.expectation import Expectation, ExpectationError, ExpectationKind, StepState
from node.interfaces import Ingest
from node.listeners._attributes import Attributes, AttributesError, Encoded, read_attributes

PROCEDURE_STEP: Final = "1.2.840.10008.3.1.2.3.3"
AVAILABILITY: Final = "1.2.840.10008.5.1.4.33"

SUCCESS: Final = 0x0000
INVALID_ATTRIBUTE_VALUE: Final = 0x0106
PROCESSING_FAILURE: Final = 0x0110
INVALID_INSTANCE: Final = 0x0117
MISSING_ATTRIBUTE: Final = 0x0120
SOP_CLASS_NOT_SUPPORTED: Final = 0x0122
RESOURCE_LIMITATION: Final = 0x0213
LONGEST_COMMENT: Final = 64  # LO

UID: Final = re.compile(r"[0-9]+(\.[0-9]+)*")
LONGEST_UID: Final = 64
AVAILABLE: Final = frozenset({"ONLINE", "NEARLINE", "OFFLINE"})  # (0008,0056): not UNAVAILABLE

STUDY_INSTANCE_UID: Final = 0x0020000D
SERIES_INSTANCE_UID: Final = 0x0020000E
REFERENCED_SOP_INSTANCE_UID: Final = 0x00081155
INSTANCE_AVAILABILITY: Final = 0x00080056
STEP_STATUS: Final = 0x00400252
SCHEDULED_STEP_ATTRIBUTES: Final = 0x00400270
PERFORMED_SERIES: Final = 0x00400340
REFERENCED_SERIES: Final = 0x00081115
REFERENCED_SOPS: Final = 0x00081199
REFERENCED_IMAGES: Final = 0x00081140
REFERENCED_OTHERS: Final = 0x00400220  # Referenced Non-Image Composite SOP Instance Sequence
VALUES: Final = frozenset(
    {
        STUDY_INSTANCE_UID,
        SERIES_INSTANCE_UID,
        REFERENCED_SOP_INSTANCE_UID,
        INSTANCE_AVAILABILITY,
        STEP_STATUS,
    }
)
SEQUENCES: Final = frozenset(
    {
        SCHEDULED_STEP_ATTRIBUTES,
        PERFORMED_SERIES,
        REFERENCED_SERIES,
        REFERENCED_SOPS,
        REFERENCED_IMAGES,
        REFERENCED_OTHERS,
    }
)
"""All that is read of these messages."""

log = structlog.get_logger()


class _Refused(Exception):
    """The message cannot be used; `status` is the answer."""

    def __init__(self, status: int, comment: str) -> None:
        super().__init__(comment)
        self.status = status


def n_create(
    sop_class_uid: str, sop_instance_uid: str, attributes: Encoded, ingest: Ingest
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
    return _answered(ingest, lambda: reader(_instance_uid(sop_instance_uid), _read(attributes)))


def n_set(
    sop_class_uid: str, sop_instance_uid: str, modifications: Encoded, ingest: Ingest
) -> Dataset:
    """Take what a procedure step says now.

    Statuses: those of `n_create` and 0x0112 no such step, 0x0110 with Error ID 0xA710 the step has
    ended and may no longer be updated (PS3.4 F.7.2.2.2).
    """
    if sop_class_uid != PROCEDURE_STEP:
        return _status(SOP_CLASS_NOT_SUPPORTED, "only procedure steps are updated")
    return _answered(
        ingest, lambda: _updated(_instance_uid(sop_instance_uid), _read(modifications))
    )


def too_many() -> Dataset:
    """Return the status for a sender that sends more than it may: resource limitation."""
    return _status(RESOURCE_LIMITATION, "too many messages from this address; try again later")


def _answered(ingest: Ingest, read: Callable[[], Expectation]) -> Dataset:
    try:
        ingest.expected(read())
    except _Refused as error:
        log.warning("notification.refused", status=f"0x{error.status:04X}", reason=str(error))
        return _status(error.status, str(error))
    except ExpectationError as error:
        log.warning("notification.refused", status=f"0x{error.status:04X}", reason=str(error))
        return _status(error.status, str(error), error.error_id)
    except AttributesError as error:
        log.warning("notification.unreadable", reason=str(error))
        return _status(PROCESSING_FAILURE, "the data set cannot be read")
    return _status(SUCCESS)


def _read(encoded: Encoded) -> Attributes:
    return read_attributes(encoded, VALUES, SEQUENCES)


# ---------------------------------------------------------------- data sets


def _created(sop_instance_uid: str, attributes: Attributes) -> Expectation:
    """Read an N-CREATE of a procedure step: it begins, so it is in progress (PS3.4 F.7.2.1.2).

    A step for several requested procedures names their studies; its images are in the first.
    """
    if _state(attributes) is not StepState.IN_PROGRESS:
        raise _Refused(INVALID_ATTRIBUTE_VALUE, "a step is created IN PROGRESS")
    scheduled = next(_items(attributes, SCHEDULED_STEP_ATTRIBUTES), None)
    if scheduled is None:
        raise _Refused(MISSING_ATTRIBUTE, "ScheduledStepAttributesSequence is missing")
    return Expectation(
        kind=ExpectationKind.STEP_CREATED,
        sop_instance_uid=sop_instance_uid,
        state=StepState.IN_PROGRESS,
        study_instance_uid=_uid(scheduled, STUDY_INSTANCE_UID),
        series=_performed(attributes),
    )


def _updated(sop_instance_uid: str, modifications: Attributes) -> Expectation:
    """Read an N-SET of a procedure step; without a status it goes on."""
    given = STEP_STATUS in modifications.values
    return Expectation(
        kind=ExpectationKind.STEP_SET,
        sop_instance_uid=sop_instance_uid,
        state=_state(modifications) if given else StepState.IN_PROGRESS,
        series=_performed(modifications),
    )


def _available(sop_instance_uid: str, attributes: Attributes) -> Expectation:
    """Read a notification of availability (PS3.4 table R.3.2-1); UNAVAILABLE is not counted."""
    series: dict[str, set[str]] = {}
    for item in _items(attributes, REFERENCED_SERIES):
        instances = series.setdefault(_uid(item, SERIES_INSTANCE_UID), set())
        instances |= {
            _uid(one, REFERENCED_SOP_INSTANCE_UID)
            for one in _items(item, REFERENCED_SOPS)
            if _text(one, INSTANCE_AVAILABILITY) in AVAILABLE
        }
    if not series:
        raise _Refused(MISSING_ATTRIBUTE, "ReferencedSeriesSequence is missing")
    return Expectation(
        kind=ExpectationKind.AVAILABLE,
        sop_instance_uid=sop_instance_uid,
        state=StepState.COMPLETED,
        study_instance_uid=_uid(attributes, STUDY_INSTANCE_UID),
        series=_frozen(series),
    )


def _performed(attributes: Attributes) -> Mapping[str, frozenset[str]] | None:
    """Return the instances of the Performed Series Sequence; None: the message has none.

    Images and other composite instances count alike (PS3.3 C.4.16).
    """
    if PERFORMED_SERIES not in attributes.sequences:
        return None
    series: dict[str, set[str]] = {}
    for item in _items(attributes, PERFORMED_SERIES):
        instances = series.setdefault(_uid(item, SERIES_INSTANCE_UID), set())
        for tag in (REFERENCED_IMAGES, REFERENCED_OTHERS):
            instances |= {_uid(one, REFERENCED_SOP_INSTANCE_UID) for one in _items(item, tag)}
    return _frozen(series)


def _frozen(series: Mapping[str, set[str]]) -> Mapping[str, frozenset[str]]:
    return {uid: frozenset(instances) for uid, instances in series.items()}


def _state(attributes: Attributes) -> StepState:
    text = _text(attributes, STEP_STATUS)
    if not text:
        raise _Refused(MISSING_ATTRIBUTE, "PerformedProcedureStepStatus is missing")
    try:
        return StepState(text)
    except ValueError as error:
        raise _Refused(
            INVALID_ATTRIBUTE_VALUE, "PerformedProcedureStepStatus is not a defined term"
        ) from error


def _items(attributes: Attributes, tag: int) -> Iterator[Attributes]:
    yield from attributes.sequences.get(tag, ())


def _text(attributes: Attributes, tag: int) -> str:
    return attributes.values.get(tag, b"").decode("ascii", "replace").strip(" \0")


def _uid(attributes: Attributes, tag: int) -> str:
    text = _text(attributes, tag)
    if not text:
        raise _Refused(MISSING_ATTRIBUTE, f"{keyword_for_tag(tag)} is missing")
    if len(text) > LONGEST_UID or not UID.fullmatch(text):
        raise _Refused(INVALID_ATTRIBUTE_VALUE, f"{keyword_for_tag(tag)} is no UID")
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
