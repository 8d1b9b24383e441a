# ruff: noqa: INP001 - a program, in no package
"""Writes the configuration reference: Markdown tables from the settings types, into README.md.

python deploy/docs/configuration_reference.py                      print it
python deploy/docs/configuration_reference.py --write README.md    put it between the markers
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Mapping
from datetime import time
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Final, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

import node.delivery
import node.listeners
from node.conditions import All, Any, Comparison, Condition, Nothing
from node.dicomweb.settings import DicomwebSettings
from node.interfaces import DeliveryTarget, Listener
from node.plugins import discover
from node.result_profiles import ObjectTable, ProfileFile
from node.rules import Preference, Rule, SeriesSelection, Window
from node.settings import Settings
from node.strict_toml import nested_models

BEGIN: Final = "<!-- configuration reference: begin -->"
END: Final = "<!-- configuration reference: end -->"
WORDS: Final[Mapping[object, str]] = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    time: "time of day",
    Path: "path",
    object: "anything",
    Condition: "condition",
}
BOUNDS: Final = (
    ("gt", "> {}"),
    ("ge", "≥ {}"),
    ("lt", "< {}"),
    ("le", "≤ {}"),
    ("max_length", "≤ {} characters"),
)
RULE_TABLES: Final[tuple[tuple[str, type[BaseModel]], ...]] = (
    ("`[[rules]]`", Rule),
    ("`[[rules.windows]]`", Window),
    ("`[rules.series]`", SeriesSelection),
    ("`[[rules.series.rank]]`", Preference),
    ("A condition", Comparison),
)


class MarkersError(Exception):
    """The file has not got both markers, in order."""


PROFILE_TABLES: Final[tuple[tuple[str, type[BaseModel]], ...]] = (
    ("The file", ProfileFile),
    ("`[objects]`", ObjectTable),
)


def render() -> str:
    """Return the whole reference as Markdown."""
    parts = [
        "### config/wetread.toml",
        "",
        *_table(_settings_rows("", Settings)),
        "",
        *_plugin_tables("`[{}]`", {"dicomweb": DicomwebSettings}),
        *_plugin_tables("`[listeners.{}]`", _listeners()),
        *_plugin_tables('`[destinations.NAME]` with `kind = "{}"`', _targets()),
        "### The rules file",
        "",
        "Conditions nest: `all`, `any` and `none` hold a list of conditions each.",
        "",
    ]
    for title, model in RULE_TABLES:
        parts += [f"#### {title}", "", *_table(_rows("", model)), ""]
    parts += ["#### A group of conditions", "", *_table(_group_rows())]
    parts += ["", "### A result profile", ""]
    for title, model in PROFILE_TABLES:
        parts += [f"#### {title}", "", *_table(_rows("", model)), ""]
    return "\n".join(parts).rstrip("\n") + "\n"


def put_into(text: str) -> str:
    """Return a text with the reference between its markers.

    Raises:
        MarkersError: a marker is missing.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise MarkersError(f"{BEGIN} and {END} must both be there")
    return f"{before}{BEGIN}\n\n{render()}\n{END}{after}"


def main() -> None:
    """Print the reference, or write it into a file."""
    parser = argparse.ArgumentParser(description="Write the configuration reference.")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put it between the markers")
    chosen = parser.parse_args()
    if chosen.write is None:
        sys.stdout.write(render())
        return
    text = chosen.write.read_text(encoding="utf-8")
    chosen.write.write_text(put_into(text), encoding="utf-8")


# ---------------------------------------------------------------- what there is


def _listeners() -> dict[str, type[BaseModel]]:
    found = discover(node.listeners, Listener)  # type: ignore[type-abstract]  # a plugin base
    return {name: kind.settings_type for name, kind in found.items()}


def _targets() -> dict[str, type[BaseModel]]:
    found = discover(node.delivery, DeliveryTarget)  # type: ignore[type-abstract]  # a plugin base
    return {name: kind.settings_type for name, kind in found.items()}


def _plugin_tables(title: str, types: Mapping[str, type[BaseModel]]) -> Iterator[str]:
    for name, model in types.items():
        yield f"#### {title.format(name)}"
        yield ""
        yield from _table(_settings_rows("", model))
        yield ""


# ---------------------------------------------------------------- rows


Row = tuple[str, str, str, str]


def _settings_rows(prefix: str, model: type[BaseModel]) -> Iterator[Row]:
    """Yield a row for each key; tables inside are opened."""
    for name, field in model.model_fields.items():
        key = f"{prefix}{field.alias or name}"
        inner = list(nested_models(field.annotation))
        if not inner:
            yield _row(key, field)
        elif isinstance(field.annotation, type):
            yield from _settings_rows(f"{key}.", inner[0])
        elif get_origin(field.annotation) in {Union, UnionType}:
            yield _row(key, field)
            yield from _settings_rows(f"{key}.", inner[0])
        else:
            yield _row(f"{key}[]", field)
            yield from _settings_rows(f"{key}[].", inner[0])


def _rows(prefix: str, model: type[BaseModel]) -> Iterator[Row]:
    for name, field in model.model_fields.items():
        yield _row(f"{prefix}{field.alias or name}", field)


def _group_rows() -> Iterator[Row]:
    for model in (All, Any, Nothing):
        yield from _rows("", model)


def _row(key: str, field: FieldInfo) -> Row:
    kind = _worded(field.annotation) + _bounds(field.metadata)
    return (f"`{key}`", kind, _default(field), field.description or "")


def _table(rows: Iterator[Row]) -> Iterator[str]:
    yield "| key | type | default | meaning |"
    yield "|---|---|---|---|"
    for row in rows:
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.default
    if value is None or value in ((), "", {}) or isinstance(value, BaseModel):
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return "`[" + ", ".join(f'"{item}"' for item in value) + "]`"
    if isinstance(value, time):
        return f'`"{value:%H:%M}"`'
    return f'`"{value}"`' if isinstance(value, str | Path) else f"`{value}`"


def _bounds(metadata: Iterable[object]) -> str:
    found = [
        shown.format(getattr(item, name))
        for item in metadata
        for name, shown in BOUNDS
        if getattr(item, name, None) is not None
    ]
    return f" {', '.join(found)}" if found else ""


# ---------------------------------------------------------------- types in words


def _worded(annotation: object) -> str:
    if annotation in WORDS:
        return WORDS[annotation]
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _worded(inner[0]) + _bounds(inner[1:])
    if origin is Literal:
        return ", ".join(f'`"{item}"`' for item in inner)
    if origin is tuple:
        return f"list of {_plural(_worded(inner[0]))}"
    if origin in {Union, UnionType}:
        return " or ".join(_worded(item) for item in inner if item is not NoneType)
    return "table"


def _plural(word: str) -> str:
    return f"{word}s" if word in {"condition", "path", "table", "text"} else word


if __name__ == "__main__":
    main()
