from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from node.admin.explanation import Line, explain
from node.routing import InstanceHeaders, SeriesHeaders, StudyHeaders, decide, parse_rules
from storage.records import JsonValue

NOON = datetime(2026, 7, 15, 12, 0, 0, tzinfo=UTC)
RULES = """
[[rules]]
name = "abdomen"
engines = ["liver"]
destinations = ["PACS"]
[rules.conditions]
all = [
  { field = "Modality", op = "equals", value = "CT" },
  { any = [
    { field = "BodyPartExamined", op = "contains", value = "ABDOMEN" },
    { field = "StudyDescription", op = "exists" },
  ] },
]
[rules.series]
take = "first"
rank = [{ field = "SliceThickness" }]
conditions = { field = "SliceThickness", op = "<=", value = 5 }

[[rules]]
name = "heads"
engines = ["bleed"]
conditions = { field = "Modality", op = "equals", value = "MR" }

[[rules]]
name = "each"
trigger = "series"
engines = ["liver"]
conditions = { field = "SliceThickness", op = ">", value = 2 }

[[rules]]
name = "off"
enabled = false
engines = ["liver"]
"""


def series(uid: str, thickness: float) -> SeriesHeaders:
    values = {
        "Modality": ("CT",),
        "BodyPartExamined": None,
        "StudyDescription": ("CT ABDOMEN",),
        "SliceThickness": (thickness,),
    }
    return SeriesHeaders(
        series_instance_uid=uid,
        instances=(InstanceHeaders(sop_instance_uid=f"{uid}.1", values=values),),
    )


def decided() -> tuple[Line, ...]:
    study = StudyHeaders(
        study_instance_uid="1.2",
        series=(series("1.2.1", 1.0), series("1.2.2", 3.0), series("1.2.3", 9.0)),
    )
    decision = decide(parse_rules(RULES), study, calling_ae="CT", now=NOON)
    found = explain(decision.explanation)
    return (*found, *explain({"unreadable_instances": {"1.2.9.1": "cut off"}}))


def flat(lines: tuple[Line, ...]) -> Iterator[Line]:
    for line in lines:
        yield line
        yield from flat(line.children)


def line_of(text: str) -> Line:
    return next(line for line in flat(decided()) if line.text == text)


def test_each_rule_says_what_came_of_it() -> None:
    assert [(line.text, line.verdict) for line in decided()[:4]] == [
        ("rule abdomen: jobs made: 1", True),
        ("rule heads: its conditions do not hold", False),
        ("rule each: jobs made: 2", True),
        ("rule off: the rule is switched off", False),
    ]


def test_each_condition_shows_the_value_found_and_its_verdict() -> None:
    met = line_of("Modality = CT")
    assert (met.found, met.verdict) == ("CT", True)
    absent = line_of("BodyPartExamined contains ABDOMEN")
    assert (absent.found, absent.verdict) == ("absent", False)
    assert line_of("StudyDescription exists").found == "CT ABDOMEN"
    not_met = line_of("conditions: Modality = MR")
    assert (not_met.found, not_met.verdict) == ("CT", False)


def test_groups_keep_their_nesting() -> None:
    outer = line_of("conditions: all of these hold")
    assert outer.verdict is True
    inner = outer.children[1]
    assert (inner.text, inner.verdict) == ("at least one of these holds", True)
    assert len(inner.children) == 2


def test_each_series_says_why_it_was_taken_or_not() -> None:
    assert line_of("series 1.2.1: chosen, place 1").verdict is True
    assert line_of("series 1.2.2: fits, another was better, place 2").found == "ranked by 3.0"
    left = line_of("series 1.2.3: does not fit")
    assert left.verdict is False
    assert left.children[0].text == "SliceThickness <= 5"
    assert left.children[0].found == "9.0"


def test_a_rule_for_single_series_is_explained_series_by_series() -> None:
    group = line_of("conditions: series by series")
    assert [(line.text, line.verdict) for line in group.children] == [
        ("series 1.2.1: SliceThickness > 2", False),
        ("series 1.2.2: SliceThickness > 2", True),
        ("series 1.2.3: SliceThickness > 2", True),
    ]


def test_instances_that_could_not_be_read_are_named() -> None:
    last = decided()[-1]
    assert last.text == "instances whose header could not be read"
    assert last.children[0].text == "1.2.9.1: cut off"


def test_an_explanation_that_is_empty_has_no_lines() -> None:
    assert explain({}) == ()


def test_what_is_not_known_is_shown_as_it_is() -> None:
    lines = explain({"rules": ["odd", {"rule": "a", "new_thing": {"x": [1, 2]}}], "note": True})
    assert [line.text for line in flat(lines)] == [
        "odd",
        "rule a",
        "new thing",
        "x: 1, 2",
        "note: yes",
    ]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["rules", "rule", "conditions", "series", "all", "any", "field", "verdict", "found"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(suppress_health_check=[HealthCheck.too_slow])  # the first draw, on a busy machine
@given(st.dictionaries(st.sampled_from(["rules", "unreadable_instances", "x"]), JSON))
def test_no_explanation_breaks_the_page(explanation: dict[str, JsonValue]) -> None:
    for line in flat(explain(explanation)):
        assert isinstance(line.text, str)
        assert isinstance(line.found, str)
