"""The engine that ships, and a body."""

from __future__ import annotations

from pathlib import Path

from engines.package import load_package, shipped_folder
from tests.engines.tasks.example import Example
from tests.factories import make_ct_series


def example(folder: Path) -> Example:
    files = make_ct_series(folder / "series", slices=5, rows=64, columns=64)
    package = load_package(shipped_folder() / "ct_body_composition")
    return Example(package=package, files=tuple(files))
