"""What a job found, from the summary in its row, in a form that a table can show."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, ValidationError

from storage.records import JsonValue


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class Measure(_Part):
    """One number of a finding."""

    name: str
    value: float
    unit: str = ""
    derivation: str | None = None
    slice: int | None = None


class FindingLine(_Part):
    """One finding and what was measured in it."""

    label: str
    measurements: tuple[Measure, ...] = ()


class Reason(_Part):
    """Why an engine could not look."""

    meaning: str


class OutcomeView(_Part):
    """Finding, nothing found, or not analysed and why (invariant 15).

    `shadow`: the engine was on trial, and nothing was sent. `left_out`: by destination, the objects
    of its profile that its viewer would draw in the wrong place, as the pixels are not square.
    `held`: what the engine found and did not believe, which a person has to see before anybody is
    given it.
    """

    verdict: str
    shadow: bool = False
    left_out: Mapping[str, tuple[str, ...]] = {}
    reason: Reason | None = None
    detail: str = ""
    limits: tuple[str, ...] = ()
    findings: tuple[FindingLine, ...] = ()
    held: OutcomeView | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """What was found, each label once."""
        return tuple(dict.fromkeys(finding.label for finding in self.findings))


def read_outcome(summary: Mapping[str, JsonValue]) -> OutcomeView | None:
    """Read a job's summary, or return None if it says nothing in the form known here."""
    try:
        return OutcomeView.model_validate(summary)
    except ValidationError:
        return None
