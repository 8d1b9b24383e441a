"""Retention in a real node: the disk is freed, nothing else is lost, kill -9 is gone on with."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, TypeVar

import pytest

from node.pacs import StandInPacs
from node.stores import Stores
from storage.states import DeletionKind, DeletionRule, StudyState
from tests.end_to_end.kill_at import RETENTION_POINTS
from tests.end_to_end.processes import NodeProcess, storescu, wait_until
from tests.end_to_end.test_invariants import results_at, study_of
from tests.end_to_end.test_kill import data_set_bytes, send
from tests.factories import make_ct_series

MIB: Final = 1 << 20
SMALL_PACKS: Final = "[storage]\npack_mib = 1\nspare_packs = 0\n"
SOON: Final = 5e-5
"""Days: some four seconds."""

R = TypeVar("R")


@pytest.fixture
def pacs(tmp_path: Path) -> Iterator[StandInPacs]:
    standin = StandInPacs(tmp_path / "pacs", ae_title="PACS", host="127.0.0.1", port=0)
    standin.start()
    yield standin
    standin.stop()


def keeps(folder: Path, pacs: StandInPacs, days: float = SOON, **more: float) -> NodeProcess:
    """Return a node that keeps what is done for so many days."""
    lines = {"studies_days": days, "sweep_seconds": 0.3, **more}
    table = "".join(f"{name} = {value}\n" for name, value in lines.items())
    return NodeProcess(
        folder=folder, pacs_port=pacs.port, extra=f"{SMALL_PACKS}[retention]\n{table}"
    )


def series(folder: Path, seed: int) -> list[Path]:
    """Make a CT series of some 800 kB."""
    return make_ct_series(folder / f"ct{seed}", slices=6, rows=256, columns=256, seed=seed)


def ask(node: NodeProcess, question: Callable[[Stores], R]) -> R:
    """Ask the node's stores something."""
    stores = node.stores()
    try:
        return question(stores)
    finally:
        stores.database.close()


def wait_emptied(node: NodeProcess, uid: str) -> None:
    """Wait until retention has deleted a study's bytes, all of them."""

    def emptied() -> bool:
        return ask(
            node,
            lambda stores: (
                stores.studies.get(uid).emptied_at is not None and not stores.holds.unfinished()
            ),
        )

    wait_until(emptied, "the bytes of the study are deleted")


def on_disk(node: NodeProcess) -> int:
    """Return how much of the disk the packs take."""
    packs = (node.folder / "data" / "objects" / "packs").iterdir()
    return sum(path.stat().st_blocks * 512 for path in packs)


def test_disk_is_freed_and_rows_and_held_studies_stay(tmp_path: Path, pacs: StandInPacs) -> None:
    studies = [series(tmp_path, seed) for seed in (1, 2, 3, 4)]
    uids = [study_of(files) for files in studies]
    with keeps(tmp_path / "node", pacs, days=1e-4, results_days=1e-4) as node:
        for files in studies:
            storescu(node.port, files)
        node.wait_settled(uids[-1])
        ask(node, lambda stores: stores.holds.hold(uids[-1], by="test", reason="kept"))
        before = on_disk(node)
        for uid in uids[:3]:
            node.wait_settled(uid)
            wait_emptied(node, uid)
        wait_until(
            lambda: ask(node, lambda stores: len(set(stores.studies.result_digests()))) == 3,
            "the results of three studies are deleted",
        )
        assert before > 3 * MIB
        assert on_disk(node) < 1.3 * MIB
        totals = ask(node, lambda stores: stores.holds.totals())
        counts = {(item.kind, item.rule): item.count for item in totals}
        assert counts[DeletionKind.INSTANCES, DeletionRule.STUDIES] == 18
        assert counts[DeletionKind.RESULTS, DeletionRule.RESULTS] == 9
        conservation = ask(node, lambda stores: stores.studies.conservation())
        assert (conservation.received, conservation.routed, conservation.missing) == (24, 24, 0)
        assert_there(node, studies[-1])
        assert node.stop() == 0
        node.start()  # a start after it finds nothing missing, and nothing to index again
        reconciled = json.loads(
            [line for line in node.log().splitlines() if "node.reconciled" in line][-1]
        )
        assert (reconciled["indexed"], reconciled["missing"]) == (0, 0)
        assert node.stop() == 0
    assert "pack.missing" not in node.log()
    assert "object.missing" not in node.log()
    assert len(results_at(pacs)) == 12


def assert_there(node: NodeProcess, files: list[Path]) -> None:
    """Check that every instance of a study is there, byte-equal."""

    def held(stores: Stores) -> set[bytes]:
        record = stores.studies.get(study_of(files))
        return {
            stores.packs.read(item.location)[-item.size :]
            for item in stores.studies.instances(record.id)
        }

    assert ask(node, held) == {data_set_bytes(file) for file in files}


def test_late_slice_of_a_deleted_study_fails_in_the_open_until_the_study_comes_again(
    tmp_path: Path, pacs: StandInPacs
) -> None:
    files = series(tmp_path, 1)
    uid = study_of(files)
    with keeps(tmp_path / "node", pacs, days=2e-5) as node:
        storescu(node.port, files[:-1])
        node.wait_settled(uid)
        wait_emptied(node, uid)
        first = len(results_at(pacs))
        storescu(node.port, files[-1:])
        wait_until(
            lambda: ask(node, lambda stores: stores.studies.get(uid).state) is StudyState.FAILED,
            "the study fails",
        )
        record = ask(node, lambda stores: stores.studies.get(uid))
        assert record.revision == 2
        assert record.reason.startswith("BYTES_DELETED: of 5 of 6 instances")
        assert len(results_at(pacs)) == first
        assert not any(item.superseded for item in ask(node, lambda s: s.jobs.results()))
        storescu(node.port, files)
        assert node.wait_settled(uid, revision=3).revision == 3
        assert len(results_at(pacs)) == 2 * first
        assert ask(node, lambda stores: stores.studies.conservation().missing) == 0


@pytest.mark.parametrize("point", RETENTION_POINTS)
def test_kill_in_a_sweep_is_gone_on_with_by_the_next_start(
    point: str, tmp_path: Path, pacs: StandInPacs
) -> None:
    go = [*series(tmp_path, 1), *series(tmp_path, 2)]
    kept = series(tmp_path, 3)
    node = keeps(tmp_path / "node", pacs, days=1e-4, results_days=1e-4)
    node.write()
    node.start(kill_at=point)
    assert send(node.port, kept) == kept
    node.wait_settled(study_of(kept))
    ask(node, lambda stores: stores.holds.hold(study_of(kept), by="test", reason="kept"))
    assert send(node.port, go) == go
    wait_until(node.died, f"the node dies at {point}")
    assert_there(node, kept)
    node.start()
    try:
        for files in (go[:6], go[6:]):
            wait_emptied(node, study_of(files))
        again = series(tmp_path, 4)
        assert send(node.port, again) == again
        node.wait_settled(study_of(again))
        assert_there(node, kept)
        assert ask(node, lambda stores: stores.studies.conservation().missing) == 0
        reconciled = [line for line in node.log().splitlines() if "node.reconciled" in line]
        assert [json.loads(line)["indexed"] for line in reconciled] == [0, 0]
    finally:
        assert node.stop() == 0
    for word in ("pack.missing", "object.missing", "record.unread", "retention.failed"):
        assert word not in node.log()
