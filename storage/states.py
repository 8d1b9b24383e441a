"""States of every aggregate and the transitions allowed between them, as data.

The same tables drive the code (`check_transition`) and the database constraints, so that a state
that is not here can be written by neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, TypeVar


class StudyState(StrEnum):
    """Where a study revision stands between the first instance and its jobs."""

    RECEIVING = "receiving"
    COMPLETE = "complete"
    ROUTED = "routed"
    UNMATCHED = "unmatched"  # no rule wanted it: discarded by a named rule revision
    FAILED = "failed"  # could not be routed: visible, with a reason


class JobState(StrEnum):
    """Where one engine on one study revision stands."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    REFUSED = "refused"  # the input does not suit the engine: a coded reason is delivered
    FAILED = "failed"  # deterministic error: a retry would fail the same way
    DEAD = "dead"  # attempts spent
    SUPERSEDED = "superseded"  # a newer revision of the study took its place


class DeliveryState(StrEnum):
    """Where one result object on its way to one destination stands."""

    QUEUED = "queued"
    SENDING = "sending"
    SENT = "sent"  # the destination answered 0x0000
    WARNED = "warned"  # the destination kept it with a warning (0xBxxx)
    CONFIRMED = "confirmed"  # storage commitment
    FAILED = "failed"  # the destination refused it for good
    PARKED = "parked"  # the destination is down: waits for it to come back
    SUPERSEDED = "superseded"  # not sent any more: a newer revision took its place
    RESERVED = "reserved"  # held in reserve: sent if what it stands in for is refused
    REPLACED = "replaced"  # refused for good; another object of its set goes in its place
    NOT_NEEDED = "not_needed"  # was held in reserve, and what it stands in for was taken
    WITHDRAWN = "withdrawn"  # not sent any more: its result was recalled


class Reached(StrEnum):
    """Whether a destination has an object, by all attempts so far; it never goes back."""

    NO = "no"  # nothing of it went out, or each attempt was refused
    PERHAPS = "perhaps"  # an attempt had no answer: it may be there
    YES = "yes"  # taken once, whatever came after


class ReviewState(StrEnum):
    """What a person decided of results that were held back."""

    WAITING = "waiting"
    RELEASED = "released"
    DISCARDED = "discarded"
    SUPERSEDED = "superseded"  # a newer revision took their place before anybody decided


class InstanceState(StrEnum):
    """What a received instance is to its study."""

    CURRENT = "current"
    CONFLICT = "conflict"  # other bytes under a SOP Instance UID we already hold: kept apart


class ReceiptOutcome(StrEnum):
    """What became of one acknowledged C-STORE (or file, or STOW part)."""

    STORED = "stored"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"
    OWN_RESULT = "own_result"  # our own result coming back: counted, never processed
    NOT_INDEXED = "not_indexed"  # acknowledged, but the index refuses it: in quarantine, visible


class AssociationState(StrEnum):
    """How an association stands or ended."""

    OPEN = "open"
    RELEASED = "released"
    ABORTED = "aborted"


class EngineState(StrEnum):
    """Whether an engine may take jobs."""

    REGISTERED = "registered"
    VERIFIED = "verified"  # its golden case passed
    SHADOW = "shadow"  # on trial: takes jobs, and its results are sent nowhere
    ACTIVE = "active"
    UNAVAILABLE = "unavailable"  # its runtime or device is missing, with the reason
    RETIRED = "retired"


class ExpectationSource(StrEnum):
    """Who says how many instances a study has."""

    ARCHIVE = "c-find"
    PROCEDURE_STEP = "mpps"
    AVAILABILITY = "availability"  # an instance availability notification


class ExpectationState(StrEnum):
    """How the word of a source stands."""

    COUNTED = "counted"
    IN_PROGRESS = "in_progress"  # a procedure step that goes on
    DISCONTINUED = "discontinued"  # a procedure step that ended early
    NOT_KNOWN = "not_known"  # asked in vain


class ErrorClass(StrEnum):
    """Why a job failed: each class has its own retry policy (R26)."""

    TRANSIENT = "transient"
    OUT_OF_MEMORY = "out_of_memory"
    DEADLINE = "deadline"
    CRASH = "crash"
    DETERMINISTIC = "deterministic"


class DeletionKind(StrEnum):
    """What retention deletes."""

    INSTANCES = "instances"  # received bytes of a study
    RESULTS = "results"  # result objects of a study
    QUARANTINE = "quarantine"  # bytes that were kept although they could not be indexed
    DUPLICATES = "duplicates"  # bytes without a row: what came twice, our own results come back


class DeletionRule(StrEnum):
    """Why retention deletes: the setting that says so."""

    STUDIES = "studies_days"
    FAILED = "failed_days"
    RESULTS = "results_days"
    QUARANTINE = "quarantine_days"
    DUPLICATES = "duplicates_days"
    DISK = "disk_low_mib"
    PACK = "whole pack"  # a pack went in which nothing else was left


class TransitionError(Exception):
    """The transition asked for is not in the table."""


STUDY_TRANSITIONS: Final[Mapping[StudyState, frozenset[StudyState]]] = {
    StudyState.RECEIVING: frozenset({StudyState.COMPLETE}),
    StudyState.COMPLETE: frozenset(
        {StudyState.ROUTED, StudyState.UNMATCHED, StudyState.FAILED, StudyState.RECEIVING}
    ),
    StudyState.ROUTED: frozenset({StudyState.RECEIVING}),
    StudyState.UNMATCHED: frozenset({StudyState.RECEIVING}),
    StudyState.FAILED: frozenset({StudyState.RECEIVING}),
}

JOB_TRANSITIONS: Final[Mapping[JobState, frozenset[JobState]]] = {
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.SUPERSEDED}),
    JobState.RUNNING: frozenset(
        {
            JobState.QUEUED,
            JobState.SUCCEEDED,
            JobState.REFUSED,
            JobState.FAILED,
            JobState.DEAD,
            JobState.SUPERSEDED,
        }
    ),
    JobState.SUCCEEDED: frozenset(),
    JobState.REFUSED: frozenset(),
    JobState.FAILED: frozenset({JobState.QUEUED}),
    JobState.DEAD: frozenset({JobState.QUEUED}),
    JobState.SUPERSEDED: frozenset(),
}

DELIVERY_TRANSITIONS: Final[Mapping[DeliveryState, frozenset[DeliveryState]]] = {
    DeliveryState.QUEUED: frozenset(
        {
            DeliveryState.SENDING,
            DeliveryState.PARKED,
            DeliveryState.SUPERSEDED,
            DeliveryState.WITHDRAWN,
        }
    ),
    DeliveryState.SENDING: frozenset(
        {
            DeliveryState.QUEUED,
            DeliveryState.SENT,
            DeliveryState.WARNED,
            DeliveryState.FAILED,
            DeliveryState.REPLACED,
            DeliveryState.SUPERSEDED,
            DeliveryState.WITHDRAWN,
        }
    ),
    DeliveryState.SENT: frozenset({DeliveryState.CONFIRMED, DeliveryState.QUEUED}),
    DeliveryState.WARNED: frozenset({DeliveryState.CONFIRMED, DeliveryState.QUEUED}),
    DeliveryState.CONFIRMED: frozenset({DeliveryState.QUEUED}),
    DeliveryState.FAILED: frozenset({DeliveryState.QUEUED}),
    DeliveryState.PARKED: frozenset(
        {DeliveryState.QUEUED, DeliveryState.SUPERSEDED, DeliveryState.WITHDRAWN}
    ),
    DeliveryState.SUPERSEDED: frozenset(),
    DeliveryState.RESERVED: frozenset(
        {
            DeliveryState.QUEUED,
            DeliveryState.NOT_NEEDED,
            DeliveryState.SUPERSEDED,
            DeliveryState.WITHDRAWN,
        }
    ),
    DeliveryState.REPLACED: frozenset({DeliveryState.QUEUED}),
    DeliveryState.NOT_NEEDED: frozenset({DeliveryState.QUEUED}),
    DeliveryState.WITHDRAWN: frozenset(),
}

ASSOCIATION_TRANSITIONS: Final[Mapping[AssociationState, frozenset[AssociationState]]] = {
    AssociationState.OPEN: frozenset({AssociationState.RELEASED, AssociationState.ABORTED}),
    AssociationState.RELEASED: frozenset(),
    AssociationState.ABORTED: frozenset(),
}


S = TypeVar("S", bound=StrEnum)


def check_transition(table: Mapping[S, frozenset[S]], old: S, new: S) -> None:
    """Refuse a change of state that the table does not allow.

    Raises:
        TransitionError: naming both states.
    """
    if new not in table[old]:
        raise TransitionError(f"{type(old).__name__}: {old.value} -> {new.value} is not allowed")
