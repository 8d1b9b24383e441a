"""A net that finds what is dark, and a slide with nuclei."""

from __future__ import annotations

from pathlib import Path

from engines.importing import import_model
from tests.engines.tasks.example import Example
from tests.engines.tasks.test_slide import ANSWERS, dark_net
from tests.slides import make_slide


def example(folder: Path) -> Example:
    answers = folder / "answers.toml"
    answers.write_text(ANSWERS.read_text().replace("least_tissue = 0.01", "least_tissue = 0.001"))
    package = import_model(dark_net(folder / "net.onnx"), answers, folder / "package")
    return Example(package=package, files=(make_slide(folder / "slide.dcm"),))
