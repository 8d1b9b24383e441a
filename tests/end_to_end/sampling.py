"""What a node takes of its machine and what waits in it, second by second; and whether it grows."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from scipy.stats import theilslopes

from storage.errors import StorageError
from storage.states import JobState, StudyState
from tests.end_to_end.process_tree import descendants, descriptors, status
from tests.end_to_end.processes import OPEN_DELIVERIES, NodeProcess

SECOND: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """How much a figure may seem to grow: a share of its median, and at least so much."""

    share: float
    least: float


TOLERANCES: Final[Mapping[str, Tolerance]] = {
    "memory of the node, MiB": Tolerance(share=0.05, least=16),
    "memory of its children, MiB": Tolerance(share=0.10, least=64),
    "threads": Tolerance(share=0.10, least=4),
    "descriptors": Tolerance(share=0.10, least=8),
    "studies receiving": Tolerance(share=0.50, least=10),
    "jobs queued": Tolerance(share=0.50, least=4),
    "deliveries open": Tolerance(share=0.50, least=6),
}
"""Of memory a machine's noise; of threads and descriptors those of some associations; of queues
what random arrivals make."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """How a figure moved over the samples.

    `grew` is the lower end of the 95 % interval of the slope after Theil and Sen, times the
    duration: what is certain.
    """

    median: float
    highest: float
    slope: float  # a minute
    grew: float
    allowed: float

    @property
    def too_much(self) -> bool:
        """Say whether it grew beyond its tolerance."""
        return self.grew > self.allowed


def growth(values: Sequence[float], seconds: float, tolerance: Tolerance) -> Growth:
    """Judge samples that were taken at equal distances over some seconds."""
    ordered = sorted(values)
    median = ordered[len(ordered) // 2]
    found = theilslopes(values)  # a sample
    return Growth(
        median=median,
        highest=ordered[-1],
        slope=float(found.slope) * len(values) / seconds * 60,
        grew=float(found.low_slope) * len(values),
        allowed=max(tolerance.share * median, tolerance.least),
    )


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """Return p50, p95, p99 and the largest."""
    ordered = sorted(values) or [float("nan")]
    most = len(ordered) - 1
    shares = {"p50": 0.50, "p95": 0.95, "p99": 0.99, "max": 1.0}
    return {name: ordered[round(share * most)] for name, share in shares.items()}


class Sampler(threading.Thread):
    """Takes a sample every second until it is stopped."""

    def __init__(self, node: NodeProcess) -> None:
        super().__init__(name="sampler", daemon=True)
        self.samples: dict[str, list[float]] = {name: [] for name in TOLERANCES}
        self._node = node
        self._stop_asked = threading.Event()
        self._stores = node.stores()

    def stop(self) -> None:
        """Take no more."""
        self._stop_asked.set()
        self.join()
        self._stores.database.close()

    def run(self) -> None:
        """Sample."""
        while not self._stop_asked.wait(SECOND):
            try:
                sample = self._sample()
            except (OSError, StorageError):
                continue  # the node is ending, or its database is busy
            for name, value in sample.items():
                self.samples[name].append(value)

    def _sample(self) -> dict[str, float]:
        assert self._node.process is not None
        pid = self._node.process.pid
        children = descendants(pid)
        stores = self._stores
        deliveries = stores.deliveries.counts()
        return {
            "memory of the node, MiB": status(pid, "VmRSS") / 1024,
            "memory of its children, MiB": sum(_status(child, "VmRSS") for child in children)
            / 1024,
            "threads": status(pid, "Threads"),
            "descriptors": descriptors(pid),
            "studies receiving": stores.studies.counts().get(StudyState.RECEIVING, 0),
            "jobs queued": stores.jobs.counts().get(JobState.QUEUED, 0),
            "deliveries open": sum(deliveries.get(state, 0) for state in OPEN_DELIVERIES),
        }


def _status(pid: int, name: str) -> int:
    try:
        return status(pid, name)
    except OSError:
        return 0  # a child that has just ended
