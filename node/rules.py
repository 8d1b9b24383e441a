"""Routing rules as an admin writes them: TOML, strict, compiled once. No evaluation here."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterator
from datetime import datetime, time
from typing import Annotated, Final, Literal, TypeAlias
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import re2
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    JsonValue,
    PositiveFloat,
    PrivateAttr,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)

from node.fields import FieldError, parse_field

Scalar: TypeAlias = str | int | float
Priority: TypeAlias = Literal["stat", "urgent", "routine", "background"]
Level: TypeAlias = Literal["study", "series", "instance"]
Operator: TypeAlias = Literal[
    "equals",
    "in",
    "matches",
    "exists",
    "absent",
    "empty",
    "<",
    "<=",
    ">",
    ">=",
    "between",
    "contains",
]
Day: TypeAlias = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]

PRIORITIES: Final = {"stat": 300, "urgent": 200, "routine": 100, "background": 0}
PSEUDO_NAMES: Final = frozenset(
    {"@calling_ae", "@series_instances", "@study_series", "@study_instances"}
)
DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
WITHOUT_VALUE: Final = frozenset({"exists", "absent", "empty"})
WITH_NUMBER: Final = frozenset({"<", "<=", ">", ">=", "between"})
BETWEEN_VALUES: Final = 2
REGEX_MEMORY: Final = 1 << 20
DEEPEST: Final = 20


class RulesError(Exception):
    """The rules are wrong; the message names the key path and what is wrong there."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _known_field(text: str) -> str:
    if text.startswith("@"):
        if text not in PSEUDO_NAMES:
            raise ValueError(f"{text!r} is none of {', '.join(sorted(PSEUDO_NAMES))}")
        return text
    try:
        parse_field(text)
    except FieldError as error:
        raise ValueError(str(error)) from error
    return text


class Comparison(_Part):
    """One question about one attribute."""

    field: str = Field(description="DICOM keyword, tag, nested path, private tag, or @name.")
    op: Operator = Field(description="What must hold.")
    value: Scalar | tuple[Scalar, ...] | None = Field(
        None, description="What the attribute is compared with; none for exists, absent, empty."
    )
    level: Level = Field(
        "series", description="What is one case: the study, a series, an instance."
    )
    quantifier: Literal["any", "all"] = Field(
        "any", description="Whether one case must fit, or every one."
    )
    ignore_case: bool = Field(False, description="Compare text without regard to case.")
    _regex: re2._Regexp | None = PrivateAttr(None)

    _check_field = field_validator("field")(_known_field)

    @property
    def values(self) -> tuple[Scalar, ...]:
        """The value, always as a tuple."""
        if self.value is None:
            return ()
        return self.value if isinstance(self.value, tuple) else (self.value,)

    @model_validator(mode="after")
    def _value_fits(self) -> Comparison:
        if (self.op in WITHOUT_VALUE) != (self.value is None):
            need = "takes no value" if self.op in WITHOUT_VALUE else "needs a value"
            raise ValueError(f"{self.op} {need}")
        if self.op == "in" and not isinstance(self.value, tuple):
            raise ValueError("in needs a list of values")
        if self.op == "between" and len(self.values) != BETWEEN_VALUES:
            raise ValueError("between needs a list of two numbers")
        if self.op not in {"in", "between"} and len(self.values) > 1:
            raise ValueError(f"{self.op} takes one value")
        if self.op in WITH_NUMBER and not all(map(_is_number, self.values)):
            raise ValueError(f"{self.op} compares numbers")
        if self.op == "matches":
            self._regex = self._compiled()
        return self

    def _compiled(self) -> re2._Regexp:
        options = re2.Options()
        options.max_mem = REGEX_MEMORY
        options.log_errors = False
        options.case_sensitive = not self.ignore_case
        try:
            return re2.compile(str(self.value), options)
        except re2.error as error:
            reason = error.args[0].decode() if error.args else "refused"
            raise ValueError(f"not a linear-time regular expression: {reason}") from error

    def searches(self, text: str) -> bool:
        """Say whether the pattern is found in a text; linear in its length."""
        return self._regex is not None and self._regex.search(text) is not None

    def folded(self, text: str) -> str:
        """Return a text as it is compared."""
        return text.casefold() if self.ignore_case else text

    def shown_value(self) -> JsonValue:
        """Return the value for an explanation."""
        return list(self.value) if isinstance(self.value, tuple) else self.value


class All(_Part):
    """Every part must hold."""

    parts: tuple[Condition, ...] = Field(alias="all", min_length=1)


class Any(_Part):
    """At least one part must hold."""

    parts: tuple[Condition, ...] = Field(alias="any", min_length=1)


class Nothing(_Part):
    """No part may hold."""

    parts: tuple[Condition, ...] = Field(alias="none", min_length=1)


def _kind(raw: object) -> str:
    if isinstance(raw, dict):
        for name in ("all", "any", "none"):
            if name in raw:
                return name
    return "field"


Condition: TypeAlias = Annotated[
    Annotated[Comparison, Tag("field")]
    | Annotated[All, Tag("all")]
    | Annotated[Any, Tag("any")]
    | Annotated[Nothing, Tag("none")],
    Discriminator(_kind),
]


class Preference(_Part):
    """One step of the ranking of series: by a field, or those first for which something holds."""

    field: str = Field("", description="Field to sort by; its first value in the series counts.")
    order: Literal["ascending", "descending"] = Field("ascending", description="Which end wins.")
    prefer: Condition | None = Field(None, description="Series for which this holds come first.")

    @model_validator(mode="after")
    def _one_of_both(self) -> Preference:
        if bool(self.field) == (self.prefer is not None):
            raise ValueError("give either field or prefer")
        if self.field:
            _known_field(self.field)
        return self


class SeriesSelection(_Part):
    """Which series of a matching study the engines get."""

    conditions: Condition | None = Field(None, description="What a series must fulfil.")
    rank: tuple[Preference, ...] = Field((), description="Best first; the first step counts most.")
    take: Literal["first", "all"] = Field(
        "all", description="The best one, or every one: each gets its own job and results."
    )


class Window(_Part):
    """A time of the week in which a rule applies."""

    days: tuple[Day, ...] = Field(DAYS, min_length=1, description="Days on which it begins.")
    begin: time = Field(time.min, alias="from", description="Local time, included.")
    end: time = Field(time.max, alias="to", description="Local time, excluded; may be next day.")

    def holds(self, now: datetime) -> bool:
        """Say whether a local moment is inside."""
        today, yesterday = DAYS[now.weekday()], DAYS[now.weekday() - 1]
        moment = now.time()
        if self.begin <= self.end:
            return today in self.days and self.begin <= moment < self.end
        late = today in self.days and moment >= self.begin
        return late or (yesterday in self.days and moment < self.end)


class Rule(_Part):
    """What is to be read by which engines, and where the results go."""

    name: str = Field(min_length=1, max_length=128, description="Unique name.")
    owner: str = Field("", description="Group that may change it.")
    enabled: bool = Field(True, description="Whether it counts.")
    priority: Priority = Field("routine", description="Class of its jobs; higher runs first.")
    trigger: Literal["study", "series"] = Field(
        "study", description="Judge the conditions once for the study, or once for each series."
    )
    quiet_seconds: PositiveFloat | None = Field(
        None, description="A longer quiet time for studies it matches, in seconds."
    )
    timezone: str = Field("UTC", description="Time zone of its windows, e.g. Europe/Berlin.")
    windows: tuple[Window, ...] = Field((), description="When it applies; none: always.")
    conditions: Condition | None = Field(
        None, description="What the study, or series, must fulfil."
    )
    series: SeriesSelection = Field(
        SeriesSelection(),
        description="Which series its engines get.",
    )
    engines: tuple[str, ...] = Field(min_length=1, description="Engines to run.")
    destinations: tuple[str, ...] = Field((), description="Where results are sent.")

    @property
    def priority_number(self) -> int:
        """Return the priority class as a number; higher runs first."""
        return PRIORITIES[self.priority]

    @field_validator("timezone")
    @classmethod
    def _zone_exists(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise ValueError(f"{name!r} is no time zone") from error
        return name

    def in_window(self, now: datetime) -> bool:
        """Say whether the rule applies at an aware moment."""
        if not self.windows:
            return True
        local = now.astimezone(ZoneInfo(self.timezone))
        return any(window.holds(local) for window in self.windows)

    def comparisons(self) -> Iterator[Comparison]:
        """Yield every comparison of the rule."""
        for root in (
            self.conditions,
            self.series.conditions,
            *(item.prefer for item in self.series.rank),
        ):
            yield from _leaves(root)


class RuleSet(_Part):
    """All rules of one revision, in order."""

    rules: tuple[Rule, ...] = Field((), description="The rules.")

    @model_validator(mode="after")
    def _names_are_unique(self) -> RuleSet:
        names = [rule.name for rule in self.rules]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two rules have the same name: {', '.join(twice)}")
        return self

    @property
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
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RulesError(f"not TOML: {error}") from error
    if _depth(raw) > DEEPEST:
        raise RulesError(f"conditions are nested deeper than {DEEPEST} levels")
    try:
        return RuleSet.model_validate(raw)
    except ValidationError as error:
        raise RulesError(_explain(error)) from error


def _explain(error: ValidationError) -> str:
    items = error.errors(include_url=False, include_input=False)
    locations = [item["loc"] for item in items]
    words = []
    for item in items:
        location = item["loc"]
        inside = [other for other in locations if other != location]
        if item["type"] == "too_short" and any(o[: len(location)] == location for o in inside):
            continue  # the list is short because an item of it is wrong: that item is told
        words.append(f"{_key_path(location)}: {item['msg'].removeprefix('Value error, ')}")
    return "; ".join(words)


def _key_path(location: tuple[str | int, ...]) -> str:
    """Return the path as it stands in the file: without the names of the union's branches."""
    path = ""
    before: tuple[str | int, str | int] = ("", "")
    for part in location:
        opens = before[1] in {"conditions", "prefer"} or (
            isinstance(before[1], int) and before[0] in {"all", "any", "none"}
        )
        if opens and part in {"all", "any", "none", "field"}:
            before = ("", "")
            continue
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
        before = (before[1], part)
    return path or "rules"


def _leaves(condition: Condition | None) -> Iterator[Comparison]:
    if isinstance(condition, Comparison):
        yield condition
    elif condition is not None:
        for part in condition.parts:
            yield from _leaves(part)


def _depth(value: object) -> int:
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
        if deepest > 10 * DEEPEST:
            break
    return deepest // 2


def _is_number(value: Scalar) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
