"""Is a study complete? A pure function from evidence to a verdict, and its words for a timeline.

What each source said is kept apart: an archive's count, a modality's list, a notification, the
positions of slices, the series that a rule waits for. Silence of all of them leaves quiet time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, TypeAlias

from pydantic import JsonValue

from node.slice_positions import Gap

Found: TypeAlias = dict[str, JsonValue]

MOST_SHOWN: Final = 20


class Verdict(StrEnum):
    """What the evidence says of a study."""

    COMPLETE = "complete"  # a source named a number, and it is what was received
    PROBABLY = "probably complete"  # it fell quiet; nobody said how much there is
    KNOWN_MISSING = "known missing"  # a source names what was not received


class Standing(StrEnum):
    """How a source's word stands."""

    COUNTED = "counted"
    IN_PROGRESS = "in progress"  # a procedure step whose instances are not all made yet
    DISCONTINUED = "discontinued"  # a procedure step that ended early: says nothing
    NOT_KNOWN = "not known"  # asked, without an answer that could be used


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedSeries:
    """What a source says of one series: how many instances, and which, where it names them."""

    instances: int
    sop_instance_uids: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What one source says of a study.

    `instances` is its number for the whole study, None where it gives none; `why` says what kept
    it from being known; `at` is when it said so, for people.
    """

    source: str
    standing: Standing
    instances: int | None = None
    series: Mapping[str, ExpectedSeries] = field(default_factory=dict)
    why: str = ""
    at: str = ""

    @property
    def total(self) -> int | None:
        """The number of instances of the study, given or added up; None where it gives none."""
        if self.standing is not Standing.COUNTED:
            return None
        if self.instances is None and not self.series:
            return None
        added = sum(item.instances for item in self.series.values())
        return added if self.instances is None else max(self.instances, added)


Received: TypeAlias = Mapping[str, frozenset[str]]
"""Series Instance UID -> SOP Instance UIDs that were received."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All that is known of a study's completeness.

    `waited_for` are the rules that require a complete study and whose conditions hold, but whose
    series is not among those received.
    """

    received: Received
    claims: Sequence[Claim] = ()
    gaps: Sequence[Gap] = ()
    waited_for: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """The verdict, with what it rests on as data for a timeline."""

    verdict: Verdict
    missing: tuple[Found, ...]
    possibly_missing: tuple[Found, ...]
    sources: tuple[Found, ...]

    def shown(self) -> Found:
        """Return the judgement as data; of long lists the beginning, and how long they are."""
        found: Found = {"verdict": self.verdict.value, "sources": list(self.sources)}
        for name, items in (
            ("missing", self.missing),
            ("possibly_missing", self.possibly_missing),
        ):
            if items:
                found[name] = list(items[:MOST_SHOWN])
            if len(items) > MOST_SHOWN:
                found[f"{name}_in_all"] = len(items)
        return found


def judge(evidence: Evidence) -> Judgement:
    """Return what the evidence says.

    One source that names what was not received outweighs all others; without such a one, a single
    source whose number is that of the instances received makes a study complete.
    """
    received = evidence.received
    missing = [found for claim in evidence.claims for found in _lacking(claim, received)]
    missing += [gap.shown() for gap in evidence.gaps if not gap.possibly]
    missing += [{"by": "rule", "rule": name, "lacks": "its series"} for name in evidence.waited_for]
    number = sum(len(instances) for instances in received.values())
    if missing:
        verdict = Verdict.KNOWN_MISSING
    elif any(claim.total == number for claim in evidence.claims):
        verdict = Verdict.COMPLETE
    else:
        verdict = Verdict.PROBABLY
    return Judgement(
        verdict=verdict,
        missing=tuple(missing),
        possibly_missing=tuple(gap.shown() for gap in evidence.gaps if gap.possibly),
        sources=tuple(_shown(claim, number) for claim in evidence.claims),
    )


def _lacking(claim: Claim, received: Received) -> Iterator[Found]:
    """Yield what a claim names beyond what was received: by series, or else for the study."""
    total = claim.total
    if total is None:
        return
    named = 0
    for uid, expected in sorted(claim.series.items()):
        here = received.get(uid, frozenset())
        absent = len(expected.sop_instance_uids - here)
        lacks = max(absent, expected.instances - len(here))
        if lacks > 0:
            named += 1
            yield {
                "by": claim.source,
                "series": uid,
                "expected": expected.instances,
                "received": len(here),
                "instances": lacks,
            }
    number = sum(len(instances) for instances in received.values())
    if not named and total > number:
        yield {
            "by": claim.source,
            "expected": total,
            "received": number,
            "instances": total - number,
        }


def _shown(claim: Claim, number: int) -> Found:
    found: Found = {"source": claim.source, "standing": claim.standing.value}
    if claim.total is not None:
        found |= {"expected": claim.total, "received": number}
    if claim.why:
        found["why"] = claim.why
    if claim.at:
        found["at"] = claim.at
    return found
