"""What others say that a study has, as listeners hand it to ingest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class ExpectationError(Exception):
    """The notification was not kept. `status` and `error_id` are for the answer (PS3.7 annex C)."""

    status: int = 0x0110
    error_id: int | None = None


class UnknownStep(ExpectationError):
    """There is no such procedure step here: no such object instance."""

    status = 0x0112


class EndedStep(ExpectationError):
    """The procedure step has ended and may no longer be updated (PS3.4 F.7.2.2.2)."""

    status = 0x0110
    error_id = 0xA710


class KnownAlready(ExpectationError):
    """A step or notification of this SOP Instance UID is there already: duplicate instance."""

    status = 0x0111


class NotKeptNow(ExpectationError):
    """The database cannot take it now: resource limitation; the sender may try again."""

    status = 0x0213


class ExpectationKind(StrEnum):
    """Which message says what a study has."""

    STEP_CREATED = "mpps created"  # Modality Performed Procedure Step, N-CREATE
    STEP_SET = "mpps set"  # the same, N-SET
    AVAILABLE = "available"  # Instance Availability Notification, N-CREATE


class StepState(StrEnum):
    """Performed Procedure Step Status (0040,0252)."""

    IN_PROGRESS = "IN PROGRESS"
    COMPLETED = "COMPLETED"
    DISCONTINUED = "DISCONTINUED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """What a procedure step, or a notification of availability, says that a study has.

    `sop_instance_uid` is of the step or notification. `study_instance_uid` is empty for
    STEP_SET: that message does not name the study, the step's first one did. `series` has for
    each Series Instance UID the SOP Instance UIDs in it; None: the message says nothing of them.
    """

    kind: ExpectationKind
    sop_instance_uid: str
    state: StepState
    study_instance_uid: str = ""
    series: Mapping[str, frozenset[str]] | None = None
