"""Makes an engine package of models and the answers that no model holds.

The answers are an `engine.toml` without `[files]`. The golden case is what the kind of task makes
for one, kept with what is known to come out of it, or else with what came out of the new package
once.
"""

from __future__ import annotations

import shutil
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import numpy as np
from pydantic import JsonValue

from engines.base import find_task, open_engine
from engines.errors import EngineError
from engines.formats import Imported, find_format
from engines.manifest import EnginePackage
from engines.package import PackageError, load_package
from engines.packing import toml_value, write_arrays, write_manifest
from engines.quantised import with_plain_biases

KIND: Final = ".onnx"


def import_model(
    model: Path, answers: Path, target: Path, *, known: Path | None = None
) -> EnginePackage:
    """Make the package `target`, which must not exist yet, and read it back.

    `known` is an .npz of what its golden case must give. The model is not run then: whether it
    gives that is for `engines.verify` to say.

    Raises:
        PackageError: the model is of a kind that is not read, the answers are not complete, the
            target exists; nothing is left behind.
        EngineError: the model cannot be loaded or run.
    """
    text, table = _read_answers(answers)
    source = find_format(model)
    if source is None:
        models = _models(model, table)
    else:
        imported = source.read(model, table)
        text, table = _completed(answers.name, text, table, imported)
        models = _checked({_named(table, "model", "file"): imported.model})
    if target.exists():
        raise PackageError(f"{target}: exists already")
    target.mkdir(parents=True)
    try:
        return _filled(target, models, text, table, known)
    except EngineError:
        shutil.rmtree(target)
        raise


def _read_answers(answers: Path) -> tuple[str, Mapping[str, JsonValue]]:
    try:
        text = answers.read_text(encoding="utf-8")
        table: Mapping[str, JsonValue] = tomllib.loads(text)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise PackageError(f"{answers.name}: {error}") from error
    if "files" in table:
        raise PackageError(f"{answers.name}: [files] is written by the import, not answered")
    return text, table


def _completed(
    name: str, text: str, table: Mapping[str, JsonValue], imported: Imported
) -> tuple[str, Mapping[str, JsonValue]]:
    """Add to the answers what a format says itself, and read them again.

    Raises:
        PackageError: both say it, or the answers are for another kind of task.
    """
    if table.get("task") != imported.task:
        raise PackageError(f"task: what is imported is a {imported.task}")
    task = table.get(imported.task)
    if not isinstance(task, dict):
        raise PackageError(f"{name}: {imported.task}: the table of the task is missing")
    for key in imported.tables:
        if _holds(task, key):
            raise PackageError(f"{name}: {imported.task}.{key}: is read from what is imported")
    lines = [
        f"\n[{imported.task}.{key}]\n"
        + "".join(f"{item} = {toml_value(value)}\n" for item, value in values.items())
        for key, values in imported.tables.items()
    ]
    whole = f"{text.rstrip()}\n{''.join(lines)}"
    completed: Mapping[str, JsonValue] = tomllib.loads(whole)
    return whole, completed


def _holds(table: Mapping[str, JsonValue], path: str) -> bool:
    found: JsonValue = dict(table)
    for key in path.split("."):
        if not isinstance(found, dict) or key not in found:
            return False
        found = found[key]
    return True


def _models(model: Path, table: Mapping[str, JsonValue]) -> dict[str, Path]:
    """Return where the files of `[model]` come from: one file, or a folder with all of them."""
    names = [_named(table, "model", "file"), *_parts(table)]
    if len(names) > 1 and not model.is_dir():
        raise PackageError(f"{model.name}: model.parts needs the folder that holds all models")
    return _checked({name: model / Path(name).name if model.is_dir() else model for name in names})


def _checked(found: dict[str, Path]) -> dict[str, Path]:
    for name, path in found.items():
        if path.suffix != KIND:
            raise PackageError(
                f"{path.name}: models are read from {KIND} files only, never pickles"
            )
        if not path.is_file():
            raise PackageError(f"{path}: no such file")
        if not path.stat().st_size:
            raise PackageError(f"{path.name}: is empty")
        if Path(name).suffix != path.suffix:
            raise PackageError(f"model.file: {name} is not of the kind of {path.name}")
    return found


def _parts(table: Mapping[str, JsonValue]) -> Iterator[str]:
    """Yield the names of the other models, which must stay inside the package."""
    section = table["model"]
    parts = section.get("parts") if isinstance(section, dict) else None
    for key, part in parts.items() if isinstance(parts, dict) else ():
        yield _inside(
            f"model.parts.{key}.file", part.get("file") if isinstance(part, dict) else None
        )


def _filled(
    target: Path,
    models: Mapping[str, Path],
    text: str,
    table: Mapping[str, JsonValue],
    known: Path | None,
) -> EnginePackage:
    inputs, expected = _named(table, "golden", "inputs"), _named(table, "golden", "expected")
    files = (*models, inputs, expected)
    for file in files:
        (target / file).parent.mkdir(parents=True, exist_ok=True)
    for name, model in models.items():
        (target / name).write_bytes(with_plain_biases(model.read_bytes()))
    arrays = find_task(str(table.get("task"))).golden_inputs()
    write_arrays(target / inputs, arrays)
    if known is not None:
        shutil.copyfile(known, target / expected)
        write_manifest(target, text, files)
        return load_package(target)
    write_arrays(target / expected, {"nothing": np.zeros(1, np.uint8)})
    write_manifest(target, text, files)
    package = load_package(target)
    with open_engine(package) as engine:
        write_arrays(target / expected, engine.task.compute(package, engine.session, arrays))
    write_manifest(target, text, files)
    return load_package(target)


def _named(table: Mapping[str, JsonValue], section: str, key: str) -> str:
    """Return the name of a file of the package, which must stay inside it."""
    part = table.get(section)
    return _inside(f"{section}.{key}", part.get(key) if isinstance(part, dict) else None)


def _inside(where: str, name: JsonValue) -> str:
    if not isinstance(name, str) or not name:
        raise PackageError(f"{where}: is missing")
    path = Path(name)
    if path.is_absolute() or ".." in path.parts:
        raise PackageError(f"{where}: {name} leaves the folder of the package")
    return name
