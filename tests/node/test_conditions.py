"""One comparison on one case: every operator, and what an absent attribute does to it."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from node.conditions import Comparison, Operator, Scalar, Values, number_of, shown_values

Wanted = Scalar | tuple[Scalar, ...] | None


def asks(op: Operator, value: Wanted = None, *, ignore_case: bool = False) -> Comparison:
    return Comparison(field="Modality", op=op, value=value, ignore_case=ignore_case)


@pytest.mark.parametrize(
    ("op", "value", "values", "fits"),
    [
        ("equals", "CT", ("CT",), True),
        ("equals", "CT", ("ct",), False),
        ("equals", "CT", ("CT ",), False),
        ("equals", "AXIAL", ("ORIGINAL", "PRIMARY", "AXIAL"), True),
        ("equals", 5, (5.0,), True),
        ("equals", 5, ("5.0",), True),
        ("equals", 5, ("five",), False),
        ("equals", "5", (5.0,), True),
        ("equals", "MR", (5.0,), False),
        ("in", ("CT", "MR"), ("MR",), True),
        ("in", ("CT", "MR"), ("US",), False),
        ("in", (1, 2.5), ("2.50",), True),
        ("matches", "^ABD", ("ABDOMEN",), True),
        ("matches", "^ABD", ("UPPER ABDOMEN",), False),
        ("matches", "ü", ("Überprüfung",), True),
        ("matches", 5, (0.625,), True),
        ("matches", "a", ("\ud800a",), True),
        ("contains", "DOM", ("ABDOMEN",), True),
        ("contains", "dom", ("ABDOMEN",), False),
        ("contains", 62, (0.625,), True),
        ("<", 5, (4.999,), True),
        ("<", 5, (5,), False),
        ("<=", 5, (5,), True),
        (">", 5, (5,), False),
        (">", 5, ("5.5",), True),
        (">=", 5, ("5",), True),
        (">=", 20240101, ("20240215",), True),
        (">", 5, ("045Y",), False),
        ("between", (1, 2), (2,), True),
        ("between", (1, 2), (0.5, 1.5), True),
        ("between", (1, 2), (2.01,), False),
        ("between", (1, 2), ("text",), False),
        ("exists", None, ("CT",), True),
        ("exists", None, (), True),
        ("empty", None, (), True),
        ("empty", None, ("",), True),
        ("empty", None, ("", "CT"), False),
        ("absent", None, (), False),
        ("absent", None, ("CT",), False),
    ],
)
def test_each_operator_holds_for_what_it_says(
    op: Operator, value: Wanted, values: Values, fits: bool
) -> None:
    assert asks(op, value).fits(values) is fits


@pytest.mark.parametrize(
    ("op", "value"),
    [
        ("equals", "None"),
        ("in", ("", "None")),
        ("matches", ".*"),
        ("contains", "N"),
        ("<", 5),
        ("<=", 5),
        (">", -5),
        (">=", -5),
        ("between", (-5, 5)),
        ("exists", None),
        ("empty", None),
    ],
)
def test_an_absent_attribute_fits_nothing_but_absent(op: Operator, value: Wanted) -> None:
    assert asks(op, value).fits(None) is False
    assert asks("absent").fits(None) is True


def test_identifiers_are_compared_as_text_although_they_look_like_numbers() -> None:
    assert not asks("equals", "7").fits(("007",))
    assert not asks("equals", "1e3").fits(("1000",))
    assert not asks("in", ("1_0", "2")).fits(("10",))
    assert asks("equals", 7).fits(("007",))


@pytest.mark.parametrize("op", ["equals", "contains", "matches"])
def test_case_is_disregarded_where_that_is_asked(op: Operator) -> None:
    assert asks(op, "Straße", ignore_case=True).fits(("STRAßE",))
    assert not asks(op, "Straße").fits(("STRAßE",))


@pytest.mark.parametrize(
    "text", ["nan", "inf", "-Infinity", "1_000", "\uff11\uff12", "0x10", "", ".", "1e"]
)
def test_only_what_is_written_as_a_number_in_full_is_one(text: str) -> None:
    assert number_of(text) is None


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 10**400, "1e999", "9" * 65])
def test_a_number_that_is_not_finite_is_none(value: Scalar) -> None:
    assert number_of(value) is None
    if not isinstance(value, int):
        assert not asks(">", 0).fits((value,))


@pytest.mark.parametrize("text", ["1", "-1.5", "+.5", "1.", " 2 ", "1E-3"])
def test_numerals_of_dicom_are_numbers(text: str) -> None:
    assert number_of(text) == float(text)


def test_the_quantifier_asks_for_one_case_or_for_every_one() -> None:
    cases: list[Values] = [("CT",), ("MR",), None]
    one = Comparison(field="Modality", op="equals", value="CT")
    every = Comparison(field="Modality", op="equals", value="CT", quantifier="all")
    assert one.holds(cases)
    assert not every.holds(cases)
    assert every.holds([("CT",), ("CT", "SR")])


def test_where_there_is_no_case_nothing_holds() -> None:
    for quantifier in ("any", "all"):
        for op in ("exists", "absent", "empty"):
            asked = Comparison.model_validate(
                {"field": "Modality", "op": op, "quantifier": quantifier}
            )
            assert not asked.holds([])


@pytest.mark.parametrize(
    ("op", "value", "says"),
    [
        ("exists", "CT", "exists takes no value"),
        ("equals", None, "equals needs a value"),
        ("equals", ("CT",), "equals takes one value, not a list"),
        ("<", (), "< takes one value, not a list"),
        ("matches", ("a",), "matches takes one value, not a list"),
        ("matches", "", "matches needs a text that is not empty"),
        ("contains", "", "contains needs a text that is not empty"),
        ("in", "CT", "in needs a list of values"),
        ("in", (), "in needs a list of values"),
        ("<", "5", "< compares numbers"),
        ("between", (1,), "between needs a list of two numbers"),
        ("between", (1, "2"), "between compares numbers"),
        ("between", (2, 1), "between needs the smaller number first"),
        ("equals", 10**400, "the number is too large"),
        ("matches", "(", "not a linear-time regular expression"),
        ("matches", r"(a)\1", "not a linear-time regular expression"),
        ("matches", "(?=a)", "not a linear-time regular expression"),
        ("matches", "a" * 1001, "longer than 1000 characters"),
        ("matches", "((a{100}){100}){100}", "not a linear-time regular expression"),
    ],
)
def test_a_value_that_does_not_go_with_its_operator_is_refused(
    op: Operator, value: Wanted, says: str
) -> None:
    with pytest.raises(ValidationError, match=says.replace("(", r"\(")):
        asks(op, value)


@pytest.mark.parametrize("pattern", [r"^(a+)+$", r"^(a|a)*$", r"(.*)*x", r"([a-z]+)*\d$"])
def test_a_pattern_made_to_hang_is_linear(pattern: str) -> None:
    """A backtracking engine needs 2^30 steps for thirty letters; here are a hundred thousand."""
    asked = asks("matches", pattern)
    began = time.process_time()
    assert not asked.fits(("a" * 100_000 + "!",))
    assert time.process_time() - began < 5


def test_what_is_shown_is_bounded_in_count_and_length() -> None:
    shown = shown_values(tuple(range(1000)))
    assert shown == [0, 1, 2, 3, 4, "... 995 more"]
    assert shown_values(("x" * 1000,)) == ["x" * 80]
    assert asks("in", tuple("abcdefgh")).shown == ["a", "b", "c", "d", "e", "... 3 more"]


def test_what_is_shown_is_json_even_of_numbers_that_json_has_not() -> None:
    shown = shown_values((float("nan"), float("-inf"), 1.5, "a"))
    assert json.loads(json.dumps(shown, allow_nan=False)) == ["nan", "-inf", 1.5, "a"]


scalars: st.SearchStrategy[Scalar] = (
    st.text(alphabet=st.characters(), max_size=30)
    | st.integers(min_value=-(2**63), max_value=2**63)
    | st.floats()
)
some_values: st.SearchStrategy[Values] = st.none() | st.lists(scalars, max_size=4).map(tuple)


@given(
    op=st.sampled_from(["equals", "in", "contains", "<", "<=", ">", ">=", "between", "exists"]),
    wanted=st.lists(scalars, min_size=1, max_size=3),
    values=some_values,
    ignore_case=st.booleans(),
)
def test_no_value_makes_a_comparison_raise(
    op: Operator, wanted: list[Scalar], values: Values, *, ignore_case: bool
) -> None:
    value: Wanted = tuple(wanted) if op in {"in", "between"} else wanted[0]
    try:
        asked = asks(op, None if op == "exists" else value, ignore_case=ignore_case)
    except ValidationError:
        return
    assert asked.fits(values) in {True, False}
    if values is None:
        assert not asked.fits(values)


@given(st.text(alphabet=st.characters(), max_size=60), some_values)
def test_no_pattern_does_more_than_be_refused(pattern: str, values: Values) -> None:
    try:
        asked = asks("matches", pattern)
    except ValidationError:
        return
    assert asked.fits(values) in {True, False}
