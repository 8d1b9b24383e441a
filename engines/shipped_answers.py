"""Answers that ship without the models they are for, and where the weights of those may lie.

Each is a folder with an `engine.toml` for `engines.importing`, and beside it the file that its
`[golden]` calls `expected`: what the model is known to make of the phantom.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from engines.importing import import_model
from engines.manifest import EnginePackage, GoldenTable, ModelTable, Table
from engines.package import PackageError

ANSWERS: Final = "engine.toml"


class _Asked(Table):
    """What is read of the answers here; the import reads all of it."""

    model: ModelTable
    golden: GoldenTable


def find_answers(folder: Path) -> list[Path]:
    """Return the answers in the folders of a folder.

    Raises:
        PackageError: there are none.
    """
    found = sorted(folder.glob(f"*/{ANSWERS}"))
    if not found:
        raise PackageError(f"{folder}: holds no folder with an {ANSWERS}")
    return found


def model_files(answers: Path) -> tuple[str, ...]:
    """Return the names of the model files that answers ask for."""
    return _read(answers).model.files


def find_weights(answers: Path, models: Path) -> Path | None:
    """Return where the models for answers lie: one file, or the folder that holds all of them.

    That is the folder of the same name under `models`, or else the only one with these files.

    Raises:
        PackageError: several folders have them.
    """
    names = model_files(answers)
    found = list(_holding(names, [models / answers.parent.name]))
    if not found and models.is_dir():
        found = list(_holding(names, sorted(models.iterdir())))
    if len(found) > 1:
        raise PackageError(f"{names[0]}: is in {' and in '.join(path.name for path in found)}")
    if not found:
        return None
    return found[0] if len(names) > 1 else found[0] / names[0]


def import_shipped(answers: Path, weights: Path, target: Path) -> EnginePackage:
    """Make a package of shipped answers, with their own golden case; see `import_model`.

    Raises:
        PackageError: there is no answer to the golden case, or the import refuses.
    """
    known = answers.parent / _read(answers).golden.expected
    if not known.is_file():
        raise PackageError(f"{known}: is missing, so nobody knows what the model must give")
    return import_model(weights, answers, target, known=known)


def _holding(names: tuple[str, ...], folders: list[Path]) -> Iterator[Path]:
    for folder in folders:
        if all((folder / name).is_file() for name in names):
            yield folder


def _read(answers: Path) -> _Asked:
    try:
        table = tomllib.loads(answers.read_text(encoding="utf-8"))
        asked = {key: table.get(key) for key in _Asked.model_fields}
        return _Asked.model_validate_json(json.dumps(asked))
    except (OSError, TypeError, ValueError) as error:  # ValueError: what TOML and tables raise
        raise PackageError(f"{answers}: {error}") from error
