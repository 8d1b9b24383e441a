"""A draft of `engine.toml` for a kind of task, made of the types that read it.

What must be said stands with an empty value and what it is; what may be said stands behind a `#`
with what is taken where it is not.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeAlias

from engines.base import find_task
from engines.manifest import Manifest
from engines.packing import toml_value

Schema: TypeAlias = Mapping[str, Any]
WRITTEN_BY_IMPORT: Final = frozenset({"files"})
BY_IMPORT: Final[Mapping[str, str]] = {
    "golden.inputs": '"golden/inputs.npz"  # written by the import',
    "golden.expected": '"golden/expected.npz"  # written by the import',
    "golden.tolerance": "0.001  # number",
}
"""Values that stand in a draft: there is no reason to choose others."""
EMPTY: Final = {"string": '""', "number": "0.0", "integer": "0", "boolean": "false", "array": "[]"}
DEEPEST: Final = 6
HEAD: Final = """\
# What an engine package says; fill in every "" and 0, then:
#   wetread engines import MODEL --answers THIS_FILE --to FOLDER
# Lines behind a # may be left out. Every key is explained by `wetread engines schema`.
"""


def draft(task: str) -> str:
    """Return the text of a draft.

    Raises:
        PackageError: there is no such kind of task; the message lists those that are.
    """
    found = find_task(task)
    own = found.settings_type.model_json_schema()
    general = Manifest.model_json_schema()
    lines = [*_table(general, general, "", optional=False)]
    lines = [f'task = "{task}"' if line.startswith("task = ") else line for line in lines]
    settings = _table(own, own, found.name, optional=False)
    return "\n".join([HEAD, *lines, "", f"[{found.name}]", *settings]) + "\n"


def _table(schema: Schema, root: Schema, path: str, *, optional: bool) -> Iterator[str]:
    """Yield the lines of a table: first its values, then the tables below it."""
    required = set(schema.get("required", ()))
    below = []
    for key, value in schema.get("properties", {}).items():
        if not path and key in WRITTEN_BY_IMPORT:
            continue
        wanted = _resolved(value, root)
        aside = optional or key not in required
        if _is_table(wanted) or _is_table(_resolved(wanted.get("items", {}), root)):
            below.append((f"{path}.{key}" if path else key, wanted, aside))
        else:
            filled = BY_IMPORT.get(f"{path}.{key}")
            yield f"{key} = {filled}" if filled else _value(key, value, wanted, aside=aside)
    for name, wanted, aside in below:
        yield from _below(name, wanted, root, aside=aside)


def _below(name: str, wanted: Schema, root: Schema, *, aside: bool) -> Iterator[str]:
    """Yield a table below another, or one of a list of them, with its header."""
    many = not _is_table(wanted)
    inner = _resolved(wanted["items"], root) if many else wanted
    mark = "# " if aside else ""
    yield ""
    yield f"{mark}[[{name}]]" if many else f"{mark}[{name}]"
    if name.count(".") < DEEPEST:
        yield from _table(inner, root, name, optional=aside)


def _value(key: str, value: Schema, wanted: Schema, *, aside: bool) -> str:
    kind = wanted.get("type", "")
    if "enum" in wanted or "const" in wanted:
        choices = [str(item) for item in wanted.get("enum", [wanted.get("const")])]
        kind = f"one of {', '.join(choices)}"
    filled = value.get("default", wanted.get("default"))
    text = EMPTY.get(str(wanted.get("type", "string")), '""')
    if filled is not None:
        text = toml_value(json.loads(json.dumps(filled)))
    return f"{'# ' if aside else ''}{key} = {text}  # {kind or 'text'}"


def _is_table(schema: Schema) -> bool:
    return schema.get("type") == "object" and "properties" in schema


def _resolved(schema: Schema, root: Schema) -> Schema:
    """Follow a reference; of several shapes take the first that is not null."""
    if "$ref" in schema:
        name = str(schema["$ref"]).rpartition("/")[2]
        return _resolved(root["$defs"][name], root)
    for choice in schema.get("anyOf", ()):
        if choice.get("type") != "null":
            return _resolved(choice, root)
    return schema
