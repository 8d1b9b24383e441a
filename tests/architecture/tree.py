"""The source tree as data, for the tests that hold the house rules against it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
PACKAGES: Final = ("node", "engines", "storage")


@dataclass(frozen=True)
class SourceFile:
    """One Python file. `path` is relative to the root of the repository."""

    path: Path

    @property
    def module(self) -> str:
        """Return the dotted name by which it is imported."""
        parts = self.path.with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    @cached_property
    def text(self) -> str:
        """Return its text."""
        return (ROOT / self.path).read_text(encoding="utf-8")

    @cached_property
    def syntax(self) -> ast.Module:
        """Return its syntax tree."""
        return ast.parse(self.text, filename=str(self.path))

    def at(self, node: ast.expr | ast.stmt) -> str:
        """Name a place in it, as editors understand: `node/worker.py:12`."""
        return f"{self.path}:{node.lineno}"


def source_files(*folders: str) -> Iterator[SourceFile]:
    """Yield the Python files below these folders, sorted."""
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if "__pycache__" not in path.parts:
                yield SourceFile(path.relative_to(ROOT))


def dotted(expression: ast.expr) -> str:
    """Return `a.b.c` for such an expression, and nothing for any other."""
    if isinstance(expression, ast.Name):
        return expression.id
    if isinstance(expression, ast.Attribute):
        before = dotted(expression.value)
        return f"{before}.{expression.attr}" if before else ""
    return ""


def names_used(source: SourceFile) -> Iterator[tuple[str, ast.expr]]:
    """Yield what a file refers to by its full name, following its own imports.

    After `from time import time as now`, `now` is `time.time`; after `import datetime as dt`,
    `dt.datetime.now` is `datetime.datetime.now`.
    """
    origin = dict(_imported(source.syntax))
    for node in ast.walk(source.syntax):
        if isinstance(node, ast.Name | ast.Attribute):
            first, _, rest = dotted(node).partition(".")
            if first in origin:
                yield (f"{origin[first]}.{rest}" if rest else origin[first]), node


def _imported(syntax: ast.Module) -> Iterator[tuple[str, str]]:
    for node in ast.walk(syntax):
        if isinstance(node, ast.Import):
            for alias in node.names:
                bound = alias.asname or alias.name.partition(".")[0]
                yield bound, alias.name if alias.asname else bound
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                yield alias.asname or alias.name, f"{node.module}.{alias.name}"
