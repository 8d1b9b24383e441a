"""Requirements on listener, images and results are named by a test, or a line says why not."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from typing import Final

import pytest

from tests.architecture.tree import SourceFile, source_files
from tests.places import STATEMENT

ATTACKS: Final = tuple(f"T{number:02}" for number in range(1, 20))
"""What a stranger may do to the port, and data sets that are not what they say."""
NETWORK: Final = tuple(f"NET-{number:02}" for number in (*range(1, 7), *range(10, 20), 43))
"""Contexts, transfer syntaxes, own results; association; move originator."""
STATUSES: Final = (
    "0x0000", "0xB000", "0xB006", "0xB007", "0xA700", "0xA900", "0xC000",
    "0x0117", "0x0122", "0x0124", "0x0210", "0x0211", "0x0212",
)  # fmt: skip
"""What a C-STORE may be answered with (PS3.4 table B.2-1, PS3.7 9.1.1.1.9)."""
IMAGES: Final = (
    *(f"GEO-{number:02}" for number in range(1, 15)),
    *(f"PIX-{number:02}" for number in range(1, 13)),
    *(f"WSM-{number:02}" for number in range(1, 6)),
)
"""Where voxels lie, what pixels mean, and tiled images of slides."""
IDENTITY: Final = tuple(f"UID-{number:02}" for number in range(1, 9))
"""Identity of results, re-runs, and what supersedes or withdraws them."""
RESULTS: Final = (
    *(f"OBJ-{number:02}" for number in range(1, 23)),
    *(f"SEG-{number:02}" for number in range(1, 14)),
    *(f"SR-{number:02}" for number in range(1, 9)),
    *("PR-01", "SC-01", "KO-01", "PM-01"),
)
"""What result objects have in common; segmentations, reports, marks, pictures, maps."""
SHOWN: Final = (
    *(f"VIEW-{number:02}" for number in range(1, 5)),
    *(f"VAL-{number:02}" for number in range(1, 17)),
)
"""What each destination can show, and what validators say."""
PROFILES: Final = tuple(f"AIR-{number:02}" for number in range(1, 12))
"""What an Evidence Creator does (IHE AI Results)."""
REQUIRED: Final = (*ATTACKS, *NETWORK, *STATUSES, *IMAGES, *IDENTITY, *RESULTS, *SHOWN, *PROFILES)
FAMILIES: Final = "NET|GEO|PIX|WSM|UID|OBJ|SEG|SR|PR|SC|KO|PM|VIEW|VAL|AIR"
NAME: Final = re.compile(rf"\b(?:T[0-9]{{2}}|(?:{FAMILIES})-[0-9]{{2}}|0x[0-9A-F]{{4}})\b")
IN_A_NAME: Final = re.compile(rf"_({FAMILIES.lower()})_([0-9]{{2}})(?=_)")
IN_PART: Final = " (in part)"
HEADING: Final = "## 8. What is not there, and why"


@cache
def named_by_tests() -> frozenset[str]:
    """Return the ids in names and docstrings of test functions; those of modules name ranges.

    Statuses count in tests of the listener alone: elsewhere they are those of other peers.
    """
    found: set[str] = set()
    for source in source_files("tests"):
        ours = "end_to_end" in source.path.parts or "listeners" in source.path.parts
        names = set(_names_in(source))
        found |= names if ours else {name for name in names if not name.startswith("0x")}
    return frozenset(found)


def _names_in(source: SourceFile) -> Iterator[str]:
    for node in ast.walk(source.syntax):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            yield from NAME.findall(ast.get_docstring(node) or "")
            yield from (f"{kind.upper()}-{number}" for kind, number in IN_A_NAME.findall(node.name))


def told_why_not() -> dict[str, str]:
    """Return the ids in the statement's table of what is not there; each line has a reason."""
    _, _, behind = STATEMENT.read_text(encoding="utf-8").partition(HEADING)
    rows = re.findall(r"(?m)^\| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", behind)
    return {name: reason for name, _, reason in rows if len(reason.split()) > 2}


@pytest.mark.parametrize("requirement", REQUIRED)
def test_every_requirement_has_a_test_or_a_reason(requirement: str) -> None:
    if requirement not in named_by_tests() | told_why_not().keys():
        pytest.fail(f"no test names {requirement} in its docstring, and {STATEMENT.name} no reason")


def test_a_reason_stands_only_for_what_no_test_names() -> None:
    """What is done in part has both: its test says what, its line, so marked, what is not."""
    told, named = told_why_not(), named_by_tests()
    assert [name for name in told if name in named & {*REQUIRED} - {*STATUSES}] == []
    in_part = {name.removesuffix(IN_PART) for name in told if name.endswith(IN_PART)}
    assert sorted(in_part - named) == []
