"""Conditions of rules: questions about attributes, and trees of them. Compiled once, pure.

A comparison looks at *cases*: the whole study, each series, or each instance, by its level. The
values of a case are what its instances say of the attribute, each value once; one of them that
fits makes the case fit. The quantifier says whether one case must fit, or every one. An attribute
that is absent fits nothing but `absent`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import cached_property
from typing import Annotated, Final, Literal, TypeAlias

import re2
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    JsonValue,
    Tag,
    field_validator,
    model_validator,
)

from node.fields import FieldError, parse_field
from node.strict_toml import BRANCH

Scalar: TypeAlias = str | int | float
Values: TypeAlias = tuple[Scalar, ...] | None
Test: TypeAlias = Callable[[Scalar], bool]
Level: TypeAlias = Literal["study", "series", "instance"]
Operator: TypeAlias = Literal[
    "equals",
    "in",
    "matches",
    "contains",
    "<",
    "<=",
    ">",
    ">=",
    "between",
    "exists",
    "absent",
    "empty",
]

CALLING_AE: Final = "@calling_ae"
SERIES_INSTANCES: Final = "@series_instances"
STUDY_SERIES: Final = "@study_series"
STUDY_INSTANCES: Final = "@study_instances"
PSEUDO_NAMES: Final = frozenset({CALLING_AE, SERIES_INSTANCES, STUDY_SERIES, STUDY_INSTANCES})
WITHOUT_VALUE: Final = frozenset({"exists", "absent", "empty"})
WITH_NUMBER: Final = frozenset({"<", "<=", ">", ">=", "between"})
BETWEEN_VALUES: Final = 2
NUMBER: Final = re.compile(r" *[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)? *", re.ASCII)
LONGEST_NUMBER: Final = 64
LONGEST_PATTERN: Final = 1000
REGEX_MEMORY: Final = 1 << 20
MOST_SHOWN: Final = 5  # values in an explanation
LONGEST_SHOWN: Final = 80


class Part(BaseModel):
    """Base of everything in a rules file: strict, frozen, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def known_field(text: str) -> str:
    """Return a field path that means something.

    Raises:
        ValueError: saying what is wrong with it, and what may be meant.
    """
    if text.startswith("@"):
        if text not in PSEUDO_NAMES:
            raise ValueError(f"{text!r} is none of {', '.join(sorted(PSEUDO_NAMES))}")
        return text
    try:
        parse_field(text)
    except FieldError as error:
        raise ValueError(str(error)) from error
    return text


class Comparison(Part):
    """One question about one attribute."""

    field: str = Field(
        description="Keyword, tag `gggg,eeee`, private tag `gggg,CREATOR,ee`, or a path of them "
        "with dots and `[i]`; or `@calling_ae`, `@series_instances`, `@study_series`, "
        "`@study_instances`."
    )
    op: Operator = Field(
        description="What must hold. Numbers are compared as numbers, texts as texts. `exists`: "
        "present, with a value or without; `empty`: present without a value; `absent`: not there."
    )
    value: str | int | float | tuple[Scalar, ...] | None = Field(
        None,
        description="What the attribute is compared with: a list for `in` and `between`; for "
        "`matches` a regular expression (RE2); none for `exists`, `absent`, `empty`.",
    )
    level: Level = Field("series", description="What one case is.")
    quantifier: Literal["any", "all"] = Field(
        "any", description="Whether one case must fit, or every one."
    )
    ignore_case: bool = Field(False, description="Compare text without regard to case.")

    _check_field = field_validator("field")(known_field)

    @property
    def values(self) -> tuple[Scalar, ...]:
        """The value, always as a tuple."""
        if self.value is None:
            return ()
        return self.value if isinstance(self.value, tuple) else (self.value,)

    @model_validator(mode="after")
    def _value_fits(self) -> Comparison:
        _check_shape(self)
        if self.op == "between" and float(self.values[0]) > float(self.values[1]):
            raise ValueError("between needs the smaller number first")
        self.test, self.shown  # noqa: B018 - made here, so that a wrong pattern is refused here
        return self

    @cached_property
    def test(self) -> Test:
        """What one value must fulfil."""
        return TESTS[self.op](self)

    @cached_property
    def shown(self) -> JsonValue:
        """The value as an explanation shows it."""
        if self.value is None or isinstance(self.value, tuple):
            return shown_values(self.value)
        return shown_scalar(self.value)

    def folded(self, text: str) -> str:
        """Return a text as it is compared."""
        return text.casefold() if self.ignore_case else text

    def fits(self, values: Values) -> bool:
        """Say whether one case fits. None: the attribute is absent; (): it has no value."""
        if self.op == "absent":
            return values is None
        if values is None:
            return False
        if self.op == "exists":
            return True
        if self.op == "empty":
            return all(item == "" for item in values)
        return any(map(self.test, values))

    def holds(self, cases: Collection[Values]) -> bool:
        """Say whether enough of the cases fit; where there is no case, nothing holds."""
        if self.quantifier == "all":
            return bool(cases) and all(map(self.fits, cases))
        return any(map(self.fits, cases))


class All(Part):
    """Every part must hold."""

    parts: tuple[Condition, ...] = Field(
        alias="all", min_length=1, description="Conditions that must all hold."
    )


class Any(Part):
    """At least one part must hold."""

    parts: tuple[Condition, ...] = Field(
        alias="any", min_length=1, description="Conditions of which one must hold."
    )


class Nothing(Part):
    """No part may hold."""

    parts: tuple[Condition, ...] = Field(
        alias="none", min_length=1, description="Conditions of which none may hold."
    )


def _branch(raw: object) -> str:
    if isinstance(raw, dict):
        for name in ("all", "any", "none"):
            if name in raw:
                return BRANCH + name
    return BRANCH + "comparison"


Condition: TypeAlias = Annotated[
    Annotated[Comparison, Tag("#comparison")]
    | Annotated[All, Tag("#all")]
    | Annotated[Any, Tag("#any")]
    | Annotated[Nothing, Tag("#none")],
    Discriminator(_branch),
]

for _group in (All, Any, Nothing):
    _group.model_rebuild()  # they hold conditions, which hold them


def comparisons_of(condition: Condition | None) -> Iterator[Comparison]:
    """Yield every comparison of a tree."""
    if isinstance(condition, Comparison):
        yield condition
    elif condition is not None:
        for part in condition.parts:
            yield from comparisons_of(part)


def number_of(value: Scalar) -> float | None:
    """Return a finite number, or None: only what is written as one in full counts."""
    if isinstance(value, str) and (len(value) > LONGEST_NUMBER or not NUMBER.fullmatch(value)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if abs(number) < float("inf") else None


def shown_values(values: Values) -> JsonValue:
    """Return values as an explanation shows them, bounded in count and length; None: absent."""
    if values is None:
        return None
    shown = [shown_scalar(item) for item in values[:MOST_SHOWN]]
    more = len(values) - MOST_SHOWN
    return [*shown, f"... {more} more"] if more > 0 else shown


def shown_scalar(value: Scalar) -> JsonValue:
    """Return one value as an explanation shows it; JSON has no infinity and no NaN."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value[:LONGEST_SHOWN] if isinstance(value, str) else value


def _check_shape(comparison: Comparison) -> None:
    """Refuse a value that does not go with its operator."""
    op, count = comparison.op, len(comparison.values)
    if (op in WITHOUT_VALUE) != (comparison.value is None):
        raise ValueError(f"{op} {'takes no value' if op in WITHOUT_VALUE else 'needs a value'}")
    if op == "in" and not (isinstance(comparison.value, tuple) and count):
        raise ValueError("in needs a list of values")
    if op == "between" and count != BETWEEN_VALUES:
        raise ValueError("between needs a list of two numbers")
    if op not in {"in", "between"} and isinstance(comparison.value, tuple):
        raise ValueError(f"{op} takes one value, not a list")
    if op in WITH_NUMBER and any(isinstance(item, str) for item in comparison.values):
        raise ValueError(f"{op} compares numbers")
    if any(isinstance(item, int) and number_of(item) is None for item in comparison.values):
        raise ValueError("the number is too large")
    if op in {"matches", "contains"} and comparison.value == "":
        raise ValueError(f"{op} needs a text that is not empty")


# ---------------------------------------------------------------- tests of one value


def _equality(comparison: Comparison) -> Test:
    """Compare as numbers if either side is one, so that the identifiers 007 and 7 stay two."""
    texts = {comparison.folded(str(item)) for item in comparison.values}
    numerals = {number_of(item) for item in comparison.values} - {None}
    numbers = {number_of(item) for item in comparison.values if not isinstance(item, str)}

    folded = str.casefold if comparison.ignore_case else str

    def test(item: Scalar) -> bool:
        if folded(str(item)) in texts:
            return True
        return number_of(item) in (numbers if isinstance(item, str) else numerals)

    return test


def _pattern(comparison: Comparison) -> Test:
    """Find a pattern, in time linear in the text. Bytes, so that no text can fail to encode."""
    pattern = str(comparison.value)
    if len(pattern) > LONGEST_PATTERN:
        raise ValueError(f"the regular expression is longer than {LONGEST_PATTERN} characters")
    options = re2.Options()
    options.max_mem = REGEX_MEMORY
    options.log_errors = False
    options.case_sensitive = not comparison.ignore_case
    try:
        regex = re2.compile(pattern.encode(), options)
    except re2.error as error:
        reason = error.args[0].decode(errors="replace") if error.args else "refused"
        raise ValueError(f"not a linear-time regular expression: {reason}") from error

    def test(item: Scalar) -> bool:
        return regex.search(str(item).encode("utf-8", "replace")) is not None

    return test


def _part_of(comparison: Comparison) -> Test:
    wanted = comparison.folded(str(comparison.value))
    if comparison.ignore_case:
        return lambda item: wanted in str(item).casefold()
    return lambda item: wanted in str(item)


def _order(holds: Callable[[float, float], bool]) -> Callable[[Comparison], Test]:
    def compiled(comparison: Comparison) -> Test:
        wanted = float(comparison.values[0])

        def test(item: Scalar) -> bool:
            number = number_of(item)
            return number is not None and holds(number, wanted)

        return test

    return compiled


def _range(comparison: Comparison) -> Test:
    low, high = (float(item) for item in comparison.values)

    def test(item: Scalar) -> bool:
        number = number_of(item)
        return number is not None and low <= number <= high

    return test


def _never_asked(_: Comparison) -> Test:
    return lambda _: False


TESTS: Final[Mapping[str, Callable[[Comparison], Test]]] = {
    "equals": _equality,
    "in": _equality,
    "matches": _pattern,
    "contains": _part_of,
    "<": _order(lambda left, right: left < right),
    "<=": _order(lambda left, right: left <= right),
    ">": _order(lambda left, right: left > right),
    ">=": _order(lambda left, right: left >= right),
    "between": _range,
    "exists": _never_asked,
    "absent": _never_asked,
    "empty": _never_asked,
}
