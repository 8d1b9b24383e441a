"""The routing explanation as a nested list for people: each condition, its value, its verdict.

`node.routing` writes the explanation, and older revisions lie in the database in the form that they
had then: whatever is not known here is shown as it is, and nothing is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

Facts: TypeAlias = Mapping[str, object]

_GROUPS: Final[Mapping[str, str]] = {
    "all": "all of these hold",
    "any": "at least one of these holds",
    "none": "none of these holds",
    "by_series": "series by series",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of the explanation. `verdict` is None where nothing was decided."""

    text: str
    found: str = ""
    verdict: bool | None = None
    children: tuple[Line, ...] = ()


def explain(explanation: Facts) -> tuple[Line, ...]:
    """Turn an explanation into lines."""
    rest = {name: value for name, value in explanation.items() if name != "rules"}
    rules = explanation.get("rules")
    lines = [_rule(item) for item in _list(rules)]
    unreadable = rest.pop("unreadable_instances", None)
    if unreadable:
        lines.append(_named("instances whose header could not be read", unreadable))
    return (*lines, *_rest(rest))


def _rule(value: object) -> Line:
    """Say of one rule what came of it, and why."""
    if not isinstance(value, Mapping):
        return _plain("", value)
    rest = dict(value)
    name, matched, why = rest.pop("rule", ""), rest.pop("matched", None), rest.pop("why", "")
    jobs = rest.pop("jobs", 0)
    conditions, series = rest.pop("conditions", None), rest.pop("series", None)
    outcome = f"jobs made: {jobs}" if matched else _text(why)
    children = [
        *([_condition("conditions", conditions)] if conditions is not None else []),
        *(_series(item) for item in _list(series)),
        *_rest(rest),
    ]
    return Line(
        text=f"rule {_text(name)}: {outcome}" if outcome else f"rule {_text(name)}",
        verdict=matched if isinstance(matched, bool) else None,
        children=tuple(children),
    )


def _series(value: object) -> Line:
    """Say of one series whether it was chosen, and why."""
    if not isinstance(value, Mapping):
        return _plain("series", value)
    rest = dict(value)
    uid, fits, chosen = rest.pop("series", ""), rest.pop("fits", None), rest.pop("chosen", None)
    place, rank = rest.pop("place", None), rest.pop("rank", None)
    conditions = rest.pop("conditions", None)
    words = "chosen" if chosen else "fits, another was better" if fits else "does not fit"
    if place is not None:
        words += f", place {_text(place)}"
    return Line(
        text=f"series {_text(uid)}: {words}",
        found=f"ranked by {_text(rank)}" if rank else "",
        verdict=chosen if isinstance(chosen, bool) else None,
        children=(*_asked(conditions), *_rest(rest)),
    )


def _asked(conditions: object) -> tuple[Line, ...]:
    """Return the lines of a series' conditions; none, where nothing was asked."""
    if not isinstance(conditions, Mapping) or set(conditions) <= {"verdict"}:
        return ()
    return (_condition("", conditions),)


def _condition(title: str, value: object) -> Line:
    """Say of a condition what it asks and whether it holds."""
    if not isinstance(value, Mapping):
        return _plain(title, value)
    rest = dict(value)
    verdict = rest.pop("verdict", None)
    decided = verdict if isinstance(verdict, bool) else None
    series = _text(rest.pop("series", None))
    prefix = f"series {series}" if series else title
    if "field" in rest:
        return _comparison(f"{prefix}: " if prefix else "", rest, decided)
    groups = {name: rest.pop(name) for name in _GROUPS if name in rest}
    words = [*([prefix] if prefix else []), *(_GROUPS[name] for name in groups)]
    if not groups and not rest:
        words.append("nothing is asked")
    children = tuple(_condition("", part) for group in groups.values() for part in _list(group))
    return Line(text=": ".join(words), verdict=decided, children=(*children, *_rest(rest)))


def _comparison(prefix: str, facts: Facts, verdict: bool | None) -> Line:
    rest = dict(facts)
    field, op = _text(rest.pop("field", "")), _text(rest.pop("op", ""))
    wanted, found = rest.pop("value", None), rest.pop("found", None)
    sign = "=" if op == "equals" else op
    words = [field, sign] if wanted is None else [field, sign, _text(wanted)]
    return Line(
        text=prefix + " ".join(words),
        found="absent" if found is None else _text(found) or "empty",
        verdict=verdict,
        children=_rest(rest),
    )


def _rest(facts: Facts) -> tuple[Line, ...]:
    return tuple(_named(name, value) for name, value in facts.items())


def _named(name: str, value: object) -> Line:
    name = name.replace("_", " ")
    if isinstance(value, Mapping):
        return Line(text=name, children=_rest(value))
    if isinstance(value, list | tuple) and any(isinstance(item, Mapping) for item in value):
        return Line(text=name, children=tuple(_named("", item) for item in value))
    return _plain(name, value)


def _plain(name: str, value: object) -> Line:
    return Line(text=": ".join(part for part in (name, _text(value)) if part))


def _list(value: object) -> Sequence[object]:
    return value if isinstance(value, list | tuple) else () if value is None else (value,)


def _text(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(_text(item) for item in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_text(item)}" for name, item in value.items())
    return "" if value is None else str(value)
