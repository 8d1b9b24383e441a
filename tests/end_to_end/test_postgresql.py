"""A node and a separate worker that share PostgreSQL: the same way, with two processes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from signal import SIGTERM

import pytest
from pydicom import dcmread

from node.pacs import StandInPacs
from storage.states import JobState
from tests.end_to_end.processes import NodeProcess, storescu, wait_until
from tests.factories import make_ct_series
from tests.storage.postgres import PostgresServer


@pytest.fixture
def url() -> Iterator[str]:
    server = PostgresServer()
    try:
        yield server.create("wetread")
    finally:
        server.stop()


def caught_by(pid: int) -> set[int]:
    """Return the signals that a process has a handler for (`proc(5)`, SigCgt)."""
    status = Path(f"/proc/{pid}/status").read_text()
    mask = int(status.partition("SigCgt:")[2].split()[0], 16)
    return {number + 1 for number in range(64) if mask >> number & 1}


def wetread(node: NodeProcess, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "node", *arguments, "--config", str(node.config)],
        capture_output=True,
        text=True,
        check=False,
        cwd=node.code,
        timeout=60,
    )


def test_node_and_a_separate_worker_read_studies_over_postgresql(url: str, tmp_path: Path) -> None:
    pacs = StandInPacs(tmp_path / "pacs", ae_title="PACS", host="127.0.0.1", port=0)
    pacs.start()
    node = NodeProcess(
        folder=tmp_path / "node", pacs_port=pacs.port, extra=f'[database]\nurl = "{url}"'
    )
    studies = [
        make_ct_series(tmp_path / str(n), slices=5, rows=64, columns=64, seed=n) for n in (1, 2)
    ]
    uids = [str(dcmread(files[0], stop_before_pixels=True).StudyInstanceUID) for files in studies]
    node.write()
    assert wetread(node, "studies").returncode == 2  # no schema yet: it says what to run
    assert wetread(node, "migrate").returncode == 0
    try:
        with (
            node,
            subprocess.Popen(
                [sys.executable, "-m", "node", "worker", "--config", str(node.config)],
                cwd=node.code,
                stderr=subprocess.DEVNULL,
            ) as worker,
        ):
            wait_until(lambda: SIGTERM in caught_by(worker.pid), "the worker ends when told to")
            for files in studies:
                storescu(node.port, files)
            for uid in uids:
                node.wait_settled(uid)
            stores = node.stores()
            try:
                jobs = stores.jobs.list()
                assert stores.studies.conservation().missing == 0
            finally:
                stores.database.close()
            assert [job.state for job in jobs] == [JobState.SUCCEEDED] * 2
            assert worker.poll() is None, "the worker still runs"
            worker.terminate()
            assert worker.wait(30) == 0
        assert sum(study.count for study in pacs.listing()) == 6
    finally:
        pacs.stop()
