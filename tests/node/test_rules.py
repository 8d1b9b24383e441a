"""The rules file: what it takes, what it refuses and in which words, and when a rule applies."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.package import find_packages, load_package, shipped_folder
from node.routing import check_references
from node.rules import Rule, RulesError, parse_rules
from node.settings import load_settings
from tests.places import CONFIG

HEAD = '[[rules]]\nname = "a"\nengines = ["e"]\ndestinations = ["d"]\n'
OTHER = HEAD.replace('"a"', '"b"')


def refusal(text: str) -> str:
    with pytest.raises(RulesError) as caught:
        parse_rules(text)
    return str(caught.value)


def rule(text: str = "") -> Rule:
    return parse_rules(HEAD + text).rules[0]


# ---------------------------------------------------------------- what is refused, and how


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[[rule]]", "rule: is not known here; known are rules"),
        ("rules = 5", "rules: must be a list"),
        ("[[rules]]\nname = 'a'", "rules[0].engines: is missing"),
        ("[[rules]]\nengines = ['e']", "rules[0].name: is missing"),
        (HEAD + OTHER + "owners = 'x'", "rules[1].owners: is not known here; known are"),
        (HEAD + "enabled = 'yes'", "rules[0].enabled: must be true or false"),
        (HEAD + "priority = 'now'", "rules[0].priority: must be 'stat', 'urgent', 'routine' or"),
        (HEAD + "trigger = 'patient'", "rules[0].trigger: must be 'study' or 'series'"),
        (HEAD + "quiet_seconds = '5'", "rules[0].quiet_seconds: must be a number"),
        (HEAD + "quiet_seconds = inf", "rules[0].quiet_seconds: must be a finite number"),
        (HEAD + "quiet_seconds = 0", "rules[0].quiet_seconds: must be greater than 0"),
        (HEAD + "conditions = 5", "rules[0].conditions: must be a table"),
        (HEAD + "timezone = 'Mars'", "rules[0].timezone: 'Mars' is no time zone"),
        (HEAD + "timezone = 'Europe'", "rules[0].timezone: 'Europe' is no time zone"),
        (HEAD + "timezone = '../UTC'", "rules[0].timezone: '../UTC' is no time zone"),
        (HEAD + "windows = [{days = []}]", "rules[0].windows[0].days: needs at least one item"),
        (HEAD + "windows = [{days = ['monday']}]", "rules[0].windows[0].days[0]: must be 'mon'"),
        (HEAD + "windows = [{from = '7:00'}]", "rules[0].windows[0].from: must be a time of day"),
        (HEAD + "windows = [{to = '07:00Z'}]", "rules[0].windows[0].to: must be a time of day"),
        (HEAD + "[rules.series]\ntake = 1", "rules[0].series.take: must be 'first' or 'all'"),
        (HEAD + "series.rank = [{}]", "rules[0].series.rank[0]: give either field or prefer"),
        (
            HEAD + "series.rank = [{field = 'Modality'}, {field = 'SliceThicknes'}]",
            "rules[0].series.rank[1].field: 'SliceThicknes' is no DICOM keyword (near: SliceThick",
        ),
        (
            HEAD + "series.rank = [{prefer = {field = 'Modality', op = 'exist'}}]",
            "rules[0].series.rank[0].prefer.op: must be 'equals'",
        ),
        (
            HEAD + "series.rank = [{order = 'descending', prefer = {field = 'Modality', "
            "op = 'exists'}}]",
            "rules[0].series.rank[0]: order goes with field",
        ),
        (HEAD.replace('["e"]', "[]"), "rules[0].engines: needs at least one item"),
        (HEAD.replace('["e"]', "['e', 'f', 'e']"), "rules[0].engines: named twice: e"),
        (HEAD.replace('["d"]', "['d', 'd']"), "rules[0].destinations: named twice: d"),
        (HEAD.replace('"a"', '"a\\nb"'), "rules[0].name: must be one line of printable"),
        (HEAD.replace('"a"', '""'), "rules[0].name: must have at least 1 character"),
        (HEAD + OTHER + HEAD, "rules: two rules have the same name: a"),
        ("rules = [", "not TOML: "),
        ("a = " + "[" * 5000, "not TOML that can be read: nested too deeply"),
        ("a = " + "9" * 5000, "not TOML: "),
    ],
)
def test_a_wrong_key_is_named_by_its_path_in_the_file(text: str, says: str) -> None:
    assert refusal(text).startswith(says)


@pytest.mark.parametrize(
    ("condition", "path", "says"),
    [
        ("{field = 'Modality'}", ".op", "is missing"),
        ("{op = 'exists'}", ".field", "is missing"),
        ("{field = 'Modalty', op = 'exists'}", ".field", "'Modalty' is no DICOM keyword (near: M"),
        ("{field = '@modality', op = 'exists'}", ".field", "'@modality' is none of @calling_ae"),
        ("{field = '0008', op = 'exists'}", ".field", "'0008' is no DICOM keyword"),
        ("{field = '', op = 'exists'}", ".field", "a field is a keyword"),
        ("{field = 'Modality', op = 'like', value = 'CT'}", ".op", "must be 'equals', 'in'"),
        ("{field = 'Modality', op = 'equals', value = true}", ".value", "must be text or a whole"),
        ("{field = 'Modality', op = 'equals', value = {a = 1}}", ".value", "must be text or a"),
        ("{field = 'Modality', op = 'in', value = ['CT', true]}", ".value[1]", "must be text or"),
        ("{field = 'Modality', op = 'equals', value = nan}", ".value", "must be text or a whole"),
        ("{field = 'Modality', op = 'exists', level = 'image'}", ".level", "must be 'study', 'se"),
        ("{field = 'Modality', op = 'equals', valu = 'CT'}", ".valu", "is not known here; known"),
        ("{field = 'Modality', op = '<', value = 'CT'}", "", "< compares numbers"),
        ("{field = 'Modality', op = 'matches', value = '('}", "", "not a linear-time regular"),
        ("{all = []}", ".all", "needs at least one item"),
        ("{all = [{field = 'Modality', op = 'exists'}], any = []}", ".any", "cannot stand beside"),
    ],
)
@pytest.mark.parametrize(
    "place",
    [
        ("conditions = ", "rules[0].conditions", ""),
        ("series.conditions = ", "rules[0].series.conditions", ""),
        ("series.rank = [{prefer = ", "rules[0].series.rank[0].prefer", "}]"),
        (
            "conditions = {all = [{field = 'Modality', op = 'exists'}, {none = [{any = [",
            "rules[0].conditions.all[1].none[0].any[0]",
            "]}]}]}",
        ),
    ],
)
def test_a_wrong_condition_is_named_wherever_it_stands(
    condition: str, path: str, says: str, place: tuple[str, str, str]
) -> None:
    before, path_before, after = place
    assert f"{path_before}{path}: {says}" in refusal(HEAD + before + condition + after)


def test_all_that_is_wrong_is_told_at_once_but_not_without_end() -> None:
    two = refusal(HEAD + "enabled = 1\npriority = 'x'")
    assert "rules[0].enabled" in two
    assert "rules[0].priority" in two
    many = refusal("".join(f"[[rules]]\nname = 'r{i}'\n" for i in range(50)))
    assert many.count("is missing") == 10
    assert many.endswith("; and 40 more")


def test_conditions_nested_without_end_are_refused() -> None:
    def nested(depth: int) -> str:
        inner = "{field = 'Modality', op = 'exists'}"
        return HEAD + "conditions = " + "{all = [" * depth + inner + "]}" * depth

    assert parse_rules(nested(15)).rules
    assert "nested deeper" in refusal(nested(40))
    assert "nested" in refusal(nested(400))


@given(st.text(max_size=200))
def test_no_text_does_more_than_be_refused(text: str) -> None:
    try:
        parse_rules(text)
    except RulesError:
        return


def test_code_in_a_rule_is_text() -> None:
    text = '__import__("os").system("true").__class__'
    condition = f"conditions = {{field = 'Modality', op = 'equals', value = '{text}'}}"
    [comparison] = rule(condition).comparisons()
    assert comparison.values == (text,)


# ---------------------------------------------------------------- what is taken


def test_a_file_without_rules_has_none() -> None:
    assert parse_rules("").rules == ()


def test_all_kinds_of_fields_can_be_asked_for_and_are_listed() -> None:
    fields = [
        "Modality",
        "0008,0060",
        "RequestAttributesSequence.RequestedProcedureID",
        "RequestAttributesSequence[0].RequestedProcedureID",
        "ImageOrientationPatient[0]",
        "0043,GEMS_PARM_01,27",
        "@calling_ae",
    ]
    parts = ", ".join(f"{{field = '{field}', op = 'exists'}}" for field in fields)
    text = (
        HEAD
        + f"conditions = {{any = [{parts}]}}\n"
        + "series.conditions = {field = 'BodyPartExamined', op = 'exists'}\n"
        + "series.rank = [{field = 'SliceThickness'}, {field = '@series_instances'}, "
        + "{prefer = {field = 'ConvolutionKernel', op = 'exists'}}]"
    )
    wanted = {*fields[:-1], "BodyPartExamined", "SliceThickness", "ConvolutionKernel"}
    assert parse_rules(text).fields == wanted


def test_priorities_are_ordered() -> None:
    classes = ("background", "routine", "urgent", "stat")
    numbers = [rule(f"priority = '{name}'").priority_number for name in classes]
    assert numbers == sorted(set(numbers))


# ---------------------------------------------------------------- what rules name


def test_engines_and_destinations_that_are_not_there_are_told() -> None:
    rules = parse_rules(HEAD + OTHER.replace('["d"]', '["d", "x"]'))
    assert check_references(rules, {"e"}, {"d", "x"}) == []
    assert check_references(rules, {"f"}, {"d"}) == [
        "rules[0].engines: rule 'a': there is no engine 'e' (there: f)",
        "rules[1].engines: rule 'b': there is no engine 'e' (there: f)",
        "rules[1].destinations: rule 'b': there is no destination 'x' (there: d)",
    ]
    assert check_references(parse_rules(HEAD), {"e"}, ()) == [
        "rules[0].destinations: rule 'a': there is no destination 'd' (there: none)"
    ]


def test_a_rule_that_sends_its_results_nowhere_is_told() -> None:
    rules = parse_rules(HEAD.replace('["d"]', "[]"))
    assert check_references(rules, {"e"}, {"d"}) == [
        "rules[0].destinations: rule 'a' sends its results nowhere"
    ]


def test_the_example_loads_and_names_only_what_there_is() -> None:
    settings = load_settings(CONFIG / "wetread.toml")
    assert settings.rules.file == CONFIG / "rules.example.toml"
    rules = parse_rules(settings.rules.file.read_text(encoding="utf-8"))
    engines = {load_package(folder).name for folder in find_packages([shipped_folder()])}
    assert len(rules.rules) >= 2
    assert check_references(rules, engines, settings.destinations) == []


# ---------------------------------------------------------------- when a rule applies


def moment(text: str) -> datetime:
    """Return a moment of a week of January 2026, in UTC: `mon 07:00`. The 5th is a Monday."""
    day, clock = text.split()
    date = 5 + ("mon", "tue", "wed", "thu", "fri", "sat", "sun").index(day)
    return datetime.fromisoformat(f"2026-01-{date:02}T{clock}").replace(tzinfo=UTC)


def applies(windows: str, at: str, timezone: str = "UTC") -> bool:
    return rule(f"timezone = '{timezone}'\nwindows = [{windows}]").in_window(moment(at))


def test_a_rule_without_windows_always_applies() -> None:
    assert rule().in_window(moment("sun 03:00"))


@pytest.mark.parametrize(
    ("at", "inside"),
    [
        ("mon 06:59:59", False),
        ("mon 07:00", True),
        ("mon 18:59:59", True),
        ("mon 19:00", False),
        ("tue 12:00", False),
    ],
)
def test_a_window_includes_its_beginning_and_not_its_end(at: str, inside: bool) -> None:
    assert applies("{days = ['mon'], from = '07:00', to = '19:00'}", at) is inside


@pytest.mark.parametrize(
    ("at", "inside"),
    [
        ("fri 21:59", False),
        ("fri 22:00", True),
        ("sat 05:59", True),
        ("sat 06:00", False),
        ("sat 23:00", False),
        ("fri 05:00", False),
    ],
)
def test_a_window_over_midnight_belongs_to_the_day_on_which_it_begins(
    at: str, inside: bool
) -> None:
    assert applies("{days = ['fri'], from = '22:00', to = '06:00'}", at) is inside


@pytest.mark.parametrize("end", ["'24:00'", "'00:00'", "24:00:00", "00:00:00"])
def test_midnight_ends_a_day(end: str) -> None:
    if end == "24:00:00":
        end = "'24:00:00'"
    window = f"{{days = ['fri'], from = '18:00', to = {end}}}"
    assert applies(window, "fri 23:59:59.999999")
    assert not applies(window, "sat 00:00")


def test_days_without_hours_are_whole_days() -> None:
    assert applies("{days = ['sat', 'sun']}", "sat 00:00")
    assert applies("{days = ['sat', 'sun']}", "sun 23:59:59.999999")
    assert not applies("{days = ['sat', 'sun']}", "mon 00:00")
    assert applies("{}", "wed 12:00")


def test_one_of_several_windows_is_enough() -> None:
    windows = "{days = ['mon'], to = '08:00'}, {days = ['mon'], from = '20:00'}"
    assert applies(windows, "mon 07:00")
    assert applies(windows, "mon 21:00")
    assert not applies(windows, "mon 12:00")


def test_windows_are_meant_in_the_time_of_their_zone() -> None:
    window = "{days = ['mon'], from = '07:00', to = '08:00'}"
    assert applies(window, "mon 06:30", "Europe/Berlin")
    assert applies(window, "sun 22:30", "Asia/Tokyo")
    assert not applies(window, "mon 07:30", "Europe/Berlin")


def test_windows_follow_summer_time() -> None:
    berlin = rule("timezone = 'Europe/Berlin'\nwindows = [{from = '07:00', to = '08:00'}]")
    assert berlin.in_window(datetime(2026, 1, 15, 6, 30, tzinfo=UTC))
    assert not berlin.in_window(datetime(2026, 7, 15, 6, 30, tzinfo=UTC))
    assert berlin.in_window(datetime(2026, 7, 15, 5, 30, tzinfo=UTC))


def test_ten_thousand_rules_are_read_without_quadratic_work() -> None:
    text = "".join(HEAD.replace('"a"', f'"r{i}"') for i in range(10_000))
    began = time.process_time()
    assert len(parse_rules(text).rules) == 10_000
    assert time.process_time() - began < 30
