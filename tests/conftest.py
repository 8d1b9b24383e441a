"""What every test run tells at its end: what it did not run, and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

import pytest

_GPU_ITEMS: pytest.StashKey[int] = pytest.StashKey()
_TOLD: Final = "gpu items"


def pytest_configure(config: pytest.Config) -> None:
    """Begin to count."""
    config.stash[_GPU_ITEMS] = 0


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
