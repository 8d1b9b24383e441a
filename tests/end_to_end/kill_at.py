"""Runs the node and kills it with SIGKILL at a named point, as a power cut would.

Run as `python -m tests.end_to_end.kill_at POINT run --config FILE`. The product has no such hooks:
this driver wraps the seams of its classes before it calls the command line.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from node.cli import main
from node.listeners._association import StoreSocket
from node.worker import Worker
from storage import erasing, retention
from storage.deliveries import DeliveryStore
from storage.indexing import Indexer
from storage.jobs import JobStore
from storage.packs import Pack
from storage.records import LeasedJob
from storage.retention import Retention
from storage.studies import StudyStore


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _before(owner: type | ModuleType, name: str, call: int = 1) -> None:
    """Die instead of the `call`-th call of a method."""
    _wrap(owner, name, call, after=False)


def _after(owner: type | ModuleType, name: str, call: int = 1) -> None:
    """Die right after the `call`-th call of a method."""
    _wrap(owner, name, call, after=True)


def _wrap(owner: type | ModuleType, name: str, call: int, *, after: bool) -> None:
    original = getattr(owner, name)
    calls = 0

    def wrapped(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - stands in for any method
        nonlocal calls
        calls += 1
        if calls == call and not after:
            _die()
        result = original(*args, **kwargs)
        if calls == call:
            _die()
        return result

    setattr(owner, name, wrapped)


def _at_stage(wanted: str) -> None:
    original = Worker._progress

    def progress(self: Worker, leased: LeasedJob, stage: str) -> None:
        original(self, leased, stage)
        if stage == wanted:
            _die()

    Worker._progress = progress  # type: ignore[method-assign]


POINTS: dict[str, Callable[[], None]] = {
    "half-written": lambda: _before(Pack, "finish", call=3),
    "written": lambda: _before(Pack, "sync", call=3),
    "synced": lambda: _after(Pack, "sync", call=3),
    "acknowledged": lambda: _after(StoreSocket, "answer", call=3),
    "rows-half-written": lambda: _before(Indexer, "_note_progress"),
    "rows-committed": lambda: _after(Indexer, "_write_once", call=2),
    "completed": lambda: _after(StudyStore, "complete"),
    "routing": lambda: _before(StudyStore, "route"),
    "routed": lambda: _after(StudyStore, "route"),
    "inference": lambda: _at_stage("inference"),
    "encoding": lambda: _at_stage("encoding"),
    "results-stored": lambda: _before(JobStore, "finish"),
    "finished": lambda: _after(JobStore, "finish"),
    "sent": lambda: _before(DeliveryStore, "record"),
    "sent-and-recorded": lambda: _after(DeliveryStore, "record"),
}

RETENTION_POINTS: dict[str, Callable[[], None]] = {
    "deletion-written": lambda: _after(retention, "bury"),
    "record-marked": lambda: _before(erasing, "punch_holes"),
    "pack-marked": lambda: _after(Retention, "_mark_removed"),
    "pack-removed": lambda: _before(Retention, "_forget"),
}

if __name__ == "__main__":
    (POINTS | RETENTION_POINTS)[sys.argv.pop(1)]()
    main()
