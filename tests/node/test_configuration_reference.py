"""The reference in README.md is what the generator makes of today's settings types."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.places import README, REFERENCE_GENERATOR

WRITE = "python deploy/docs/configuration_reference.py --write README.md"


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("configuration_reference", REFERENCE_GENERATOR)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_in_the_readme_is_up_to_date(generator: ModuleType) -> None:
    text = README.read_text(encoding="utf-8")
    if generator.put_into(text) != text:
        pytest.fail(f"the configuration reference in README.md is out of date; run: {WRITE}")


@pytest.mark.parametrize(
    "row",
    [
        '| `node.name` | text ≤ 16 characters | `"WETREAD"` | '
        "Station name in results (SH, 16); each node that shares a database has its own. |",
        "| `completion.quiet[].seconds` | number > 0 | required | Quiet time in seconds. |",
        "| `admin.enabled` | true or false | `true` | Serve them. |",
        "#### `[listeners.dimse]`",
        "| `peers[].addresses` | list of texts | none | IP addresses it may come from; empty:",
        '#### `[destinations.NAME]` with `kind = "folder"`',
        '| `priority` | `"stat"`, `"urgent"`, `"routine"`, `"background"` | `"routine"` |',
        "| `quiet_seconds` | number > 0 | none | A longer quiet time",
        '| `from` | time of day | `"00:00"` | Local time, included. |',
        "| `all` | list of conditions | required | Conditions that must all hold. |",
    ],
)
def test_each_kind_of_key_has_its_row(generator: ModuleType, row: str) -> None:
    assert row in generator.render()


def test_every_key_says_what_it_means(generator: ModuleType) -> None:
    rows = [line for line in generator.render().splitlines() if line.startswith("| `")]
    assert len(rows) > 70
    assert [row for row in rows if row.endswith("|  |")] == []


def test_only_what_is_between_the_markers_is_written(generator: ModuleType) -> None:
    old = f"before\n{generator.BEGIN}\nold\n{generator.END}\nafter\n"
    new = generator.put_into(old)
    assert new.startswith("before\n")
    assert new.endswith("\nafter\n")
    assert "old" not in new.splitlines()
    assert generator.put_into(new) == new


@pytest.mark.parametrize("text", ["", "BEGIN", "END", "END BEGIN"])
def test_a_file_without_both_markers_is_refused(generator: ModuleType, text: str) -> None:
    text = text.replace("BEGIN", generator.BEGIN).replace("END", generator.END)
    with pytest.raises(generator.MarkersError):
        generator.put_into(text)


def test_the_program_writes_into_a_file(generator: ModuleType, tmp_path: Path) -> None:
    file = tmp_path / "README.md"
    file.write_text(f"a\n{generator.BEGIN}\n{generator.END}\nb\n", encoding="utf-8")
    program = [sys.executable, str(REFERENCE_GENERATOR)]
    subprocess.run([*program, "--write", str(file)], check=True, cwd=tmp_path)
    assert generator.render() in file.read_text(encoding="utf-8")
    printed = subprocess.run(program, check=True, cwd=tmp_path, capture_output=True, text=True)
    assert printed.stdout == generator.render()
