"""Rules to jobs: a pure function, with its explanation. Rules are data; nothing is evaluated."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeAlias

from pydantic import JsonValue

from node.completeness import Verdict
from node.conditions import (
    CALLING_AE,
    SERIES_INSTANCES,
    STUDY_INSTANCES,
    STUDY_SERIES,
    All,
    Any,
    Comparison,
    Condition,
    Level,
    Scalar,
    Values,
    number_of,
    shown_scalar,
    shown_values,
)
from node.rules import Preference, Rule, RulesError, RuleSet, parse_rules

Found: TypeAlias = dict[str, JsonValue]

NO_SERIES_FITS: Final = "no series fits"

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
    waited_for: tuple[str, ...]  # rules that require a complete study, and whose series is absent
    explanation: Mapping[str, JsonValue]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cases:
    """What a comparison looks at, each distinct case once, and how that is shown."""

    values: tuple[Values, ...]
    shown: JsonValue


class _Scope:
    """What conditions look at: a whole study, or one series of it. Gathers each case once."""

    def __init__(self, series: Sequence[SeriesHeaders], whole: _Scope | None, ae: str) -> None:
        self.series = series
        self._whole = whole or self
        self._ae = ae
        self._cases: dict[tuple[str, Level], _Cases] = {}
        self.parts = [_Scope((item,), self, ae) for item in series] if whole is None else [self]

    @property
    def uid(self) -> str:
        """The Series Instance UID of a scope of one series."""
        return self.series[0].series_instance_uid

    def cases(self, field: str, level: Level) -> _Cases:
        """Return the cases of a field at a level; those of the study, whatever the scope."""
        if level == "study" and self._whole is not self:
            return self._whole.cases(field, level)
        found = self._cases.get((field, level))
        if found is None:
            found = self._cases[(field, level)] = self._gathered(field, level)
        return found

    def _gathered(self, field: str, level: Level) -> _Cases:
        if level == "study":
            cases = [_merged(self._values(field))]
        elif level == "series" or field in PSEUDO_FIELDS:
            cases = [_merged(part._values(field)) for part in self.parts]
        else:
            cases = self._values(field)
        return _Cases(values=tuple(dict.fromkeys(cases)), shown=shown_values(_merged(cases)))

    def _values(self, field: str) -> list[Values]:
        """Return the values of a field, one group an instance; of a pseudo-field, one group."""
        pseudo = PSEUDO_FIELDS.get(field)
        if pseudo is not None:
            return [pseudo(self)]
        return [item.values.get(field) for series in self.series for item in series.instances]

    def calling_ae(self) -> Values:
        """Return who sent the study; None for ways in without AE titles."""
        return (self._ae,) if self._ae else None

    def instances(self) -> Values:
        """Return the number of instances in this scope."""
        return (sum(len(series.instances) for series in self.series),)

    def study_series(self) -> Values:
        """Return the number of series of the study."""
        return (len(self._whole.series),)

    def study_instances(self) -> Values:
        """Return the number of instances of the study."""
        return self._whole.instances()


PSEUDO_FIELDS: Final[Mapping[str, Callable[[_Scope], Values]]] = {
    CALLING_AE: _Scope.calling_ae,
    SERIES_INSTANCES: _Scope.instances,
    STUDY_SERIES: _Scope.study_series,
    STUDY_INSTANCES: _Scope.study_instances,
}


def decide(
    rules: RuleSet,
    study: StudyHeaders,
    *,
    calling_ae: str,
    now: datetime,
    verdict: str = "",
) -> Decision:
    """Apply every rule to a study; the order of its series and instances does not matter.

    Absent attributes never raise: a comparison with nothing does not hold. `verdict` is that of
    the study's completeness: a rule may refuse a study that is known to be incomplete.

    Raises:
        ValueError: `now` has no time zone, so that no time window could be judged.
    """
    if now.tzinfo is None:
        raise ValueError("the moment of a decision needs a time zone")
    ordered = sorted(study.series, key=lambda series: series.series_instance_uid)
    scope = _Scope(ordered, None, calling_ae)
    jobs: list[PlannedJob] = []
    explained: list[JsonValue] = []
    quiet: list[float] = []
    waited_for: list[str] = []
    for rule in rules.rules:
        planned, found = _apply(rule, scope, now)
        if planned and rule.quiet_seconds is not None:
            quiet.append(rule.quiet_seconds)
        if rule.require_complete and found.get("why") == NO_SERIES_FITS:
            waited_for.append(rule.name)
        if planned and rule.require_complete and verdict == Verdict.KNOWN_MISSING:
            planned, found = _withheld(found, verdict)
        jobs += planned
        explained.append(found)
    return Decision(
        jobs=tuple(jobs),
        quiet_seconds=max(quiet, default=None),
        waited_for=tuple(waited_for),
        explanation={"rules": explained},
    )


def check_references(
    rules: RuleSet, engines: Collection[str], destinations: Collection[str]
) -> list[str]:
    """Return what rules name that is not there: such rules would orphan work (invariant 7)."""
    problems = []
    for index, rule in enumerate(rules.rules):
        if not rule.destinations:
            problems.append(
                f"rules[{index}].destinations: rule {rule.name!r} sends its results nowhere"
            )
        for key, names, known in (
            ("engines", rule.engines, engines),
            ("destinations", rule.destinations, destinations),
        ):
            there = ", ".join(sorted(known)) or "none"
            problems += [
                f"rules[{index}].{key}: rule {rule.name!r}: there is no {key[:-1]} {name!r} "
                f"(there: {there})"
                for name in names
                if name not in known
            ]
    return problems


def _apply(rule: Rule, scope: _Scope, now: datetime) -> tuple[list[PlannedJob], Found]:
    found: Found = {"rule": rule.name, "matched": False, "jobs": 0}
    if not rule.enabled:
        return [], {**found, "why": "the rule is switched off"}
    if rule.windows:
        inside = rule.in_window(now)
        found["time_window"] = {
            "local_time": f"{now.astimezone(rule.zone):%a %H:%M:%S}",
            "timezone": rule.timezone,
            "inside": inside,
        }
        if not inside:
            return [], {**found, "why": "outside the rule's time windows"}
    if rule.trigger == "series":
        return _apply_to_series(rule, scope, found)
    verdict = _judge(rule.conditions, scope)
    found["conditions"] = verdict
    if not _holds(verdict):
        return [], {**found, "why": "its conditions do not hold"}
    return _select(rule, scope.parts, found)


def _apply_to_series(rule: Rule, scope: _Scope, found: Found) -> tuple[list[PlannedJob], Found]:
    """Judge the conditions once for each series."""
    matching, judged = [], []
    for part in scope.parts:
        verdict = _judge(rule.conditions, part)
        judged.append({"series": part.uid, **verdict})
        if _holds(verdict):
            matching.append(part)
    found["conditions"] = {"by_series": list(judged)}
    if not matching:
        return [], {**found, "why": "its conditions hold for no series"}
    return _select(rule, matching, found)


def _withheld(found: Found, verdict: str) -> tuple[list[PlannedJob], Found]:
    """Take the jobs of a rule back, and say that it is for the study's completeness."""
    why = f"it requires a complete study, and of this one instances are {verdict}"
    withheld: Found = {"matched": False, "jobs": 0, "why": why, "completeness": verdict}
    return [], {**found, **withheld}


def _select(
    rule: Rule, candidates: Sequence[_Scope], found: Found
) -> tuple[list[PlannedJob], Found]:
    """Choose series: those that fit, ranked, with a tie-break by UID (R21)."""
    judged = [(part, _judge(rule.series.conditions, part)) for part in candidates]
    ranked = [
        part for part, verdict in judged if _holds(verdict)
    ]  # by UID, as the scope's parts are
    for preference in reversed(rule.series.rank):
        ranked = _ranked(preference, ranked)
    chosen = ranked if rule.series.take == "all" else ranked[:1]
    places = {part.uid: place for place, part in enumerate(ranked, start=1)}
    found["series"] = [
        {
            "series": part.uid,
            "fits": _holds(verdict),
            "chosen": 0 < places.get(part.uid, 0) <= len(chosen),
            "place": places.get(part.uid),
            "rank": [_shown_rank(item, part) for item in rule.series.rank],
            "conditions": verdict,
        }
        for part, verdict in judged
    ]
    if not chosen:
        return [], {**found, "why": NO_SERIES_FITS}
    jobs = [_job(rule, engine, part.uid) for part in chosen for engine in rule.engines]
    return jobs, {**found, "matched": True, "jobs": len(jobs)}


def _job(rule: Rule, engine: str, series_instance_uid: str) -> PlannedJob:
    return PlannedJob(
        rule=rule.name,
        engine=engine,
        priority=rule.priority_number,
        series_instance_uids=(series_instance_uid,),
        destinations=rule.destinations,
    )


# ---------------------------------------------------------------- ranking


def _ranked(preference: Preference, parts: Sequence[_Scope]) -> list[_Scope]:
    """Sort by one preference; a stable sort keeps the order of those before. Absent comes last."""
    keyed = [(_rank_value(preference, part), part) for part in parts]
    present = [(_sort_key(value), part) for value, part in keyed if value is not None]
    absent = [part for value, part in keyed if value is None]
    present.sort(key=lambda pair: pair[0], reverse=_largest_first(preference))
    return [part for _, part in present] + absent


def _rank_value(preference: Preference, part: _Scope) -> Scalar | None:
    """Return what a series is sorted by: of its values, the one that comes first in the order."""
    if preference.prefer is not None:
        return int(_holds(_judge(preference.prefer, part)))
    values = [item for case in part.cases(preference.field, "series").values for item in case or ()]
    if not values:
        return None
    best = (max if _largest_first(preference) else min)(values, key=_sort_key)
    number = number_of(best)
    return best if number is None else number


def _shown_rank(preference: Preference, part: _Scope) -> JsonValue:
    value = _rank_value(preference, part)
    return None if value is None else shown_scalar(value)


def _largest_first(preference: Preference) -> bool:
    return preference.prefer is not None or preference.order == "descending"


def _sort_key(value: Scalar) -> tuple[bool, float, str]:
    """Order numbers by size, then texts by their characters."""
    number = number_of(value)
    return (False, number, "") if number is not None else (True, 0.0, str(value))


# ---------------------------------------------------------------- conditions


def _judge(condition: Condition | None, scope: _Scope) -> Found:
    """Return a condition's line in the explanation; its `verdict` says whether it holds."""
    if condition is None:
        return {"verdict": True}
    if isinstance(condition, Comparison):
        cases = scope.cases(condition.field, condition.level)
        return {
            "field": condition.field,
            "op": condition.op,
            "value": condition.shown,
            "found": cases.shown,
            "verdict": condition.holds(cases.values),
        }
    parts = [_judge(part, scope) for part in condition.parts]
    if isinstance(condition, All):
        return {"all": list(parts), "verdict": all(map(_holds, parts))}
    if isinstance(condition, Any):
        return {"any": list(parts), "verdict": any(map(_holds, parts))}
    return {"none": list(parts), "verdict": not any(map(_holds, parts))}


def _holds(found: Found) -> bool:
    return found["verdict"] is True


def _merged(groups: Iterable[Values]) -> Values:
    """Join groups, each value once: None if the attribute is absent everywhere."""
    present = [group for group in groups if group is not None]
    if not present:
        return None
    return tuple(dict.fromkeys(item for group in present for item in group))
