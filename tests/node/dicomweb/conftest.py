from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.node.dicomweb.planted import PlantedWeb


@pytest.fixture
def web(tmp_path: Path) -> Iterator[PlantedWeb]:
    planted = PlantedWeb(tmp_path)
    yield planted
    planted.close()
