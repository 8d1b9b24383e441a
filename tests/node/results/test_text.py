from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.results._text import clean, counted, decimal_string, number, without_controls


@given(st.text(), st.integers(min_value=4, max_value=64))
def test_cleaned_text_is_one_short_printable_line(text: str, limit: int) -> None:
    made = clean(text, limit)
    assert len(made) <= limit
    assert "\\" not in made
    assert made == clean(made, limit)
    assert made.isprintable()


@given(st.text())
def test_removing_controls_changes_nothing_else(text: str) -> None:
    made = without_controls(text, lines=False)
    assert made == without_controls(made, lines=False)
    made.encode("utf-8")


def test_long_text_may_have_lines() -> None:
    assert without_controls("a\r\nb\x1b", lines=True) == "a\r\nb"
    assert without_controls("a\r\nb\x1b", lines=False) == "ab"


@pytest.mark.parametrize(
    ("value", "text"),
    [(1234.5678, "1235"), (-850.25, "-850.2"), (0.012345, "0.01235"), (0.0, "0"), (12.0, "12")],
)
def test_numbers_are_written_for_people(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(726.016000001, "726.016"), (-829.05500705, "-829.055"), (1234567.8, "1234568")],
)
def test_decimal_strings_have_no_false_precision(value: float, text: str) -> None:
    assert decimal_string(value) == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_decimal_strings_fit_their_value_representation(value: float) -> None:
    text = decimal_string(value)
    assert len(text) <= 16
    assert float(text) == pytest.approx(value, rel=1e-5)


def test_counts_agree_with_their_noun() -> None:
    assert (counted(1, "image"), counted(12, "image")) == ("1 image", "12 images")
