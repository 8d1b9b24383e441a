"""A net that sees how bright an image is, and a bright and a dark radiograph."""

from __future__ import annotations

from pathlib import Path

from engines.importing import import_model
from tests.engines.tasks.example import Example
from tests.engines.tasks.test_classification import ANSWERS, bright, brightness_net, dark
from tests.radiographs import make_radiograph


def example(folder: Path) -> Example:
    files = [
        make_radiograph(folder / f"{change.__name__}.dcm", modify=change)
        for change in (bright, dark)
    ]
    package = import_model(brightness_net(folder / "net.onnx"), ANSWERS, folder / "package")
    return Example(package=package, files=tuple(files))
