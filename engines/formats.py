"""What a format of models is that says itself how its net is run, and what is read from one."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

from pydantic import JsonValue

from engines.base import discover
from engines.errors import PackageError
from engines.graphs import read_graph

PICKLES: Final = (".ts", ".pt", ".pth", ".pt2", ".ckpt")
"""Kinds of files in which weights are pickles, or may be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What a format says: its ONNX file, its kind of task, and tables of `engine.toml`.

    `tables` are by their path below the table of the task: "recipe.preprocessing".
    """

    model: Path
    task: str
    tables: Mapping[str, Mapping[str, JsonValue]]


class Format(ABC):
    """A folder with a model and how it is run. One file in `engines/imports/`, one class."""

    name: ClassVar[str]

    @abstractmethod
    def recognises(self, folder: Path) -> bool:
        """Say whether a folder is of this format."""

    @abstractmethod
    def read(self, folder: Path, answers: Mapping[str, JsonValue]) -> Imported:
        """Read how the net is run; `answers` are the engine.toml that no such folder holds.

        Raises:
            PackageError: naming what cannot be carried over; nothing is dropped.
        """


def find_format(path: Path) -> Format | None:
    """Return the format of a folder; None for a single file, or a folder of ONNX files alone."""
    if not path.is_dir():
        return None
    found = discover("imports", Format)  # type: ignore[type-abstract]  # a plugin base is abstract
    return next((kind() for kind in found.values() if kind().recognises(path)), None)


def read_json(path: Path) -> Mapping[str, JsonValue]:
    """Read a file that holds one JSON object.

    Raises:
        PackageError: it does not.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise PackageError(f"{path.name}: {error}") from error
    if not isinstance(found, dict):
        raise PackageError(f"{path.name}: is no JSON object")
    return found


def only_model(folder: Path, advice: str) -> Path:
    """Return the one ONNX file below a folder.

    Raises:
        PackageError: there is none, or there are several; pickles are named, with the advice.
    """
    found = sorted(folder.rglob("*.onnx"))
    if len(found) > 1:
        raise PackageError(f"{folder.name}: {len(found)} ONNX files; one is the model")
    if not found:
        pickles = sorted(path.name for path in folder.rglob("*") if path.suffix in PICKLES)
        rest = f"; {', '.join(pickles)} may hold pickles, which are never opened" * bool(pickles)
        raise PackageError(f"{folder.name}: no ONNX file{rest}: {advice}")
    return found[0]


def tensor_names(model: Path) -> tuple[str, str]:
    """Return the one input and the one output of a model.

    Raises:
        PackageError: it has several.
        ModelInvalidError: it is no ONNX.
    """
    graph = read_graph(model.read_bytes())
    inputs = [item.name for item in graph.inputs]
    if len(inputs) != 1 or len(graph.outputs) != 1:
        raise PackageError(f"{model.name}: not one input and one output: {inputs}, {graph.outputs}")
    return inputs[0], graph.outputs[0]


def said_segments(answers: Mapping[str, JsonValue]) -> dict[int, Mapping[str, JsonValue]]:
    """Return the segments of the answers by their value."""
    task = answers.get("segmentation")
    segments = task.get("segments") if isinstance(task, dict) else None
    found: dict[int, Mapping[str, JsonValue]] = {}
    for item in segments if isinstance(segments, list) else []:
        if isinstance(item, dict) and isinstance(item.get("value"), int):
            found[int(str(item["value"]))] = item
    return found


def check_labels(answers: Mapping[str, JsonValue], labels: Mapping[int, str], file: str) -> None:
    """Ask for a coded segment for every label but the background, and for no other.

    Raises:
        PackageError: naming the labels that differ.
    """
    wanted = {value: name for value, name in labels.items() if value}
    found = set(said_segments(answers))
    missing = [f"{value} ({name})" for value, name in wanted.items() if value not in found]
    extra = sorted(found - set(wanted))
    if missing:
        raise PackageError(f"segmentation.segments: {file} has {', '.join(missing)} too")
    if extra:
        raise PackageError(f"segmentation.segments: {file} has no label {extra[0]}")
