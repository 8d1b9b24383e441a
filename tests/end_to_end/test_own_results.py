"""NET-01: what we made comes back from a PACS that routes everything here, and nothing starts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import dcmread

from node.pacs import StandInPacs
from tests.end_to_end.processes import NodeProcess, storescu, wait_until
from tests.factories import make_ct_series
from tests.node.listeners.receiving import dcmtk


@pytest.fixture
def pacs(tmp_path: Path) -> Iterator[StandInPacs]:
    standin = StandInPacs(tmp_path / "pacs", ae_title="PACS", host="127.0.0.1", port=0)
    standin.start()
    yield standin
    standin.stop()


def own_results(node: NodeProcess) -> int:
    stores = node.stores()
    try:
        return stores.studies.conservation().own_results
    finally:
        stores.database.close()


def at_pacs(pacs: StandInPacs) -> list[Path]:
    return [
        instance.path
        for found in pacs.listing()
        for series in found.series
        for instance in series.instances
    ]


def test_results_that_come_back_are_counted_and_start_nothing(
    tmp_path: Path, pacs: StandInPacs
) -> None:
    """NET-01: no new revision, no job, no delivery."""
    files = make_ct_series(tmp_path / "ct")
    study = str(dcmread(files[0], stop_before_pixels=True).StudyInstanceUID)
    with NodeProcess(folder=tmp_path / "node", pacs_port=pacs.port) as node:
        storescu(node.port, files)
        before = node.wait_settled(study)
        results = at_pacs(pacs)
        assert len(results) >= 2
        titles = ("-aet", "PACS", "-aec", "WETREAD", "127.0.0.1", node.port)
        sent = dcmtk("storescu", "-R", *map(str, titles), *results)
        assert sent.returncode == 0, sent.stderr
        wait_until(lambda: own_results(node) == len(results), "they are counted", 20)
        after = node.wait_settled(study)
        assert (after.revision, after.state) == (before.revision, before.state)
        assert at_pacs(pacs) == results
