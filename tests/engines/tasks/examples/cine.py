"""A net that finds what is bright, and a cavity that is smaller at its second phase."""

from __future__ import annotations

from pathlib import Path

from engines.importing import import_model
from tests.engines.tasks.example import Example
from tests.engines.tasks.test_cine import ANSWERS, DIASTOLE, SYSTOLE, bright_net, cine


def example(folder: Path) -> Example:
    package = import_model(bright_net(folder / "net.onnx"), ANSWERS, folder / "package")
    return Example(package=package, files=tuple(cine(folder / "series", [DIASTOLE, SYSTOLE])))
