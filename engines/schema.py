"""The JSON Schema of `engine.toml`, made of the types that read it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import JsonValue, create_model
from pydantic.json_schema import models_json_schema

from engines.base import Task, discover
from engines.manifest import Manifest

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def package_schema() -> dict[str, JsonValue]:
    """Return the schema of `engine.toml`: one shape for each kind of task."""
    tasks = discover("tasks", Task)  # type: ignore[type-abstract]  # a plugin base is abstract
    shapes = [
        create_model(
            f"Engine_{name}",
            __base__=Manifest,
            **_fields(name, task),
        )
        for name, task in sorted(tasks.items())
    ]
    references, definitions = models_json_schema(
        [(shape, "validation") for shape in shapes], ref_template="#/$defs/{model}"
    )
    return {
        "$schema": DIALECT,
        "title": "engine.toml of a wetread engine package",
        "oneOf": [references[(shape, "validation")] for shape in shapes],
        **definitions,
    }


def _fields(name: str, task: type[Task]) -> dict[str, Any]:
    """Return the fields that one kind of task adds: its name, and its table."""
    return {"task": (Literal[name], ...), name: (task.settings_type, ...)}
