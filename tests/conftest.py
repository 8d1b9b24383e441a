"""The order of the files, and what every test run tells at its end: what it did not run, and why.

Several processes take the files one by one from the front. A long file that came late would keep
one of them at work long after the others are done, so the longest come first.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

import pytest

from node.allocator import keep_memory

_GPU_ITEMS: pytest.StashKey[int] = pytest.StashKey()
_TOLD: Final = "gpu items"
TESTS: Final = Path(__file__).parent
LONGEST_FIRST: Final = (
    "end_to_end/test_published_brains.py",
    "end_to_end/test_kill.py",
    "end_to_end/test_listener_processes.py",
    "engines/test_published_brain_tissues.py",
    "end_to_end/test_retention.py",
    "browser/test_ohif.py",
    "engines/test_build_shipped.py",
    "end_to_end/test_faults.py",
    "node/test_shipped_engines.py",
    "end_to_end/test_imported_engines.py",
    "end_to_end/test_invariants.py",
    "end_to_end/test_guard.py",
    "end_to_end/test_real_data.py",
    "end_to_end/test_guard_messages.py",
    "engines/test_published_stages.py",
    "end_to_end/test_completeness.py",
    "end_to_end/test_guard_data_sets.py",
    "end_to_end/test_guard_tls.py",
    "engines/test_published_models.py",
    "end_to_end/test_fairness.py",
    "end_to_end/test_suitability_corpus.py",
    "end_to_end/test_many_associations.py",
    "end_to_end/test_postgresql.py",
    "end_to_end/test_protocol_fuzz.py",
)
"""Files that take longest, as `pytest --durations=0` tells; two with large nets stand apart."""


def pytest_configure(config: pytest.Config) -> None:
    """Begin to count."""
    config.stash[_GPU_ITEMS] = 0
    keep_memory()  # nets and volumes take several times as long without


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first; within a file, and among the others, the order stays."""
    if gone := [name for name in LONGEST_FIRST if not (TESTS / name).is_file()]:
        raise pytest.UsageError(f"tests/conftest.py: LONGEST_FIRST: there is no {gone[0]}")
    places = {TESTS / name: place for place, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    """Count the tests that a machine without a GPU leaves out."""
    for item in items:
        if item.get_closest_marker("gpu"):
            item.config.stash[_GPU_ITEMS] += 1


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand the count to the process that prints it, from one of several that run the tests."""
    told: dict[str, int] | None = getattr(session.config, "workeroutput", None)
    if told is not None:
        told[_TOLD] = session.config.stash[_GPU_ITEMS]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: _Node) -> None:
    """Keep the count of one of several processes that run the tests; each collects all of them."""
    counted = node.workeroutput.get(_TOLD, 0)
    node.config.stash[_GPU_ITEMS] = max(node.config.stash[_GPU_ITEMS], counted)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many tests were not run for want of a GPU or of real data."""
    skipped = len(terminalreporter.getreports("skipped"))
    gpu = terminalreporter.config.stash[_GPU_ITEMS]
    terminalreporter.write_line(f"not run: {gpu} that need a GPU, {skipped} for want of real data")


class _Node(Protocol):
    """What pytest-xdist hands over of such a process."""

    config: pytest.Config
    workeroutput: dict[str, int]
