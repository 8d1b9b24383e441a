"""The order of the files, and what every test run tells at its end: what it did not run, and why.

Several processes take the files one by one from the front. A long file that came late would keep
one of them at work long after the others are done, so the longest come first.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

import pytest

from node.allocator import keep_memory

_LEFT_OUT: pytest.StashKey[dict[str, int]] = pytest.StashKey()
_TOLD: Final = "tests left out"
LEFT_OUT: Final = {"gpu": "that need a GPU", "long": "that take minutes (make published)"}
"""Why tests are left out of a run, by their marker."""
TESTS: Final = Path(__file__).parent
LONGEST_FIRST: Final = (
    "end_to_end/test_kill.py",
    "engines/test_build_shipped.py",
    "end_to_end/test_listener_processes.py",
    "end_to_end/test_retention.py",
    "end_to_end/test_invariants.py",
    "end_to_end/test_imported_engines.py",
    "browser/test_ohif.py",
    "engines/test_published_stages.py",
    "node/test_shipped_engines.py",
    "end_to_end/test_faults.py",
    "end_to_end/test_guard_messages.py",
    "end_to_end/test_guard.py",
    "end_to_end/test_fallbacks.py",
    "end_to_end/test_bench.py",
    "end_to_end/test_real_data.py",
    "engines/test_published_brain_tissues.py",
    "node/results/test_validators.py",
    "engines/test_published_models.py",
    "end_to_end/test_guard_data_sets.py",
    "node/delivery/test_failing_peers.py",
    "node/results/test_kinds_and_objects.py",
    "end_to_end/test_dicomweb.py",
    "engines/test_build.py",
    "end_to_end/test_guard_tls.py",
    "node/test_completion_evidence.py",
    "node/results/test_key_object.py",
    "end_to_end/test_demo.py",
    "end_to_end/test_engine_faults.py",
    "end_to_end/test_completeness.py",
    "end_to_end/test_recall.py",
    "end_to_end/test_reviews.py",
    "end_to_end/test_suitability_corpus.py",
    "end_to_end/test_protocol_fuzz.py",
    "end_to_end/test_many_associations.py",
)
"""Files that take longest, as `pytest --durations=0` tells."""


def pytest_configure(config: pytest.Config) -> None:
    """Begin to count; let `storescu` be dcmtk's in an activated environment too."""
    config.stash[_LEFT_OUT] = dict.fromkeys(LEFT_OUT, 0)
    os.environ["PATH"] = _path_without(Path(sys.executable).parent)
    keep_memory()  # nets and volumes take several times as long without


def _path_without(scripts: Path) -> str:
    """Return PATH without the environment's scripts: pynetdicom brings a storescu of its own."""
    folders = os.environ["PATH"].split(os.pathsep)
    return os.pathsep.join(folder for folder in folders if Path(folder) != scripts)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first; within a file, and among the others, the order stays."""
    if gone := [name for name in LONGEST_FIRST if not (TESTS / name).is_file()]:
        raise pytest.UsageError(f"tests/conftest.py: LONGEST_FIRST: there is no {gone[0]}")
    places = {TESTS / name: place for place, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    """Count the tests that a run leaves out, by the reason."""
    for item in items:
        for marker in LEFT_OUT:
            if item.get_closest_marker(marker):
                item.config.stash[_LEFT_OUT][marker] += 1


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand the counts to the process that prints them, from one of several that run the tests."""
    told: dict[str, dict[str, int]] | None = getattr(session.config, "workeroutput", None)
    if told is not None:
        told[_TOLD] = session.config.stash[_LEFT_OUT]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: _Node) -> None:
    """Keep the counts of one of several processes that run the tests; each collects all of them."""
    for marker, count in node.workeroutput.get(_TOLD, {}).items():
        counts = node.config.stash[_LEFT_OUT]
        counts[marker] = max(counts[marker], count)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many tests were not run, and why not."""
    counts = terminalreporter.config.stash[_LEFT_OUT]
    left_out = [f"{counts[marker]} {why}" for marker, why in LEFT_OUT.items()]
    skipped = len(terminalreporter.getreports("skipped"))
    terminalreporter.write_line(f"not run: {', '.join(left_out)}, {skipped} for want of real data")


class _Node(Protocol):
    """What pytest-xdist hands over of such a process."""

    config: pytest.Config
    workeroutput: dict[str, dict[str, int]]
