"""From rules and headers to jobs: what is chosen, and the explanation that goes with it."""

from __future__ import annotations

import itertools
import json

import pytest

from node.conditions import Scalar
from node.routing import decide, parse_rules
from tests.node.study_headers import (
    CT,
    HEAD,
    NOW,
    SR,
    Attributes,
    chosen,
    explained,
    holds,
    routed,
    series,
    study,
)

# ---------------------------------------------------------------- levels and quantifiers


@pytest.mark.parametrize(
    ("level", "quantifier", "expected"),
    [
        ("instance", "any", True),
        ("instance", "all", False),
        ("series", "any", True),
        ("series", "all", True),
        ("study", "any", True),
        ("study", "all", True),
    ],
)
def test_level_says_what_a_case_is(level: str, quantifier: str, expected: bool) -> None:
    """Each series has one instance with the word and one without it."""
    members = [
        series(uid, {"ImageType": ("ORIGINAL", "LOCALIZER")}, {"ImageType": ("ORIGINAL",)})
        for uid in ("1", "2")
    ]
    condition = (
        "{field = 'ImageType', op = 'equals', value = 'LOCALIZER', "
        f"level = '{level}', quantifier = '{quantifier}'}}"
    )
    assert holds(condition, *members) is expected


def test_every_series_must_fit_where_that_is_asked() -> None:
    every = "{field = 'Modality', op = 'equals', value = 'CT', quantifier = 'all'}"
    assert holds(every, series("1", CT), series("2", CT))
    assert not holds(every, series("1", CT), series("2", SR))
    assert not holds(every)


def test_a_series_lacks_an_attribute_only_if_all_its_instances_do() -> None:
    mixed = series("1", {"ContrastBolusAgent": None}, {"ContrastBolusAgent": "X"})
    condition = "{field = 'ContrastBolusAgent', op = 'absent'}"
    assert not holds(condition, mixed)
    assert holds(condition.replace("'absent'", "'absent', level = 'instance'"), mixed)
    assert holds(condition, mixed, series("2", {"ContrastBolusAgent": None}))


def test_an_attribute_that_was_not_read_is_absent() -> None:
    assert holds("{field = 'Modality', op = 'absent'}", series("1", {}))


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("{field = '@calling_ae', op = 'equals', value = 'CT1'}", True),
        ("{field = '@calling_ae', op = 'in', value = ['MR1']}", False),
        ("{field = '@study_series', op = 'equals', value = 2}", True),
        ("{field = '@study_instances', op = 'equals', value = 4}", True),
        ("{field = '@series_instances', op = 'equals', value = 3}", True),
        ("{field = '@series_instances', op = 'equals', value = 4}", False),
        ("{field = '@series_instances', op = 'equals', value = 4, level = 'instance'}", False),
        ("{field = '@series_instances', op = '>', value = 1, quantifier = 'all'}", False),
    ],
)
def test_the_study_and_its_sender_can_be_asked_about(condition: str, expected: bool) -> None:
    assert holds(condition, series("1", CT, CT, CT), series("2", CT)) is expected


def test_a_study_without_sender_has_no_calling_ae() -> None:
    assert holds("{field = '@calling_ae', op = 'absent'}", series("1", CT), calling_ae="")


# ---------------------------------------------------------------- triggers


def test_a_study_rule_is_judged_once_and_a_series_rule_for_each_series() -> None:
    """The two series fit one half of the conditions each: only the study fits both."""
    members = (
        series("1", {"Modality": "CT", "BodyPartExamined": "HEAD"}),
        series("2", {"Modality": "SR", "BodyPartExamined": "CHEST"}),
    )
    both = (
        "conditions.all = [{field = 'Modality', op = 'equals', value = 'CT'}, "
        "{field = 'BodyPartExamined', op = 'equals', value = 'CHEST'}]\n"
    )
    assert chosen(routed(HEAD + both, *members)) == ["1", "2"]
    by_series = routed(HEAD + "trigger = 'series'\n" + both, *members)
    assert chosen(by_series) == []
    assert explained(by_series)["why"] == "its conditions hold for no series"
    assert [item["verdict"] for item in explained(by_series)["conditions"]["by_series"]] == [
        False,
        False,
    ]


def test_a_series_rule_gives_a_job_for_each_series_that_fits() -> None:
    rules = (
        HEAD + "trigger = 'series'\nconditions = {field = 'Modality', op = 'equals', value = 'CT'}"
    )
    assert chosen(routed(rules, series("1", CT), series("2", SR), series("3", CT))) == ["1", "3"]


def test_a_series_rule_can_still_ask_about_the_whole_study() -> None:
    rules = HEAD + (
        "trigger = 'series'\nconditions = "
        "{field = 'Modality', op = 'equals', value = 'SR', level = 'study'}"
    )
    assert chosen(routed(rules, series("1", CT), series("2", SR))) == ["1", "2"]


# ---------------------------------------------------------------- selection, ranking, jobs

SELECTION = (
    HEAD
    + """
[rules.series]
take = "TAKE"
conditions.all = [
  {field = "Modality", op = "equals", value = "CT"},
  {none = [{field = "ImageType", op = "equals", value = "LOCALIZER"}]},
]
rank = [
  {field = "SliceThickness"},
  {prefer = {field = "ConvolutionKernel", op = "equals", value = "SOFT"}},
  {field = "@series_instances", order = "descending"},
]
"""
)
FIRST = SELECTION.replace("TAKE", "first")
EVERY = SELECTION.replace("TAKE", "all")


def ct(thickness: Scalar | None, kernel: str = "HARD") -> Attributes:
    return {"Modality": "CT", "SliceThickness": thickness, "ConvolutionKernel": kernel}


def test_the_first_step_of_the_ranking_counts_most() -> None:
    members = (series("1", ct(3, "SOFT"), ct(3, "SOFT")), series("2", ct(1)), series("3", ct(2)))
    assert chosen(routed(FIRST, *members)) == ["2"]
    assert chosen(routed(EVERY, *members)) == ["2", "3", "1"]


def test_what_is_equal_in_one_step_is_decided_by_the_next() -> None:
    soft = series("2", ct(1, "SOFT"))
    assert chosen(routed(FIRST, series("1", ct(1), ct(1)), soft)) == ["2"]
    long = series("3", ct(1, "SOFT"), ct(1, "SOFT"))
    assert chosen(routed(FIRST, soft, long)) == ["3"]


def test_what_is_equal_in_every_step_is_decided_by_uid() -> None:
    members = [series(uid, ct(1)) for uid in ("1.10", "1.9", "1.2")]
    for order in itertools.permutations(members):
        assert chosen(routed(EVERY, *order)) == ["1.10", "1.2", "1.9"]


def test_a_series_without_the_value_comes_last_in_either_order() -> None:
    members = (series("1", ct(None)), series("2", ct(5)), series("3", ct(1)))
    assert chosen(routed(EVERY, *members)) == ["3", "2", "1"]
    thickest = EVERY.replace('"SliceThickness"', '"SliceThickness", order = "descending"')
    assert chosen(routed(thickest, *members)) == ["2", "3", "1"]


def test_numbers_are_ranked_by_size_and_before_text() -> None:
    values: dict[str, Scalar] = {"1": "10", "2": "9", "3": 9.5, "4": "thin"}
    members = [series(uid, ct(value)) for uid, value in values.items()]
    assert chosen(routed(EVERY, *members)) == ["2", "3", "1", "4"]


def test_a_series_is_ranked_by_its_best_value_wherever_that_stands() -> None:
    members = (series("1", ct(5), ct(1)), series("2", ct(2)))
    assert chosen(routed(EVERY, *members)) == ["1", "2"]
    assert explained(routed(EVERY, *members))["series"][0]["rank"][0] == 1


def test_series_that_do_not_fit_are_never_chosen() -> None:
    scout = series("1", {**CT, "SliceThickness": 0.1, "ImageType": ("ORIGINAL", "LOCALIZER")})
    assert chosen(routed(EVERY, scout, series("2", ct(5)), series("3", SR))) == ["2"]
    nothing = routed(FIRST, scout)
    assert nothing.jobs == ()
    assert explained(nothing)["why"] == "no series fits"


def test_three_series_and_two_engines_give_six_jobs() -> None:
    rules = EVERY.replace('["e"]', '["e", "f"]').replace(
        "destinations", 'priority = "stat"\ndestinations'
    )
    decision = routed(rules, series("1", ct(1)), series("2", ct(2)), series("3", ct(3)))
    assert [(job.series_instance_uids, job.engine) for job in decision.jobs] == [
        ((uid,), engine) for uid in "123" for engine in "ef"
    ]
    assert {(job.rule, job.priority, job.destinations) for job in decision.jobs} == {
        ("a", 300, ("d",))
    }
    assert explained(decision)["jobs"] == 6


def test_every_matching_rule_makes_its_own_jobs() -> None:
    rules = HEAD + HEAD.replace('"a"', '"b"') + HEAD.replace('"a"', '"c"') + "enabled = false"
    assert [job.rule for job in routed(rules, series("1", CT)).jobs] == ["a", "b"]


def test_the_longest_quiet_time_of_the_matching_rules_counts() -> None:
    rules = "".join(
        HEAD.replace('"a"', f'"{name}"') + text
        for name, text in {
            "a": "quiet_seconds = 60\n",
            "b": "quiet_seconds = 90.5\n",
            "c": "",
            "d": "quiet_seconds = 600\nconditions = {field = 'Modality', op = 'absent'}\n",
        }.items()
    )
    assert routed(rules, series("1", CT)).quiet_seconds == 90.5
    assert routed(HEAD, series("1", CT)).quiet_seconds is None


def test_a_study_without_series_gives_no_job_and_no_error() -> None:
    for rules in (HEAD, FIRST, HEAD + "trigger = 'series'"):
        assert routed(rules).jobs == ()


# ---------------------------------------------------------------- explanation


def line(field: str, op: str, value: object, *, found: object, verdict: bool) -> dict[str, object]:
    """Return a comparison as an explanation shows it."""
    return {"field": field, "op": op, "value": value, "found": found, "verdict": verdict}


def test_each_condition_is_explained_by_the_value_found() -> None:
    condition = (
        "{all = [{field = 'Modality', op = 'in', value = ['CT', 'MR']}, "
        "{none = [{field = 'BodyPartExamined', op = 'empty'}, "
        "{field = 'SliceThickness', op = '>', value = 5}]}]}"
    )
    found = explained(
        routed(HEAD + f"conditions = {condition}", series("1", CT, {**CT, "SliceThickness": 2.0}))
    )
    modality = line("Modality", "in", ["CT", "MR"], found=["CT"], verdict=True)
    body_part = line("BodyPartExamined", "empty", None, found=None, verdict=False)
    thickness = line("SliceThickness", ">", 5, found=[1.0, 2.0], verdict=False)
    assert found["conditions"] == {
        "all": [modality, {"none": [body_part, thickness], "verdict": True}],
        "verdict": True,
    }
    assert (found["rule"], found["matched"], found["jobs"]) == ("a", True, 1)


def test_each_series_says_why_it_was_or_was_not_chosen() -> None:
    decision = routed(FIRST, series("1", ct(2, "SOFT")), series("2", ct(1)), series("3", SR))
    lines = explained(decision)["series"]
    assert [
        (line["series"], line["fits"], line["chosen"], line["place"], line["rank"])
        for line in lines
    ] == [
        ("1", True, False, 2, [2.0, 1, 1]),
        ("2", True, True, 1, [1.0, 0, 1]),
        ("3", False, False, None, [None, 0, 1]),
    ]
    assert lines[2]["conditions"]["all"][0]["found"] == ["SR"]


def test_a_rule_that_does_not_apply_now_says_when_that_was_judged() -> None:
    rules = HEAD + "timezone = 'Asia/Tokyo'\nwindows = [{days = ['tue']}]"
    decision = routed(rules, series("1", CT))
    assert decision.jobs == ()
    assert explained(decision) == {
        "rule": "a",
        "matched": False,
        "jobs": 0,
        "time_window": {"local_time": "Mon 21:00:00", "timezone": "Asia/Tokyo", "inside": False},
        "why": "outside the rule's time windows",
    }
    inside = routed(rules.replace("'tue'", "'mon'"), series("1", CT))
    assert explained(inside)["time_window"]["inside"] is True
    assert inside.jobs


def test_a_rule_that_is_off_says_so() -> None:
    assert explained(routed(HEAD + "enabled = false", series("1", CT)))["why"] == (
        "the rule is switched off"
    )


def test_the_explanation_stays_small_whatever_the_headers_hold() -> None:
    instances: list[Attributes] = [
        {"StudyDescription": f"{number} " + "x" * 10_000} for number in range(200)
    ]
    decision = routed(
        HEAD + "conditions = {field = 'StudyDescription', op = 'exists', level = 'instance'}",
        series("1", *instances),
    )
    assert len(json.dumps(decision.explanation)) < 2000
    assert explained(decision)["conditions"]["found"][-1] == "... 195 more"


def test_numbers_that_json_has_not_are_explained_as_text() -> None:
    decision = routed(
        HEAD + "conditions = {field = 'SliceThickness', op = '>', value = 0}\n"
        "series.rank = [{field = 'SliceThickness'}]",
        series("1", ct(float("nan")), ct(float("inf")), ct(1)),
    )
    assert explained(decision)["conditions"]["found"] == ["nan", "inf", 1]


def test_a_moment_without_a_time_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="time zone"):
        decide(parse_rules(HEAD), study(), calling_ae="", now=NOW.replace(tzinfo=None))


# ---------------------------------------------------------------- completeness


CT_RULE = HEAD + "conditions = {field = 'Modality', op = 'equals', value = 'CT'}\n"
STRICT_RULE = CT_RULE + "require_complete = true\n"


@pytest.mark.parametrize(
    ("rule", "verdict", "jobs"),
    [
        (CT_RULE, "known missing", 1),
        (STRICT_RULE, "known missing", 0),
        (STRICT_RULE, "probably complete", 1),
        (STRICT_RULE, "complete", 1),
        (STRICT_RULE, "", 1),  # an operator's word
    ],
)
def test_a_rule_may_refuse_a_study_that_is_known_to_be_incomplete(
    rule: str, verdict: str, jobs: int
) -> None:
    decision = routed(rule, series("1", CT), verdict=verdict)
    assert len(decision.jobs) == jobs
    assert (explained(decision)["matched"], explained(decision)["jobs"]) == (jobs > 0, jobs)


def test_a_study_that_was_refused_for_its_incompleteness_says_so() -> None:
    found = explained(routed(STRICT_RULE, series("1", CT), verdict="known missing"))
    assert found["why"] == (
        "it requires a complete study, and of this one instances are known missing"
    )
    assert found["completeness"] == "known missing"
    assert found["series"][0]["chosen"] is True  # what it would have taken


@pytest.mark.parametrize(
    ("rule", "waited_for"),
    [
        (STRICT_RULE, ("a",)),
        (CT_RULE, ()),
        (STRICT_RULE.replace("'CT'", "'MR'"), ()),
    ],
)
def test_a_rule_that_requires_a_complete_study_waits_for_its_series(
    rule: str, waited_for: tuple[str, ...]
) -> None:
    thin = "[rules.series]\nconditions = {field = 'SliceThickness', op = '<', value = 0.7}\n"
    assert routed(rule + thin, series("1", CT)).waited_for == waited_for
    assert routed(rule, series("1", CT)).waited_for == ()
