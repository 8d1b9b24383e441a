"""Finding plugins: one class a file, and a clear word where it is not so."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import pytest

from node.plugins import PluginError, discover


class Animal(ABC):
    name: ClassVar[str]

    @abstractmethod
    def sound(self) -> str: ...


CAT = """
from tests.node.test_plugins import Animal
class Cat(Animal):
    name = "cat"
    def sound(self): return "meow"
"""


@pytest.fixture
def package(tmp_path: Path) -> Iterator[ModuleType]:
    folder = tmp_path / "animals_under_test"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    sys.path.insert(0, str(tmp_path))
    import importlib

    importlib.invalidate_caches()
    yield importlib.import_module("animals_under_test")
    sys.path.remove(str(tmp_path))
    for name in [name for name in sys.modules if name.startswith("animals_under_test")]:
        del sys.modules[name]


def put(package: ModuleType, name: str, text: str) -> None:
    (Path(package.__path__[0]) / name).write_text(text)


def found(package: ModuleType) -> list[str]:
    return sorted(discover(package, Animal))  # type: ignore[type-abstract]  # a plugin base


def test_one_class_a_file_is_found_and_private_files_are_passed_over(package: ModuleType) -> None:
    put(package, "cat.py", CAT)
    put(package, "_shared.py", "broken = ")
    assert found(package) == ["cat"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        CAT + CAT.replace("Cat", "Lion").replace('"cat"', '"lion"'),
        CAT.replace('"cat"', '""'),
        "import no_such",
    ],
)
def test_file_with_none_or_two_or_a_failing_import_is_named(text: str, package: ModuleType) -> None:
    put(package, "pet.py", text)
    with pytest.raises(PluginError, match=r"animals_under_test\.pet"):
        found(package)


def test_two_files_with_the_same_name_are_refused(package: ModuleType) -> None:
    put(package, "cat.py", CAT)
    put(package, "tom.py", CAT)
    with pytest.raises(PluginError, match="taken"):
        found(package)
