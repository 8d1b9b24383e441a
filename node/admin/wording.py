"""Words for people: what a state, a status code or an error class means, and what to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from storage.records import DeliveryRecord, JobRecord, StudyRecord
from storage.states import DeliveryState, ErrorClass, JobState, StudyState

# units as they are written in a report; the others are written as in UCUM
_UNITS: Final[Mapping[str, str]] = {"[hnsf'U]": "HU", "{ratio}": "", "1": "", "mm2": "mm²"}

RESULTS_NOTICE: Final = (
    "Results are made by artificial intelligence. They are preliminary and unverified"
    " until a radiologist has read the study."
)

TONES: Final[Mapping[str, str]] = {
    "receiving": "busy",
    "complete": "busy",
    "routed": "good",
    "unmatched": "quiet",
    "failed": "bad",
    "queued": "wait",
    "running": "busy",
    "succeeded": "good",
    "refused": "warn",
    "dead": "bad",
    "superseded": "quiet",
    "sending": "busy",
    "sent": "good",
    "warned": "warn",
    "confirmed": "good",
    "parked": "warn",
    "reserved": "quiet",
    "replaced": "warn",
    "not_needed": "quiet",
    "withdrawn": "quiet",
    "waiting": "wait",
    "discarded": "quiet",
    "open": "busy",
    "released": "quiet",
    "aborted": "warn",
    "registered": "wait",
    "verified": "wait",
    "shadow": "busy",
    "active": "good",
    "unavailable": "bad",
    "retired": "quiet",
}

MEANINGS: Final[Mapping[str, Mapping[str, str]]] = {
    "study": {
        "receiving": "Instances may still arrive.",
        "complete": "All instances are in; the rules come next.",
        "routed": "The rules made at least one job.",
        "unmatched": "No rule wanted this study.",
        "failed": "The study could not be routed.",
    },
    "job": {
        "queued": "Waits for a worker.",
        "running": "An engine is at work.",
        "succeeded": "The engine looked; its results were made.",
        "refused": "Not analysed: the input does not suit the engine. The reason is sent.",
        "failed": "The engine failed and would fail again the same way.",
        "dead": "All attempts are spent.",
        "superseded": "A newer revision of the study took its place.",
    },
    "delivery": {
        "queued": "Waits to be sent.",
        "sending": "Is being sent now.",
        "sent": "The destination answered success.",
        "warned": "The destination kept it, with a warning.",
        "confirmed": "The destination committed to storage.",
        "failed": "The destination refused it for good.",
        "parked": "The destination is down; waits for it to come back.",
        "superseded": "Not sent: a newer revision took its place.",
        "reserved": "Held in reserve: sent if the destination refuses what it stands in for.",
        "replaced": "The destination refused it; another object of its profile goes instead.",
        "not_needed": "Was held in reserve; the destination took what it stood in for.",
        "withdrawn": "Not sent: its result was recalled.",
    },
    "review": {
        "waiting": "A person has to see it before anybody is given it.",
        "released": "A person released it: it goes to its destinations.",
        "discarded": "A person discarded it: nobody is ever given it.",
        "superseded": "A newer revision of the study took its place before anybody decided.",
    },
    "engine": {
        "registered": "Known, not yet checked.",
        "verified": "Its golden case passed.",
        "shadow": "On trial: takes jobs; its results are kept here and sent nowhere.",
        "active": "Takes jobs.",
        "unavailable": "Cannot run here.",
        "retired": "Takes no new jobs.",
    },
    "association": {
        "open": "Still open.",
        "released": "Ended in order.",
        "aborted": "Broken off.",
    },
}

# PS3.7 Annex C and PS3.4 Table B.2-1
_STATUS_TEXTS: Final[Mapping[int, str]] = {
    0x0000: "Success",
    0x0110: "Processing failure",
    0x0111: "Duplicate SOP instance",
    0x0112: "No such SOP instance",
    0x0117: "Invalid SOP instance",
    0x0118: "No such SOP class",
    0x0122: "Refused: SOP class not supported",
    0x0124: "Refused: not authorized",
    0x0210: "Duplicate invocation",
    0x0211: "Unrecognized operation",
    0x0212: "Mistyped argument",
    0x0213: "Resource limitation",
    0xB000: "Warning: coercion of data elements",
    0xB006: "Warning: elements discarded",
    0xB007: "Warning: data set does not match SOP class",
    0xFE00: "Cancelled",
}

# the ranges of the same tables: (first, last, text)
_STATUS_RANGES: Final[tuple[tuple[int, int, str], ...]] = (
    (0xA700, 0xA7FF, "Refused: out of resources"),
    (0xA900, 0xA9FF, "Error: data set does not match SOP class"),
    (0xC000, 0xCFFF, "Error: cannot understand"),
    (0xB000, 0xBFFF, "Warning"),
)

_STATUS_ACTS: Final[tuple[tuple[int, int, str], ...]] = (
    (0x0122, 0x0122, "Let the destination accept this SOP class, then replay the study."),
    (0x0124, 0x0124, "Let the destination accept this node's AE title, then replay the study."),
    (0xA700, 0xA7FF, "Free space at the destination, then replay the study."),
    (
        0xA900,
        0xA9FF,
        "Ask the destination's vendor which element it refuses; keep the SOP Instance UID.",
    ),
    (
        0xC000,
        0xCFFF,
        "Ask the destination's vendor why it cannot read the object; keep the SOP Instance UID.",
    ),
)

JOB_ACTS: Final[Mapping[ErrorClass, str]] = {
    ErrorClass.TRANSIENT: "The cause may have passed: replay the study.",
    ErrorClass.OUT_OF_MEMORY: "Give the worker more memory, then replay the study.",
    ErrorClass.DEADLINE: "Check the load, or raise the engine's deadline; then replay the study.",
    ErrorClass.CRASH: "The engine's process died: check its golden case, then replay the study.",
    ErrorClass.DETERMINISTIC: "A retry fails the same way: give the text to the engine's maker.",
}

ACTIONS: Final[Mapping[str, str]] = {
    "study.received": "First instance received",
    "study.reopened": "Study opened again",
    "study.postponed": "Completion postponed",
    "study.waits": "Instances known to be missing; the study waits for them",
    "study.completed": "Study complete",
    "study.routed": "Rules made jobs",
    "study.unmatched": "No rule wanted the study",
    "study.routing_failed": "Routing failed",
    "study.held": "Held: retention leaves it alone",
    "study.released": "Released: the rules of retention apply again",
    "study.bytes_deleted": "Received bytes deleted by retention",
    "study.bytes_returned": "Deleted instances came again: kept again",
    "results.bytes_deleted": "Result objects deleted by retention",
    "quarantine.bytes_deleted": "Quarantined bytes deleted by retention",
    "instance.conflict": "Other bytes under a known SOP Instance UID: kept apart",
    "instance.quarantined": "Instance put into quarantine",
    "instance.own_result": "Own result came back: counted, not processed",
    "job.leased": "Job started",
    "job.succeeded": "Job succeeded",
    "job.refused": "Not analysed: input does not suit the engine",
    "job.failed": "Job failed",
    "job.retried": "Job queued again",
    "job.dead": "Attempts spent",
    "job.superseded": "Job superseded by a newer revision",
    "job.lease_expired": "Worker lost; lease expired",
    "job.given_back": "Job given back by its worker",
    "delivery.lease_expired": "Sender lost; lease expired",
    "delivery.sent": "Sent; destination answered success",
    "delivery.warned": "Sent; destination answered with a warning",
    "delivery.confirmed": "Storage commitment received",
    "delivery.failed": "Delivery failed",
    "delivery.retried": "Delivery queued again",
    "delivery.superseded": "Delivery superseded by a newer revision",
    "delivery.replaced": "Refused; another object of the profile goes instead",
    "delivery.released": "Out of reserve: sent in the place of one that was refused",
    "delivery.not_needed": "Reserve not needed",
    "delivery.withdrawn": "Taken out of the queue: its result was recalled",
    "results.recalled": "Results recalled",
    "job.recalled": "Engine recalled while it ran: what it makes is sent nowhere",
    "withdrawal.made": "Note that recalled results are rejected: queued",
    "withdrawal.not_needed": "Recalled results never arrived there: nobody to tell",
    "review.opened": "Held back: a person has to see the result first",
    "review.released": "Released by a person: the result is sent",
    "review.discarded": "Discarded by a person: the result is given to nobody",
    "review.superseded": "Not to be judged any more: a newer revision took its place",
    "destination.parked": "Destination down: its deliveries wait",
    "destination.unparked": "Destination back: its deliveries go on",
}


def tone(state: str) -> str:
    """Return the tone of a state: good, busy, wait, warn, bad or quiet."""
    return TONES.get(state, "quiet")


def meaning(kind: str, state: str) -> str:
    """Say in a sentence what a state of a study, job, delivery or engine means."""
    return MEANINGS.get(kind, {}).get(state, "")


def action_text(action: str) -> str:
    """Return the words for an event's action, or the action itself where there are none."""
    return ACTIONS.get(action, action)


def unit_text(unit: str) -> str:
    """Write a UCUM unit as people do: HU."""
    return _UNITS.get(unit, unit)


def status_hex(status: int) -> str:
    """Write a DIMSE status as the standard does: 0xA700."""
    return f"0x{status:04X}"


def status_text(status: int) -> str:
    """Return what a C-STORE status means (PS3.4 Table B.2-1, PS3.7 Annex C)."""
    exact = _STATUS_TEXTS.get(status)
    if exact is not None:
        return exact
    return _of_range(_STATUS_RANGES, status) or "Status not in the standard"


def study_act(study: StudyRecord) -> str:
    """Suggest what a person can do about a study, or "" where nothing needs doing."""
    if study.state is StudyState.FAILED:
        return "Correct the cause named in the reason, then replay the study."
    return ""


def job_act(job: JobRecord) -> str:
    """Suggest what a person can do about a job, or "" where nothing needs doing."""
    if job.state in {JobState.FAILED, JobState.DEAD}:
        act = "Read the error, then replay the study."
        return JOB_ACTS[job.error_class] if job.error_class is not None else act
    if job.state is JobState.QUEUED and job.attempts > 0:
        return "None: the node tries again by itself."
    return ""


def delivery_act(delivery: DeliveryRecord) -> str:
    """Suggest what a person can do about a delivery, or "" where nothing needs doing."""
    if delivery.state is DeliveryState.PARKED:
        return "Check that the destination runs and can be reached; sending goes on by itself."
    if delivery.state is DeliveryState.WARNED:
        return "Check the object at the destination."
    if delivery.state is DeliveryState.QUEUED and delivery.attempts > 0:
        return "None: the node tries again by itself."
    if delivery.state is DeliveryState.REPLACED:
        return "None: another object goes in its place. See: wetread destinations probe."
    if delivery.state is not DeliveryState.FAILED:
        return ""
    act = _of_range(_STATUS_ACTS, delivery.status) if delivery.status is not None else ""
    return act or "Correct the cause named in the error, then replay the study."


def _of_range(ranges: tuple[tuple[int, int, str], ...], status: int) -> str:
    return next((text for first, last, text in ranges if first <= status <= last), "")
