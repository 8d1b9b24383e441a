"""What every test run tells at its end: what it did not run, and why."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

_GPU_ITEMS: pytest.StashKey[int] = pytest.StashKey()


def pytest_configure(config: pytest.Config) -> None:
    """Begin to count."""
    config.stash[_GPU_ITEMS] = 0


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    """Count the tests that a machine without a GPU leaves out."""
    for item in items:
        if item.get_closest_marker("gpu"):
            item.config.stash[_GPU_ITEMS] += 1


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many tests were not run for want of a GPU or of real data."""
    skipped = len(terminalreporter.getreports("skipped"))
    gpu = terminalreporter.config.stash[_GPU_ITEMS]
    terminalreporter.write_line(f"not run: {gpu} that need a GPU, {skipped} for want of real data")
