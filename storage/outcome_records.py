"""What a job hands over at its end: its results, and what becomes of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from storage.index_records import JsonValue
from storage.states import JobState


@dataclass(frozen=True, slots=True, kw_only=True)
class NewResult:
    """One result object whose file is durable in the object store. `withheld`: given to nobody."""

    writer: str
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    transfer_syntax_uid: str
    digest: str
    size: int
    withheld: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class NewDelivery:
    """A result for a destination; `result` is its index in the job's results.

    `fallbacks` are what goes in its place if it is refused, in order of preference: each some
    results, by index, that go together. One that is `reserved` waits until it is wanted so.
    """

    destination: str
    result: int
    fallbacks: tuple[tuple[int, ...], ...] = ()
    reserved: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class NewReview:
    """Results that a person has to see before anybody is given them, and why.

    `kind` says which kind of finding they are: what is sent of them is decided by it.
    """

    kind: str
    reason: str
    results: tuple[NewResult, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOutcome:
    """How a job ended: `state` is SUCCEEDED or REFUSED.

    `deliveries` None: every result goes to every destination of the job. What is in `review` is
    not among `results`. A recall asks for version and digest of the engine's package. Destinations
    `rejecting` what it supersedes are told so.
    """

    state: JobState
    results: tuple[NewResult, ...]
    summary: Mapping[str, JsonValue]
    timings: Mapping[str, float]
    deliveries: tuple[NewDelivery, ...] | None = None
    review: NewReview | None = None
    engine_version: str = ""
    engine_digest: str = ""
    rejecting: tuple[str, ...] = ()
