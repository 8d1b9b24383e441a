"""Laws of the rules that hold for any tree and any study, the example, and the time it takes."""

from __future__ import annotations

import json
import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.conditions import Scalar, Values
from node.routing import SeriesHeaders, StudyHeaders, decide, parse_rules
from tests.node.study_headers import (
    HEAD,
    NOW,
    Attributes,
    chosen,
    explained,
    routed,
    series,
    study,
)
from tests.places import CONFIG

FIELDS = ("Modality", "SliceThickness", "BodyPartExamined", "@calling_ae", "@series_instances")
WORDS = ("CT", "MR", "", "5", "x")
words = st.sampled_from(WORDS)
numbers = st.sampled_from((0, 1, 5, 2.5, -1))
wholes = st.fixed_dictionaries(
    {
        "field": st.sampled_from(FIELDS),
        "level": st.sampled_from(("study", "series", "instance")),
        "quantifier": st.sampled_from(("any", "all")),
    }
)
questions = st.one_of(
    st.fixed_dictionaries({"op": st.sampled_from(("exists", "absent", "empty"))}),
    st.fixed_dictionaries({"op": st.just("equals"), "value": words | numbers}),
    st.fixed_dictionaries(
        {"op": st.sampled_from(("contains", "matches")), "value": st.sampled_from(("C", "x", "5"))}
    ),
    st.fixed_dictionaries(
        {"op": st.just("in"), "value": st.lists(words | numbers, min_size=1, max_size=3)}
    ),
    st.fixed_dictionaries({"op": st.sampled_from(("<", "<=", ">", ">=")), "value": numbers}),
)
leaves = st.tuples(wholes, questions).map(lambda pair: {**pair[0], **pair[1]})
trees = st.recursive(
    leaves,
    lambda inner: st.tuples(
        st.sampled_from(("all", "any", "none")), st.lists(inner, min_size=1, max_size=3)
    ).map(lambda pair: {pair[0]: pair[1]}),
    max_leaves=8,
)
found_values: st.SearchStrategy[Values] = st.none() | st.lists(words | numbers, max_size=3).map(
    tuple
)
instances = st.fixed_dictionaries(
    {}, optional={name: found_values for name in FIELDS if not name.startswith("@")}
)
studies = st.lists(st.lists(instances, max_size=3), max_size=3).map(
    lambda members: study(
        *(series(f"1.{number}", *member) for number, member in enumerate(members))
    )
)


def as_toml(value: object) -> str:
    """Write a value as TOML on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {as_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(as_toml, value)) + "]"
    return json.dumps(value)


def verdict(tree: object, what: StudyHeaders, ae: str) -> bool:
    rules = parse_rules(HEAD + f"conditions = {as_toml(tree)}")
    decision = decide(rules, what, calling_ae=ae, now=NOW)
    return explained(decision)["conditions"]["verdict"] is True


@settings(deadline=None, max_examples=50)
@given(st.lists(trees, min_size=1, max_size=3), studies, st.sampled_from(("", "CT")))
def test_groups_obey_the_laws_of_de_morgan(
    parts: list[object], what: StudyHeaders, ae: str
) -> None:
    def each_not(items: list[object]) -> list[object]:
        return [{"none": [item]} for item in items]

    single = [verdict(part, what, ae) for part in parts]
    assert verdict({"all": parts}, what, ae) is all(single)
    assert verdict({"any": parts}, what, ae) is any(single)
    assert verdict({"none": parts}, what, ae) is verdict({"all": each_not(parts)}, what, ae)
    assert verdict({"any": parts}, what, ae) is verdict({"none": [{"none": parts}]}, what, ae)
    assert verdict({"all": parts}, what, ae) is verdict({"none": each_not(parts)}, what, ae)
    assert verdict({"none": [{"none": [parts[0]]}]}, what, ae) is single[0]


@settings(deadline=None)
@given(leaves, st.integers(min_value=0, max_value=3))
def test_no_question_but_absent_holds_where_the_attribute_is_absent(
    leaf: dict[str, object], count: int
) -> None:
    if str(leaf["field"]).startswith("@"):
        leaf = {**leaf, "field": "Modality"}
    what = study(*(series(f"1.{number}", {}, {}) for number in range(count)))
    assert verdict(leaf, what, "CT") is (
        leaf["op"] == "absent" and count + (leaf["level"] == "study") > 0
    )


@settings(deadline=None)
@given(trees, trees, studies, st.randoms(use_true_random=False))
def test_the_order_of_series_and_instances_changes_nothing(
    tree: object, prefer: object, what: StudyHeaders, shuffle: random.Random
) -> None:
    rules = parse_rules(
        HEAD
        + f"conditions = {as_toml(tree)}\n"
        + f"series.rank = [{{field = 'SliceThickness'}}, {{prefer = {as_toml(prefer)}}}]"
    )
    shuffled = study(
        *(
            SeriesHeaders(
                series_instance_uid=item.series_instance_uid,
                instances=tuple(shuffle.sample(item.instances, len(item.instances))),
            )
            for item in shuffle.sample(what.series, len(what.series))
        )
    )
    decisions = [decide(rules, item, calling_ae="CT", now=NOW) for item in (what, shuffled)]
    assert decisions[0].jobs == decisions[1].jobs


# ---------------------------------------------------------------- the example


def axial(thickness: float, **other: Scalar | Values) -> Attributes:
    return {
        "Modality": "CT",
        "BodyPartExamined": "ABDOMEN",
        "ImageType": ("ORIGINAL", "PRIMARY", "AXIAL"),
        "SliceThickness": thickness,
        **other,
    }


def test_the_example_chooses_the_thinnest_axial_series_and_says_why() -> None:
    rules = (CONFIG / "rules.example.toml").read_text(encoding="utf-8")
    members = (
        series("1.1", axial(0.6, ImageType=("ORIGINAL", "PRIMARY", "LOCALIZER"))),
        series("1.2", *[axial(5.0)] * 40),
        series("1.3", *[axial(1.0, ConvolutionKernel="LUNG")] * 400),
        series("1.4", *[axial(1.0, ConvolutionKernel="STANDARD")] * 200),
        series("1.5", *[axial(0.6)] * 5),
        series("1.6", {"Modality": "SR"}),
    )
    decision = routed(rules, *members)
    assert chosen(decision) == ["1.4"]
    assert decision.quiet_seconds == 60.0
    assert [line["place"] for line in explained(decision)["series"]] == [None, 3, 2, 1, None, None]


@pytest.mark.parametrize(
    ("attributes", "calling_ae"),
    [
        ({"BodyPartExamined": "HEAD"}, "CT1"),
        ({"Modality": "MR"}, "CT1"),
        ({"StudyDescription": "CT-guided biopsy"}, "CT1"),
        ({}, "RESEARCH"),
    ],
)
def test_the_example_leaves_other_studies_alone(attributes: Attributes, calling_ae: str) -> None:
    rules = (CONFIG / "rules.example.toml").read_text(encoding="utf-8")
    member = series("1", *[{**axial(1.0), **attributes}] * 30)
    assert routed(rules, member, calling_ae=calling_ae).jobs == ()
    assert routed(rules, series("1", *[axial(1.0)] * 30)).jobs


def test_ten_thousand_rules_are_judged_and_the_time_is_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rules = parse_rules(
        "".join(
            HEAD.replace('"a"', f'"r{number}"') + "conditions.all = ["
            "{field = 'Modality', op = 'equals', value = 'CT'}, "
            f"{{field = 'StudyDescription', op = 'contains', value = 'protocol {number:04}'}}]\n"
            for number in range(10_000)
        )
    )
    slices: list[Attributes] = [{"Modality": "CT", "StudyDescription": "protocol 9999"}] * 200
    what = study(*(series(f"1.{number}", *slices) for number in range(5)))
    began = time.perf_counter()
    decision = decide(rules, what, calling_ae="CT1", now=NOW)
    first = time.perf_counter()
    decide(rules, what, calling_ae="CT1", now=NOW)
    second = time.perf_counter()
    with capsys.disabled():
        print(  # noqa: T201 - a measurement, told and not judged
            f"\n10 000 rules on 5 series of 200 instances: {1000 * (first - began):.0f} ms, "
            f"then {1000 * (second - first):.0f} ms"
        )
    assert {job.rule for job in decision.jobs} == {"r9999"}
    assert len(decision.jobs) == 5
