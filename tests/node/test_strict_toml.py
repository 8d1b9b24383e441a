"""Tables against types: key paths as they stand in the file, whatever the types look like."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import time
from pathlib import Path
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from node.strict_toml import TableError, check_table, keys_of, nested_models, read_toml


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Small(Strict):
    size: int
    begin: time = Field(time.min, alias="from")


class Large(Strict):
    large: bool
    size: float


def branch(raw: object) -> str:
    return "#large" if isinstance(raw, dict) and "large" in raw else "#small"


Either = Annotated[
    Annotated[Small, Tag("#small")] | Annotated[Large, Tag("#large")], Discriminator(branch)
]


class Whole(Strict):
    paths: tuple[Path, ...] = ()
    value: int | str | tuple[int | str, ...] = 0
    one: Either | None = None
    many: tuple[Either, ...] = ()
    named: Mapping[str, Small] = {}


def checked(text: str, key_path: str = "") -> Whole:
    return check_table(read_toml(text), Whole, key_path)


def test_lists_times_and_paths_are_taken_as_they_are_written_in_toml() -> None:
    whole = checked("paths = ['a']\nvalue = [1, 'x']\none = {size = 1, from = 07:30:00}")
    assert whole.paths == (Path("a"),)
    assert whole.value == (1, "x")
    assert whole.one == Small.model_validate({"size": 1, "from": time(7, 30)})
    assert checked("many = [{large = true, size = 2}]").many == (Large(large=True, size=2.0),)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("one = {}", "one.size: is missing"),
        ("one = {large = true}", "one.size: is missing"),
        ("one = {large = 1, size = 1}", "one.large: must be true or false"),
        ("one = {size = 1, form = 1}", "one.form: is not known here; known are from, large, size"),
        ("one = {size = 1, from = 'x'}", "one.from: must be in a valid time format"),
        ("one = [1]", "one: must be a table"),
        ("many = [{size = 1}, {large = true, size = 'x'}]", "many[1].size: must be a number"),
        ("many = {}", "many: must be a list"),
        ("named.a = {size = 1}\nnamed.b = {size = '1'}", "named.b.size: must be a whole number"),
        ("named.a = {size = 1, x = 1}", "named.a.x: is not known here; known are from, size"),
        ("value = true", "value: must be a whole number or text or a list"),
        ("value = {a = 1}", "value: must be a whole number or text or a list"),
        ("value = [1, true]", "value[1]: must be a whole number or text"),
        ("paths = [1]", "paths[0]: must be text"),
        ("nonsense = 1", "nonsense: is not known here; known are many, named, one, paths, value"),
    ],
)
def test_a_wrong_key_is_named_as_it_stands_in_the_file(text: str, says: str) -> None:
    with pytest.raises(TableError) as caught:
        checked(text)
    assert str(caught.value).startswith(says)
    with pytest.raises(TableError) as caught:
        checked(text, "a.b")
    assert str(caught.value).startswith(f"a.b.{says}")


@given(st.text(max_size=100))
def test_no_text_does_more_than_be_refused(text: str) -> None:
    try:
        checked(text)
    except TableError:
        return


def test_the_values_of_a_wrong_table_are_not_repeated() -> None:
    with pytest.raises(TableError) as caught:
        checked("one = {size = 'secret', from = 'secret'}\nmany = 'secret'")
    assert "secret" not in str(caught.value)


def test_types_are_found_however_they_are_wrapped() -> None:
    fields = Whole.model_fields
    small: type[BaseModel] = Small
    assert list(nested_models(fields["one"].annotation)) == [small, Large]
    assert list(nested_models(fields["named"].annotation)) == [small]
    assert list(nested_models(fields["paths"].annotation)) == []
    assert keys_of(Small) == ["size", "from"]
