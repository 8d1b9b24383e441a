from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engines.base import Engine, open_engine
from engines.package import EnginePackage, load_package, shipped_folder

SHARED = Path(__file__).resolve().parents[3] / "shared"


@pytest.fixture(scope="session")
def package() -> EnginePackage:
    return load_package(shipped_folder() / "ct_body_composition")


@pytest.fixture(scope="session")
def engine(package: EnginePackage) -> Iterator[Engine]:
    with open_engine(package, threads=2) as opened:
        yield opened


@pytest.fixture(scope="session")
def shared() -> Callable[[str], Path]:
    """Return a path below ../shared; where it is absent the test is named as not run."""

    def find(name: str) -> Path:
        path = SHARED / name
        if not path.exists():
            pytest.skip(f"NOT RUN: ../shared/{name} is not on this machine")
        return path

    return find


@pytest.fixture(scope="session")
def shared_data(shared: Callable[[str], Path]) -> Callable[[str], Path]:
    """Return a path below ../shared/data; where it is absent the test is named as not run."""
    return lambda name: shared(f"data/{name}")
