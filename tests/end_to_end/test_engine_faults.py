"""Engines that want too much memory, or crash: the node, other engines and other studies go on."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

from node.pacs import StandInPacs
from storage.records import JobRecord, NotFoundError
from storage.states import ErrorClass, JobState
from tests.end_to_end.packages import copy_package, make_it_greedy, make_it_hang
from tests.end_to_end.process_tree import descendants
from tests.end_to_end.processes import RULES, NodeProcess, storescu, wait_until
from tests.end_to_end.test_invariants import dense_series, jobs_of, study_of
from tests.factories import make_ct_series

SPINE = 460.0
"""In HU: the spine of a made body is above it, and nothing of the golden case is."""
A_WHILE = 5 << 20
"""Turns of a loop: two seconds or more."""
SLOW_RULE = """
[[rules]]
name = "slow"
owner = "tests"
priority = "routine"
trigger = "series"
engines = ["slow"]
destinations = ["pacs"]
conditions = {field = "SeriesDescription", op = "equals", value = "Slow", level = "series"}
"""


@pytest.fixture
def pacs(tmp_path: Path) -> Iterator[StandInPacs]:
    standin = StandInPacs(tmp_path / "pacs", ae_title="PACS", host="127.0.0.1", port=0)
    standin.start()
    yield standin
    standin.stop()


def node_with(tmp_path: Path, pacs: StandInPacs, engine: str, max_attempts: int) -> NodeProcess:
    """Return a node that gives every CT to the shipped engine and to another one."""
    return NodeProcess(
        folder=tmp_path / "node",
        pacs_port=pacs.port,
        rules=RULES + RULES.replace("every-ct", "other").replace("ct-body-composition", engine),
        extra=f'[engines]\nfolders = ["{tmp_path / "engines"}"]',
        max_attempts=max_attempts,
    )


def job_of(node: NodeProcess, files: list[Path], engine: str) -> JobRecord | None:
    """Return an engine's job on a study; None: there is none yet."""
    try:
        return {job.engine: job for job in jobs_of(node, study_of(files))}.get(engine)
    except NotFoundError:
        return None


def test_an_engine_that_wants_more_memory_than_it_may_have_fails_alone(
    tmp_path: Path, pacs: StandInPacs
) -> None:
    make_it_greedy(copy_package(tmp_path / "engines/greedy", name="greedy"), above=2000.0)
    dense = dense_series(tmp_path / "dense", 1)
    plain = make_ct_series(tmp_path / "plain", slices=5, rows=64, columns=64, seed=2)
    with node_with(tmp_path, pacs, "greedy", max_attempts=1) as node:
        storescu(node.port, dense)
        storescu(node.port, plain)
        node.wait_settled(study_of(dense))
        node.wait_settled(study_of(plain))
        jobs = {job.engine: job for job in jobs_of(node, study_of(dense))}
        assert jobs["greedy"].state is JobState.DEAD
        assert jobs["greedy"].error_class is ErrorClass.OUT_OF_MEMORY
        assert jobs["ct-body-composition"].state in {JobState.SUCCEEDED, JobState.REFUSED}
        assert [job.state for job in jobs_of(node, study_of(plain))] == [JobState.SUCCEEDED] * 2
        assert node.stop() == 0


def test_a_study_that_an_engine_crashes_on_again_and_again_is_dead_while_others_go_on(
    tmp_path: Path, pacs: StandInPacs
) -> None:
    """One is killed whenever it is at work; another is killed once, and reads at its next try."""
    make_it_hang(copy_package(tmp_path / "engines/crashes", name="crashes"), above=2000.0)
    make_it_hang(copy_package(tmp_path / "engines/slow", name="slow"), above=SPINE, steps=A_WHILE)
    poison = dense_series(tmp_path / "poison", 1)
    plain = make_ct_series(tmp_path / "plain", slices=5, rows=64, columns=64, seed=2)
    slow = make_ct_series(
        tmp_path / "slow", slices=5, rows=64, columns=64, seed=3, series_description="Slow"
    )
    node = node_with(tmp_path, pacs, "crashes", max_attempts=2)
    node.rules += SLOW_RULE
    with node:
        storescu(node.port, poison)
        end_when_at_work(node, Blow(poison, "crashes", signal.SIGKILL))
        storescu(node.port, slow)
        storescu(node.port, plain)
        end_when_at_work(
            node,
            Blow(slow, "slow", signal.SIGKILL),
            Blow(poison, "crashes", signal.SIGSEGV),
        )
        for files in (poison, plain, slow):
            node.wait_settled(study_of(files))
        jobs = {job.engine: job for job in jobs_of(node, study_of(poison))}
        assert (jobs["crashes"].state, jobs["crashes"].attempts) == (JobState.DEAD, 2)
        assert jobs["crashes"].error_class is ErrorClass.CRASH
        assert jobs["ct-body-composition"].state in {JobState.SUCCEEDED, JobState.REFUSED}
        tried = {job.engine: (job.state, job.attempts) for job in jobs_of(node, study_of(slow))}
        assert tried.pop("slow") == (JobState.SUCCEEDED, 2)
        assert list(tried.values()) == [(JobState.SUCCEEDED, 1)] * 2
        assert [job.state for job in jobs_of(node, study_of(plain))] == [JobState.SUCCEEDED] * 2
        assert node.stop() == 0


class Blow(NamedTuple):
    """Which engine's process is to be ended on which study, and by which signal."""

    files: list[Path]
    engine: str
    number: signal.Signals


def end_when_at_work(node: NodeProcess, *blows: Blow) -> None:
    """End each engine's process while it is at work, whichever is first, and see it noted."""
    left = list(blows)
    while left:
        wait_until(lambda: any(is_at_work(node, blow) for blow in left), "an engine is at work")
        for blow in [item for item in left if is_at_work(node, item)]:
            for pid in busy_sandboxes(node):
                os.kill(pid, blow.number)
            wait_until(partial(is_noted, node, blow), f"{blow.engine} is noted", 10)
            left.remove(blow)


def is_at_work(node: NodeProcess, blow: Blow) -> bool:
    job = job_of(node, blow.files, blow.engine)
    return job is not None and job.state is JobState.RUNNING and bool(busy_sandboxes(node))


def is_noted(node: NodeProcess, blow: Blow) -> bool:
    job = job_of(node, blow.files, blow.engine)
    return job is not None and f"signal {blow.number.name}" in job.error


def busy_sandboxes(node: NodeProcess) -> list[int]:
    """Return the processes of sandboxes whose model runs: they took seconds of CPU time."""
    assert node.process is not None
    return [
        pid
        for pid in descendants(node.process.pid)
        if b"node.sandbox_main" in Path(f"/proc/{pid}/cmdline").read_bytes() and _runs(pid)
    ]


def _runs(pid: int) -> bool:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return fields[0] == "R"
