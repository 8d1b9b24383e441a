"""From evidence to the verdict: the whole table."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.completeness import (
    MOST_SHOWN,
    Claim,
    Evidence,
    ExpectedSeries,
    Judgement,
    Standing,
    Verdict,
    judge,
)
from node.slice_positions import Gap

COMPLETE, PROBABLY, MISSING = Verdict.COMPLETE, Verdict.PROBABLY, Verdict.KNOWN_MISSING
RECEIVED = {"a": frozenset({"a1", "a2", "a3"}), "b": frozenset({"b1"})}
GAP = Gap(series_instance_uid="a", slices=1, possibly=False)
WEAK = Gap(series_instance_uid="a", slices=1, possibly=True)


def archive(number: int | None, **series: int) -> Claim:
    return Claim(
        source="c-find",
        standing=Standing.COUNTED,
        instances=number,
        series={uid: ExpectedSeries(instances=count) for uid, count in series.items()},
    )


def step(*names: str, standing: Standing = Standing.COUNTED) -> Claim:
    """Return the claim of a procedure step; the first letter of a name is its series."""
    series: dict[str, set[str]] = {}
    for name in names:
        series.setdefault(name[0], set()).add(name)
    return Claim(
        source="mpps",
        standing=standing,
        series={
            uid: ExpectedSeries(instances=len(named), sop_instance_uids=frozenset(named))
            for uid, named in series.items()
        },
    )


UNKNOWN = Claim(source="c-find", standing=Standing.NOT_KNOWN, why="it does not answer")
ALL = ("a1", "a2", "a3", "b1")


def judged(
    *claims: Claim, gaps: tuple[Gap, ...] = (), waited_for: tuple[str, ...] = ()
) -> Judgement:
    return judge(Evidence(received=RECEIVED, claims=claims, gaps=gaps, waited_for=waited_for))


@pytest.mark.parametrize(
    ("claims", "verdict"),
    [
        ((), PROBABLY),
        ((archive(4),), COMPLETE),
        ((archive(5),), MISSING),
        ((archive(3),), PROBABLY),  # it lags behind
        ((archive(None),), PROBABLY),
        ((archive(4, a=3, b=1),), COMPLETE),
        ((archive(4, a=4),), MISSING),
        ((archive(None, a=3, b=1),), COMPLETE),
        ((archive(4, a=2, b=2),), MISSING),  # as many, but not these
        ((archive(5, a=3, b=1, c=1),), MISSING),
        ((UNKNOWN,), PROBABLY),
        ((step(*ALL),), COMPLETE),
        ((step(*ALL, "c1"),), MISSING),
        ((step("a1", "a2", "a9", "b1"),), MISSING),  # as many, but another one
        ((step("a1", "a2", "a3"),), PROBABLY),  # more came than it made
        ((step(*ALL, "c1", standing=Standing.IN_PROGRESS),), PROBABLY),
        ((step(*ALL, "c1", standing=Standing.DISCONTINUED),), PROBABLY),
        ((step(),), PROBABLY),
        ((UNKNOWN, step(*ALL)), COMPLETE),
        ((archive(5), step(*ALL)), MISSING),
        ((archive(3), step(*ALL)), COMPLETE),
        ((archive(4), step(*ALL, "c1")), MISSING),
    ],
)
def test_the_verdict_follows_from_what_the_sources_say(
    claims: tuple[Claim, ...], verdict: Verdict
) -> None:
    assert judged(*claims).verdict is verdict


@pytest.mark.parametrize(("claims", "weak"), [((), PROBABLY), ((archive(4),), COMPLETE)])
def test_gaps_and_series_that_rules_wait_for_make_it_known_missing(
    claims: tuple[Claim, ...], weak: Verdict
) -> None:
    assert judged(*claims, gaps=(GAP,)).verdict is MISSING
    assert judged(*claims, waited_for=("stroke",)).verdict is MISSING
    assert judged(*claims, gaps=(WEAK,)).verdict is weak
    assert judged(*claims, gaps=(WEAK,)).possibly_missing == (WEAK.shown(),)


def test_what_is_missing_is_named_by_source_and_series() -> None:
    found = judged(archive(7, a=5, b=1), step(*ALL, "b2")).missing
    assert found == (
        {"by": "c-find", "series": "a", "expected": 5, "received": 3, "instances": 2},
        {"by": "mpps", "series": "b", "expected": 2, "received": 1, "instances": 1},
    )
    assert judged(archive(6)).missing == (
        {"by": "c-find", "expected": 6, "received": 4, "instances": 2},
    )
    assert judged(waited_for=("stroke",)).missing == (
        {"by": "rule", "rule": "stroke", "lacks": "its series"},
    )


def test_what_each_source_said_is_shown_apart() -> None:
    shown = judged(UNKNOWN, step(*ALL)).shown()
    assert shown == {
        "verdict": "complete",
        "sources": [
            {"source": "c-find", "standing": "not known", "why": "it does not answer"},
            {"source": "mpps", "standing": "counted", "expected": 4, "received": 4},
        ],
    }


def test_a_long_list_is_shown_by_its_beginning_and_its_length() -> None:
    series = {f"s{number:03d}": 1 for number in range(MOST_SHOWN + 5)}
    shown: Any = json.loads(json.dumps(judged(archive(None, **series)).shown()))
    assert len(shown["missing"]) == MOST_SHOWN
    assert shown["missing_in_all"] == MOST_SHOWN + 5


@given(
    received=st.dictionaries(
        st.sampled_from("abc"), st.frozensets(st.integers(0, 4).map(str), min_size=1)
    ),
    expected=st.dictionaries(
        st.sampled_from("abc"), st.frozensets(st.integers(0, 4).map(str), min_size=1)
    ),
)
def test_a_list_of_instances_is_complete_only_if_it_is_what_was_received(
    received: dict[str, frozenset[str]], expected: dict[str, frozenset[str]]
) -> None:
    claim = Claim(
        source="mpps",
        standing=Standing.COUNTED,
        series={
            uid: ExpectedSeries(instances=len(named), sop_instance_uids=named)
            for uid, named in expected.items()
        },
    )
    verdict = judge(Evidence(received=received, claims=[claim])).verdict
    lost = any(named - received.get(uid, frozenset()) for uid, named in expected.items())
    same = expected == received and bool(expected)
    assert verdict is (MISSING if lost else COMPLETE if same else PROBABLY)
