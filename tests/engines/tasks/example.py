"""Something to run each kind of task on: `examples/<task>.py` makes it, one file for each."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from engines.package import EnginePackage


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """An engine package of a kind of task, and the files of a series that it finds something in."""

    package: EnginePackage
    files: tuple[Path, ...]


def make_example(task: str, folder: Path) -> Example:
    """Make the example of a kind of task, in an empty folder."""
    name = f"tests.engines.tasks.examples.{task}"
    if not (Path(__file__).parent / "examples" / f"{task}.py").is_file():
        raise AssertionError(f"there is no {name}: nothing shows what {task} does")
    return cast("Example", importlib.import_module(name).example(folder))
