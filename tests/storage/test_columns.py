from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.dialects import sqlite

from storage.columns import Line, Name, Prose

DIALECT = sqlite.dialect()
ANYTHING = st.text(alphabet=st.characters())


@given(text=ANYTHING, length=st.integers(0, 20))
def test_a_line_is_always_clean_and_never_too_long(text: str, length: int) -> None:
    bound = Line(length).process_bind_param(text, DIALECT)
    assert bound is not None
    assert len(bound) <= length
    assert "\0" not in bound
    bound.encode("utf-8")


@given(text=st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_text_that_both_databases_take_is_not_changed(text: str) -> None:
    assert Prose().process_bind_param(text, DIALECT) == text
    assert Name(1000).process_bind_param(text, DIALECT) == text


def test_a_name_is_refused_and_never_cut() -> None:
    assert Name(3).process_bind_param("abc\0", DIALECT) == "abc"
    with pytest.raises(ValueError, match="longer than 3 characters"):
        Name(3).process_bind_param("abcd", DIALECT)


def test_nothing_stays_nothing() -> None:
    assert [kind.process_bind_param(None, DIALECT) for kind in (Line(1), Name(1), Prose())] == [
        None
    ] * 3
