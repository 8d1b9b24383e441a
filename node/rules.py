"""Routing rules as an admin writes them: TOML, strict, compiled once. No evaluation here."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, time
from functools import cached_property
from typing import Annotated, Final, Literal, TypeAlias
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    Field,
    PlainValidator,
    PositiveFloat,
    StringConstraints,
    field_validator,
    model_validator,
)

from node.conditions import PSEUDO_NAMES, Comparison, Condition, Part, comparisons_of, known_field
from node.strict_toml import TableError, check_table, read_toml

Priority: TypeAlias = Literal["stat", "urgent", "routine", "background"]
Day: TypeAlias = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
Name: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=128)]

PRIORITIES: Final = {"stat": 300, "urgent": 200, "routine": 100, "background": 0}
DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
CLOCK_TIME: Final = re.compile(r"([01]\d|2[0-3]):[0-5]\d(:[0-5]\d)?", re.ASCII)
DEEPEST: Final = 20


class RulesError(Exception):
    """The rules are wrong; the message names the key path and what is wrong there."""


def _clock_time(raw: object) -> time:
    text = str(raw)
    if text in {"24:00", "24:00:00"}:
        return time.min
    if not CLOCK_TIME.fullmatch(text):
        raise ValueError('must be a time of day such as "07:30", without a zone')
    return time.fromisoformat(text)


ClockTime: TypeAlias = Annotated[time, PlainValidator(_clock_time)]


class Preference(Part):
    """One step of the ranking of series: by a field, or those first for which something holds."""

    field: str = Field(
        "",
        description="Field to sort by; the value of the series that comes first in the order "
        "counts. Series without a value come last.",
    )
    order: Literal["ascending", "descending"] = Field("ascending", description="Which end wins.")
    prefer: Condition | None = Field(None, description="Series for which this holds come first.")

    @field_validator("field")
    @classmethod
    def _field_exists(cls, text: str) -> str:
        return known_field(text)

    @model_validator(mode="after")
    def _one_of_both(self) -> Preference:
        if bool(self.field) == (self.prefer is not None):
            raise ValueError("give either field or prefer")
        if self.prefer is not None and "order" in self.model_fields_set:
            raise ValueError("order goes with field: with prefer, those that fit come first")
        return self


class SeriesSelection(Part):
    """Which series of a matching study the engines get."""

    conditions: Condition | None = Field(None, description="What a series must fulfil.")
    rank: tuple[Preference, ...] = Field(
        (),
        description="Best first; the first step counts most. Series that are equal in all steps "
        "are ordered by Series Instance UID.",
    )
    take: Literal["first", "all"] = Field(
        "all", description="The best one, or every one: each gets its own job and results."
    )


class Window(Part):
    """A time of the week in which a rule applies."""

    days: tuple[Day, ...] = Field(DAYS, min_length=1, description="Days on which it begins.")
    begin: ClockTime = Field(time.min, alias="from", description="Local time, included.")
    end: ClockTime = Field(
        time.min,
        alias="to",
        description="Local time, excluded. Not after `from`: on the next day.",
    )

    def holds(self, local: datetime) -> bool:
        """Say whether a local moment is inside."""
        today, yesterday = DAYS[local.weekday()], DAYS[local.weekday() - 1]
        moment = local.time()
        if self.begin < self.end:
            return today in self.days and self.begin <= moment < self.end
        late = today in self.days and moment >= self.begin
        return late or (yesterday in self.days and moment < self.end)


class Rule(Part):
    """What is to be read by which engines, and where the results go."""

    name: Name = Field(description="Unique name, 128 characters at most.")
    owner: str = Field("", max_length=128, description="Group that may change it.")
    enabled: bool = Field(True, description="Whether it counts.")
    priority: Priority = Field("routine", description="Class of its jobs; higher runs first.")
    trigger: Literal["study", "series"] = Field(
        "study", description="Judge the conditions once for the study, or once for each series."
    )
    quiet_seconds: PositiveFloat | None = Field(
        None, description="A longer quiet time for studies it matches, in seconds."
    )
    require_complete: bool = Field(
        False,
        description="Run no engine on a study that is known to be incomplete; the study says so. "
        "A study that fulfils its conditions without one of its series is waited for, too.",
    )
    timezone: str = Field("UTC", description="Time zone of its windows, e.g. `Europe/Berlin`.")
    windows: tuple[Window, ...] = Field((), description="When it applies; none: always.")
    conditions: Condition | None = Field(
        None, description="What the study, or series, must fulfil; none: nothing."
    )
    series: SeriesSelection = Field(SeriesSelection(), description="Which series its engines get.")
    engines: tuple[str, ...] = Field(min_length=1, description="Engines to run.")
    destinations: tuple[str, ...] = Field((), description="Where results are sent; at least one.")

    @property
    def priority_number(self) -> int:
        """Return the priority class as a number; higher runs first."""
        return PRIORITIES[self.priority]

    @field_validator("name", "owner")
    @classmethod
    def _one_line(cls, text: str) -> str:
        if not text.isprintable() or text != text.strip():
            raise ValueError("must be one line of printable characters, not framed by blanks")
        return text

    @field_validator("timezone")
    @classmethod
    def _zone_exists(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ValueError(f"{name!r} is no time zone") from error
        return name

    @field_validator("engines", "destinations")
    @classmethod
    def _each_once(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        twice = sorted(name for name, count in Counter(names).items() if count > 1)
        if twice:
            raise ValueError(f"named twice: {', '.join(twice)}")
        return names

    @model_validator(mode="after")
    def _zone_is_read_now(self) -> Rule:
        self.zone  # noqa: B018 - reads the zone's file here, not while rules are applied
        return self

    @cached_property
    def zone(self) -> ZoneInfo:
        """The time zone of the windows."""
        return ZoneInfo(self.timezone)

    def in_window(self, now: datetime) -> bool:
        """Say whether the rule applies at an aware moment."""
        if not self.windows:
            return True
        local = now.astimezone(self.zone)
        return any(window.holds(local) for window in self.windows)

    def comparisons(self) -> Iterator[Comparison]:
        """Yield every comparison of the rule."""
        roots = (self.conditions, self.series.conditions)
        for root in (*roots, *(item.prefer for item in self.series.rank)):
            yield from comparisons_of(root)


class RuleSet(Part):
    """All rules of one revision, in order."""

    rules: tuple[Rule, ...] = Field((), description="The rules.")

    @field_validator("rules")
    @classmethod
    def _names_are_unique(cls, rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
        counted = Counter(rule.name for rule in rules)
        twice = sorted(name for name, count in counted.items() if count > 1)
        if twice:
            raise ValueError(f"two rules have the same name: {', '.join(twice)}")
        return rules

    @cached_property
    def fields(self) -> frozenset[str]:
        """Return the fields of data sets that the rules ask for."""
        compared = {item.field for rule in self.rules for item in rule.comparisons()}
        ranked = {item.field for rule in self.rules for item in rule.series.rank if item.field}
        return frozenset(compared | ranked) - PSEUDO_NAMES


def parse_rules(text: str) -> RuleSet:
    """Read rules.

    Raises:
        RulesError: naming the key path and what is wrong there.
    """
    try:
        raw = read_toml(text)
        if _depth(raw) > DEEPEST:
            raise RulesError(f"conditions are nested deeper than {DEEPEST} levels")
        return check_table(raw, RuleSet)
    except TableError as error:
        raise RulesError(str(error)) from error


def _depth(value: object) -> int:
    """Return how deep tables are nested, counting two levels (table and list) as one."""
    deepest, level = 0, [value]
    while level:
        deepest += 1
        level = [
            child
            for item in level
            for child in (
                item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()
            )
        ]
    return deepest // 2
