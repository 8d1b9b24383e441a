"""Rules to jobs: a pure function, with its explanation. Rules are data; nothing is evaluated."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeAlias

from pydantic import JsonValue

from node.rules import (
    All,
    Any,
    Comparison,
    Condition,
    Preference,
    Rule,
    RulesError,
    RuleSet,
    parse_rules,
)

Scalar: TypeAlias = str | int | float
Values: TypeAlias = tuple[Scalar, ...] | None
Found: TypeAlias = dict[str, JsonValue]

MOST_VALUES: Final = 5  # in an explanation
LONGEST_VALUE: Final = 80

__all__ = [
    "Decision",
    "InstanceHeaders",
    "PlannedJob",
    "Rule",
    "RuleSet",
    "RulesError",
    "SeriesHeaders",
    "StudyHeaders",
    "check_references",
    "decide",
    "parse_rules",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceHeaders:
    """The values that rules ask for, of one instance. None: absent; (): there and empty."""

    sop_instance_uid: str
    values: Mapping[str, Values]


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesHeaders:
    """The instances of one series."""

    series_instance_uid: str
    instances: tuple[InstanceHeaders, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyHeaders:
    """The series of one study."""

    study_instance_uid: str
    series: tuple[SeriesHeaders, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedJob:
    """One job that a rule asks for."""

    rule: str
    engine: str
    priority: int
    series_instance_uids: tuple[str, ...]
    destinations: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What the rules say of one study, and why."""

    jobs: tuple[PlannedJob, ...]
    quiet_seconds: float | None  # the longest that a matching rule asks for
    explanation: Mapping[str, JsonValue]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scope:
    """What a condition looks at: some series, within a study, from a sender."""

    study: StudyHeaders
    series: tuple[SeriesHeaders, ...]
    calling_ae: str

    def only(self, series: SeriesHeaders) -> _Scope:
        return _Scope(study=self.study, series=(series,), calling_ae=self.calling_ae)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Verdict:
    """A condition's outcome and its line in the explanation."""

    holds: bool
    found: Found


def decide(rules: RuleSet, study: StudyHeaders, *, calling_ae: str, now: datetime) -> Decision:
    """Apply every rule to a study.

    Absent attributes never raise: a comparison with nothing does not hold. `now` is aware.
    """
    scope = _Scope(study=study, series=study.series, calling_ae=calling_ae)
    jobs: list[PlannedJob] = []
    explained: list[JsonValue] = []
    quiet: list[float] = []
    for rule in rules.rules:
        planned, found = _apply(rule, scope, now)
        jobs += planned
        explained.append(found)
        if planned and rule.quiet_seconds is not None:
            quiet.append(rule.quiet_seconds)
    return Decision(
        jobs=tuple(jobs),
        quiet_seconds=max(quiet, default=None),
        explanation={"rules": explained},
    )


def check_references(
    rules: RuleSet, engines: Collection[str], destinations: Collection[str]
) -> list[str]:
    """Return what rules name that is not there: such rules would orphan work (invariant 7)."""
    problems = []
    for rule in rules.rules:
        for kind, names, known in (
            ("engine", rule.engines, engines),
            ("destination", rule.destinations, destinations),
        ):
            there = ", ".join(sorted(known)) or "none"
            problems += [
                f"rule {rule.name!r}: there is no {kind} {name!r} (there: {there})"
                for name in names
                if name not in known
            ]
    return problems


def _apply(rule: Rule, scope: _Scope, now: datetime) -> tuple[list[PlannedJob], Found]:
    found: Found = {"rule": rule.name, "matched": False, "jobs": 0}
    if not rule.enabled:
        return [], {**found, "why": "the rule is switched off"}
    if not rule.in_window(now):
        return [], {**found, "why": "outside the rule's time windows"}
    if rule.trigger == "series":
        return _apply_to_series(rule, scope, found)
    verdict = _judge(rule.conditions, scope)
    found["conditions"] = verdict.found
    if not verdict.holds:
        return [], {**found, "why": "its conditions do not hold"}
    return _select(rule, scope, scope.study.series, found)


def _apply_to_series(rule: Rule, scope: _Scope, found: Found) -> tuple[list[PlannedJob], Found]:
    """Judge the conditions once for each series."""
    matching, judged = [], []
    for series in scope.study.series:
        verdict = _judge(rule.conditions, scope.only(series))
        judged.append({"series": series.series_instance_uid, **verdict.found})
        if verdict.holds:
            matching.append(series)
    found["conditions"] = {"by_series": list(judged)}
    if not matching:
        return [], {**found, "why": "its conditions hold for no series"}
    return _select(rule, scope, tuple(matching), found)


def _select(
    rule: Rule, scope: _Scope, candidates: Sequence[SeriesHeaders], found: Found
) -> tuple[list[PlannedJob], Found]:
    """Choose series: those that fit, ranked, with a tie-break by UID (R21)."""
    judged = [(series, _judge(rule.series.conditions, scope.only(series))) for series in candidates]
    fitting = [series for series, verdict in judged if verdict.holds]
    ranked = sorted(fitting, key=lambda series: series.series_instance_uid)
    for preference in reversed(rule.series.rank):
        ranked = _ranked(preference, ranked, scope)
    chosen = ranked if rule.series.take == "all" else ranked[:1]
    found["series"] = [
        {
            "series": series.series_instance_uid,
            "fits": verdict.holds,
            "chosen": series in chosen,
            "place": ranked.index(series) + 1 if series in ranked else None,
            "rank": [_rank_value(item, series, scope) for item in rule.series.rank],
            "conditions": verdict.found,
        }
        for series, verdict in judged
    ]
    if not chosen:
        return [], {**found, "why": "no series fits"}
    jobs = [
        PlannedJob(
            rule=rule.name,
            engine=engine,
            priority=rule.priority_number,
            series_instance_uids=(series.series_instance_uid,),
            destinations=rule.destinations,
        )
        for series in chosen
        for engine in rule.engines
    ]
    return jobs, {**found, "matched": True, "jobs": len(jobs)}


def _ranked(
    preference: Preference, series: Sequence[SeriesHeaders], scope: _Scope
) -> list[SeriesHeaders]:
    """Sort by one preference; a stable sort keeps the order of those before. Absent comes last."""
    keyed = [(_rank_value(preference, item, scope), item) for item in series]
    present = [pair for pair in keyed if pair[0] is not None]
    absent = [item for value, item in keyed if value is None]
    descending = preference.prefer is not None or preference.order == "descending"
    present.sort(key=lambda pair: _sort_key(pair[0]), reverse=descending)
    return [item for _, item in present] + absent


def _sort_key(value: JsonValue) -> tuple[int, float, str]:
    if isinstance(value, int | float):
        return (0, float(value), "")
    return (1, 0.0, str(value))


def _rank_value(preference: Preference, series: SeriesHeaders, scope: _Scope) -> JsonValue:
    if preference.prefer is not None:
        return int(_judge(preference.prefer, scope.only(series)).holds)
    values = _values(preference.field, scope.only(series))
    present = [item for group in values if group for item in group]
    if not present:
        return None
    return _number(present[0]) if _number(present[0]) is not None else present[0]


# ---------------------------------------------------------------- conditions


def _judge(condition: Condition | None, scope: _Scope) -> _Verdict:
    if condition is None:
        return _Verdict(holds=True, found={"verdict": True})
    if isinstance(condition, Comparison):
        return _compare(condition, scope)
    parts = [_judge(part, scope) for part in condition.parts]
    if isinstance(condition, All):
        name, holds = "all", all(part.holds for part in parts)
    elif isinstance(condition, Any):
        name, holds = "any", any(part.holds for part in parts)
    else:
        name, holds = "none", not any(part.holds for part in parts)
    return _Verdict(holds=holds, found={name: [part.found for part in parts], "verdict": holds})


def _compare(condition: Comparison, scope: _Scope) -> _Verdict:
    if condition.level == "study":
        groups = [_study_values(condition.field, scope)]
    elif condition.level == "series":
        groups = [_merged(_values(condition.field, scope.only(series))) for series in scope.series]
    else:
        groups = _values(condition.field, scope)
    verdicts = [_holds(condition, values) for values in groups]
    holds = (all(verdicts) and bool(verdicts)) if condition.quantifier == "all" else any(verdicts)
    return _Verdict(
        holds=holds,
        found={
            "field": condition.field,
            "op": condition.op,
            "value": condition.shown_value(),
            "found": _shown(groups),
            "verdict": holds,
        },
    )


def _study_values(field: str, scope: _Scope) -> Values:
    """Return what the whole study says, whatever series the scope is about."""
    whole = _Scope(study=scope.study, series=scope.study.series, calling_ae=scope.calling_ae)
    return _merged(_values(field, whole))


def _values(field: str, scope: _Scope) -> list[Values]:
    """Return the values of a field, one group an instance; of a pseudo-field, one group."""
    pseudo = PSEUDO_FIELDS.get(field)
    if pseudo is not None:
        return [pseudo(scope)]
    return [instance.values.get(field) for series in scope.series for instance in series.instances]


def _calling_ae(scope: _Scope) -> Values:
    return (scope.calling_ae,) if scope.calling_ae else None


def _series_instances(scope: _Scope) -> Values:
    return (sum(len(series.instances) for series in scope.series),)


def _study_series(scope: _Scope) -> Values:
    return (len(scope.study.series),)


def _study_instances(scope: _Scope) -> Values:
    return (sum(len(series.instances) for series in scope.study.series),)


PSEUDO_FIELDS: Final[Mapping[str, Callable[[_Scope], Values]]] = {
    "@calling_ae": _calling_ae,
    "@series_instances": _series_instances,
    "@study_series": _study_series,
    "@study_instances": _study_instances,
}


def _merged(groups: Iterable[Values]) -> Values:
    """Join groups, each value once: None if the attribute is absent everywhere."""
    present = [group for group in groups if group is not None]
    if not present:
        return None
    return tuple(dict.fromkeys(item for group in present for item in group))


def _holds(condition: Comparison, values: Values) -> bool:
    if condition.op == "absent":
        return values is None
    if condition.op == "exists":
        return values is not None
    if condition.op == "empty":
        return values is not None and all(item == "" for item in values)
    return values is not None and any(_matches(condition, item) for item in values)


def _matches(condition: Comparison, item: Scalar) -> bool:
    test = OPERATIONS[condition.op]
    return test(condition, item)


def _equals(condition: Comparison, item: Scalar) -> bool:
    return any(_same(condition, item, wanted) for wanted in condition.values)


def _same(condition: Comparison, item: Scalar, wanted: Scalar) -> bool:
    left, right = _number(item), _number(wanted)
    if left is not None and right is not None:
        return left == right
    return condition.folded(str(item)) == condition.folded(str(wanted))


def _regex(condition: Comparison, item: Scalar) -> bool:
    return condition.searches(str(item))


def _contains(condition: Comparison, item: Scalar) -> bool:
    text = condition.folded(str(item))
    return any(condition.folded(str(wanted)) in text for wanted in condition.values)


def _ordered(test: Callable[[float, float], bool]) -> Callable[[Comparison, Scalar], bool]:
    def holds(condition: Comparison, item: Scalar) -> bool:
        left, right = _number(item), _number(condition.values[0])
        return left is not None and right is not None and test(left, right)

    return holds


def _between(condition: Comparison, item: Scalar) -> bool:
    value, low, high = _number(item), _number(condition.values[0]), _number(condition.values[1])
    if value is None or low is None or high is None:
        return False
    return low <= value <= high


OPERATIONS: Final[Mapping[str, Callable[[Comparison, Scalar], bool]]] = {
    "equals": _equals,
    "in": _equals,
    "matches": _regex,
    "contains": _contains,
    "<": _ordered(lambda left, right: left < right),
    "<=": _ordered(lambda left, right: left <= right),
    ">": _ordered(lambda left, right: left > right),
    ">=": _ordered(lambda left, right: left >= right),
    "between": _between,
}


def _number(value: Scalar) -> float | None:
    """Return a finite number, or None: text that is no number is never compared as one."""
    try:
        number = float(value)
    except ValueError:
        return None
    return number if abs(number) < float("inf") else None


def _shown(groups: Sequence[Values]) -> JsonValue:
    """Return the distinct values found, bounded in count and length; None where absent."""
    merged = _merged(groups)
    if merged is None:
        return None
    shown: list[JsonValue] = [
        item[:LONGEST_VALUE] if isinstance(item, str) else item for item in merged[:MOST_VALUES]
    ]
    if len(merged) > MOST_VALUES:
        shown.append(f"... {len(merged) - MOST_VALUES} more")
    return shown
