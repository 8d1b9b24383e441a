"""The rules of the house that no tool off the shelf knows."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final, TypeAlias

import pytest

from tests.architecture.tree import PACKAGES, ROOT, SourceFile, names_used, source_files

Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef

LONGEST_FUNCTION: Final = 40
LONGEST_MODULE: Final = 400
REASON: Final = re.compile(r"# long:[ ]+\S+")
"""The comment that says why a function is longer; a module's stands at the start of a line."""
MODULE_REASON: Final = re.compile(rf"^{REASON.pattern}", re.MULTILINE)

VAGUE: Final = frozenset(
    {"common", "helper", "helpers", "manager", "managers", "misc", "util", "utils"}
)
WALL_CLOCK: Final = frozenset(
    {
        "datetime.date.today",
        "datetime.datetime.now",
        "datetime.datetime.today",
        "datetime.datetime.utcnow",
        "sqlalchemy.func.current_timestamp",
        "sqlalchemy.func.now",
        "time.ctime",
        "time.gmtime",
        "time.localtime",
        "time.strftime",
        "time.time",
        "time.time_ns",
    }
)
ENVIRONMENT: Final = frozenset({"os.environ", "os.environb", "os.getenv", "os.putenv"})
IMPORT_BY_NAME: Final = frozenset({"importlib.import_module", "importlib.reload"})
READS_FILE_TIMES: Final = "node.listeners.folder"


def _functions(source: SourceFile) -> Iterator[Function]:
    for node in ast.walk(source.syntax):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def _length(function: Function) -> int:
    """Count the lines of a function without its docstring."""
    first = function.lineno
    last = function.end_lineno or first
    documented = ast.get_docstring(function, clean=False) is not None
    docstring = function.body[0]
    lines = (docstring.end_lineno or docstring.lineno) - docstring.lineno + 1
    return last - first + 1 - (lines if documented else 0)


def _says_why(source: SourceFile, function: Function) -> bool:
    lines = source.text.splitlines()[max(function.lineno - 2, 0) : function.end_lineno]
    return any(REASON.search(line) for line in lines)


def _planted(code: str) -> SourceFile:
    source = SourceFile(path=Path("planted.py"))
    vars(source)["text"] = code  # where a cached property keeps its value
    return source


def _uses(names: frozenset[str], allowed: frozenset[str]) -> list[str]:
    """Return where the packages use one of these names, outside the modules that may."""
    return [
        f"{source.at(node)} {name}"
        for source in source_files(*PACKAGES)
        if source.module not in allowed
        for name, node in names_used(source)
        if name in names
    ]


def test_no_function_is_longer_than_forty_lines_without_saying_why() -> None:
    long = [
        f"{source.at(function)} {function.name}: {_length(function)} lines"
        for source in source_files(*PACKAGES, "tests")
        for function in _functions(source)
        if _length(function) > LONGEST_FUNCTION and not _says_why(source, function)
    ]
    assert not long, "\n".join(long)


def test_no_module_is_longer_than_four_hundred_lines_without_saying_why() -> None:
    long = [
        f"{source.path}: {len(source.text.splitlines())} lines"
        for source in source_files(*PACKAGES, "tests")
        if len(source.text.splitlines()) > LONGEST_MODULE and not MODULE_REASON.search(source.text)
    ]
    assert not long, "\n".join(long)


def test_nobody_but_the_clock_reads_the_wall_clock() -> None:
    uses = _uses(WALL_CLOCK, frozenset({"node.clock", READS_FILE_TIMES}))
    assert not uses, "\n".join(uses)


def test_nobody_but_the_settings_reads_the_environment() -> None:
    uses = _uses(ENVIRONMENT, frozenset({"node.settings"}))
    assert not uses, "\n".join(uses)


def test_only_the_two_places_of_discovery_import_by_name() -> None:
    uses = _uses(IMPORT_BY_NAME, frozenset({"node.plugins", "engines.base"}))
    assert not uses, "\n".join(uses)


def test_asyncio_stays_inside_the_admin_page() -> None:
    outside = [
        source.at(function)
        for source in source_files(*PACKAGES)
        if not source.module.startswith("node.admin.")
        for function in _functions(source)
        if isinstance(function, ast.AsyncFunctionDef)
    ]
    assert not outside, "\n".join(outside)


def test_no_module_has_a_name_that_says_nothing() -> None:
    vague = [
        str(source.path)
        for source in source_files(*PACKAGES, "tests")
        if any(VAGUE & set(part.removesuffix(".py").split("_")) for part in source.path.parts)
    ]
    assert not vague, "\n".join(vague)


def test_no_module_shadows_the_configuration_folder() -> None:
    assert [str(s.path) for s in source_files(*PACKAGES) if s.path.name == "config.py"] == []


def test_every_folder_of_code_is_a_package() -> None:
    folders = {ROOT / source.path.parent for source in source_files(*PACKAGES)}
    assert [
        str(folder) for folder in sorted(folders) if not (folder / "__init__.py").is_file()
    ] == []


def test_no_folder_of_tests_is_a_package() -> None:
    assert [str(path) for path in (ROOT / "tests").rglob("__init__.py")] == []


def test_git_ignores_no_file_that_belongs_in_the_wheel() -> None:
    files = [
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    ]
    command = ["git", "check-ignore", "--no-index", "--stdin"]
    answer = subprocess.run(
        command, cwd=ROOT, input="\n".join(files), capture_output=True, text=True, check=False
    )
    assert (answer.returncode, answer.stdout) == (1, ""), answer.stderr


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("import time\ntime.time()", "time.time"),
        ("from time import time as now\nnow()", "time.time"),
        ("import datetime as dt\ndt.datetime.now()", "datetime.datetime.now"),
        ("from datetime import datetime\nread = datetime.now", "datetime.datetime.now"),
        ("from sqlalchemy import func\nfunc.now()", "sqlalchemy.func.now"),
    ],
)
def test_a_reading_of_the_clock_is_seen_under_any_name(code: str, name: str) -> None:
    used = {found for found, _ in names_used(_planted(code))}
    assert name in used & WALL_CLOCK


@pytest.mark.parametrize(
    ("lines", "comment", "is_long", "says_why"),
    [
        (LONGEST_FUNCTION, "", False, False),
        (LONGEST_FUNCTION + 1, "", True, False),
        (LONGEST_FUNCTION + 1, "  # long: a table, one row a line", True, True),
        (LONGEST_FUNCTION + 1, "  # long:", True, False),
    ],
)
def test_a_long_function_is_seen_and_its_reason_too(
    lines: int, comment: str, is_long: bool, says_why: bool
) -> None:
    documented = f'def read() -> None:{comment}\n    """Read.\n\n    Much to say.\n    """\n'
    source = _planted(documented + "    pass\n" * (lines - 1))
    (function,) = _functions(source)
    assert (_length(function) > LONGEST_FUNCTION, _says_why(source, function)) == (
        is_long,
        says_why,
    )
