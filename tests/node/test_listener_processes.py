"""What is done about processes that die, hang or cannot write, with real ones over PostgreSQL."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest

from node.interfaces import ListenerError, PluginSettings, SharedListener
from node.listener_processes import ListenerProcesses, Patience
from node.listeners._dimse_settings import DimseListenerSettings
from node.listeners.dimse import DimseListener
from node.settings import Settings
from storage.database import migrate
from storage.records import OutOfResourcesError
from tests.end_to_end.process_tree import descendants
from tests.end_to_end.processes import wait_until
from tests.node.listeners.receiving import KeepingIngest
from tests.storage.postgres import PostgresServer

QUICK = Patience(first=0.2, most=0.4, answer=1.0)


@dataclass
class Bench:
    """Two processes of a listener, and what the node was asked to replay."""

    settings: Settings
    replayed: list[int] = field(default_factory=list)
    disturb: Callable[[], None] = lambda: None

    def replay(self, process: int) -> None:
        self.disturb()
        self.replayed.append(process)

    def shared(self) -> ListenerProcesses:
        checked = DimseListenerSettings.model_validate(self.settings.listeners["dimse"])
        listener = cast("SharedListener[PluginSettings]", DimseListener(checked, KeepingIngest()))
        return ListenerProcesses(
            listener, self.settings, checked.processes, replay=self.replay, patience=QUICK
        )


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    running = PostgresServer()
    yield running
    running.stop()


@pytest.fixture
def bench(server: PostgresServer, request: pytest.FixtureRequest, tmp_path: Path) -> Bench:
    url = server.create(f"wetread_{abs(hash(request.node.nodeid)):x}")
    migrate(url)
    return Bench(settings=settings_with(url, tmp_path))


def settings_with(url: str, folder: Path) -> Settings:
    return Settings.model_validate(
        {
            "node": {"name": "TEST", "data_dir": str(folder)},
            "database": {"url": url},
            "storage": {"spare_packs": 0},
            "listeners": {"dimse": {"port": 0, "processes": 2, "allow_any_peer": True}},
        }
    )


def children() -> list[int]:
    command = b"node.listener_main"
    return [
        pid
        for pid in descendants(os.getpid())
        if command in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]


def test_all_listen_and_are_settled_when_the_start_is_over_and_none_is_left_at_the_end(
    bench: Bench,
) -> None:
    shared = bench.shared()
    shared.start()
    assert shared.readiness() == {"dimse-1": "", "dimse-2": ""}
    assert shared.address().startswith("dicom://WETREAD@127.0.0.1:")
    assert len(children()) == 2
    assert shared.settle()
    shared.stop()
    assert children() == []
    assert not shared.settle()
    assert shared.restarts() == {"dimse-1": 0, "dimse-2": 0}


def test_nothing_is_settled_until_what_a_dead_process_owes_is_replayed(bench: Bench) -> None:
    away = [True]

    def disturb() -> None:
        if away:
            raise OutOfResourcesError("the database cannot take data")

    shared = bench.shared()
    shared.start()
    bench.disturb = disturb
    os.kill(children()[0], signal.SIGKILL)
    wait_until(lambda: any(shared.readiness().values()), "the death is noticed", 10)
    assert not shared.settle()
    assert bench.replayed == []
    away.clear()
    wait_until(shared.settle, "it is replayed, or started again", 30)
    (process,) = bench.replayed
    wait_until(lambda: not any(shared.readiness().values()), "it is started again", 30)
    assert shared.restarts()[f"dimse-{process}"] == 1
    shared.stop()


def test_a_process_that_hangs_is_ended_and_started_again(bench: Bench) -> None:
    shared = bench.shared()
    shared.start()
    os.kill(children()[0], signal.SIGSTOP)
    wait_until(shared.settle, "another takes its place", 60)
    assert len(bench.replayed) == 1
    assert sum(shared.restarts().values()) == 1
    shared.stop()


def test_a_process_that_cannot_start_is_told_with_its_reason(tmp_path: Path) -> None:
    url = "postgresql+psycopg://nobody@127.0.0.1:1/none?connect_timeout=2"
    shared = Bench(settings=settings_with(url, tmp_path)).shared()
    with pytest.raises(ListenerError, match=r"dimse-\d: .*cannot be opened"):
        shared.start()
    assert children() == []
