"""Three nets that find what is bright where the template says, and a bright box."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from engines.importing import import_model
from tests.engines.tasks.example import Example
from tests.engines.tasks.test_localisation import answers, nets, series


def example(folder: Path) -> Example:
    models = nets(folder / "nets", np.eye(4))
    package = import_model(models, answers(folder / "answers.toml"), folder / "package")
    return Example(package=package, files=tuple(series(folder / "series")))
