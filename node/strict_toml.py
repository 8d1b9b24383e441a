"""TOML against a type, strictly: a wrong key is named by its path as it stands in the file."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

ModelT = TypeVar("ModelT", bound=BaseModel)
Location = tuple[str | int, ...]

BRANCH: Final = "#"
"""Tags of a union's branches begin with this: they are no keys, and stay out of key paths."""
MOST_PROBLEMS: Final = 10
NAMES_A_KEY: Final = frozenset({"missing", "value_error"})  # even one that is not in the file
MUST_BE: Final = "must be "
OPENING: Final = re.compile(r"^(Input|String|Tuple|Dictionary|Value) should ")
WANTED: Final[Mapping[str, str]] = {
    "string_type": "text",
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a table",
    "model_type": "a table",
}


class TableError(Exception):
    """The text is no TOML, or not the TOML that is wanted; the message names the key path."""


def read_toml(text: str) -> dict[str, object]:
    """Read TOML.

    Raises:
        TableError: naming the line and column.
    """
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise TableError("not TOML that can be read: nested too deeply") from error
    except ValueError as error:  # TOMLDecodeError is one; a number too long is another
        raise TableError(f"not TOML: {error}") from error


def check_table(raw: Mapping[str, object], kind: type[ModelT], key_path: str = "") -> ModelT:
    """Check a table against a type: no unknown key, no text where a number belongs.

    `key_path` is where the table stands in its file.

    Raises:
        TableError: each wrong key with its path, what is wrong with it, and what is allowed.
    """
    # JSON is the strict mode in which lists may become tuples, and texts become paths.
    text = json.dumps(dict(raw), default=str)
    try:
        return kind.model_validate_json(text, strict=True)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False)
        raise TableError(_worded(problems, raw, kind, key_path)) from error


def nested_models(annotation: object) -> Iterator[type[BaseModel]]:
    """Yield the models inside an annotation, however wrapped: optional, list, table, union."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from nested_models(inner)


def keys_of(model: type[BaseModel]) -> list[str]:
    """Return the keys of a model as they are written."""
    return [field.alias or name for name, field in model.model_fields.items()]


def _worded(
    problems: Sequence[ErrorDetails],
    raw: Mapping[str, object],
    kind: type[BaseModel],
    key_path: str,
) -> str:
    words: dict[str, list[str]] = {}
    for item in problems:
        path = _path(item, raw, key_path)
        words.setdefault(path, []).append(_reason(item, kind))
    lines = [
        f"{path or 'the file'}: {_joined_reasons(found)}"
        for path, found in words.items()
        if not _only_follows(path, words)
    ]
    more = len(lines) - MOST_PROBLEMS
    return "; ".join(lines[:MOST_PROBLEMS]) + (f"; and {more} more" if more > 0 else "")


def _only_follows(path: str, paths: Collection[str]) -> bool:
    """Say whether something inside is wrong, too: that is the cause, and is told."""
    return any(other.startswith(f"{path}[") for other in paths)


def _joined_reasons(reasons: Sequence[str]) -> str:
    """Join the reasons of the branches of a union: `must be text or a number`."""
    return ", or ".join(dict.fromkeys(reasons)).replace(f", or {MUST_BE}", " or ")


def _path(item: ErrorDetails, raw: object, path: str) -> str:
    """Follow a location through the file; what is no key there is a branch of a union."""
    here = raw
    for part in item["loc"]:
        if isinstance(here, list) and isinstance(part, int):
            path, here = f"{path}[{part}]", here[part]
        elif isinstance(here, Mapping) and part in here:
            path, here = _joined(path, str(part)), here[part]
        elif item["type"] in NAMES_A_KEY and not str(part).startswith(BRANCH):
            path = _joined(path, str(part))
    return path


def _joined(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _reason(item: ErrorDetails, kind: type[BaseModel]) -> str:
    if item["type"] == "missing":
        return "is missing"
    if item["type"] == "extra_forbidden":
        known = _known_keys(item["loc"], kind)
        if item["loc"][-1] in known:
            return "cannot stand beside the other keys here"
        return f"is not known here; known are {', '.join(known)}"
    if item["type"] == "too_short":
        return "needs at least one item"
    if item["type"] in WANTED:
        return MUST_BE + WANTED[item["type"]]
    return OPENING.sub("must ", item["msg"].removeprefix("Value error, "))


def _known_keys(location: Location, kind: type[BaseModel]) -> list[str]:
    """Return the keys that a table may have, by walking the types along a location."""
    models = [kind]
    for part in location[:-1]:
        if isinstance(part, int) or part.startswith(BRANCH):
            continue
        inside = [
            inner
            for model in models
            for name, field in model.model_fields.items()
            if part == (field.alias or name)
            for inner in nested_models(field.annotation)
        ]
        models = inside or models  # the key of a table of tables is in no type
    return sorted({key for model in models for key in keys_of(model)})
