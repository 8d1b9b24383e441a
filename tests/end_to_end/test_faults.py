"""Short fault campaigns against a real node, and that an audit sees what it is for."""

from __future__ import annotations

import copy
import json
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from node.stores import Stores
from tests.end_to_end.audit import Audit, audit, data_set_of, read_back, visible
from tests.end_to_end.load import Ledger
from tests.end_to_end.made_images import MR, Image, Kind, Prototype, Study
from tests.end_to_end.processes import NodeProcess
from tests.end_to_end.store_scu import StoreAssociation
from tests.places import ROOT

KIND = Kind(modality="MR", sop_class_uid=MR, rows=16, columns=16)


def campaign(tmp_path: Path, *arguments: str) -> dict[str, Any]:
    """Run the program; return its figures. All must hold."""
    figures = tmp_path / "figures.json"
    run = subprocess.run(
        [sys.executable, "-m", "tests.end_to_end.faults", "--json", str(figures), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    found: dict[str, Any] = json.loads(figures.read_text())
    return found


def test_nothing_is_lost_by_kills_and_faults_of_the_disk(tmp_path: Path) -> None:
    """T12, T13: killed at random, disk full, read-only, failing, database away, under load."""
    figures = campaign(tmp_path, "--kills", "1", "--seed", "1")
    assert figures["kills"] >= 2
    assert {"kill", "full disk", "read-only disk", "database away"} <= set(figures["faults"])
    assert figures["acknowledged"] > 100
    told_by_status = figures["refused, by status"].get("0xa700", 0)
    assert told_by_status + figures["associations rejected"].get("(2, 3, 1)", 0) > 0


def test_nothing_is_lost_when_postgresql_ends_in_the_middle(tmp_path: Path) -> None:
    figures = campaign(
        tmp_path, "--kills", "1", "--seed", "2", "--database", "postgresql",
        "--only", "database away",
    )  # fmt: skip
    assert figures["faults"]["database away"] == 1
    assert figures["acknowledged"] > 50


# ---------------------------------------------------------------- the audit itself


@pytest.fixture(scope="module")
def images() -> list[Image]:
    study = Study(Prototype(KIND), random.Random(3))  # noqa: S311 - pixels
    return [study.image() for _ in range(6)]


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory, images: list[Image]) -> tuple[Path, Ledger]:
    """Return the folder of a node that took six images and ended, and what it told."""
    folder, ledger = tmp_path_factory.mktemp("node"), Ledger()
    with NodeProcess(folder=folder, pacs_port=1) as node:
        association = StoreAssociation(node.port, calling="MR1")
        for image in images:
            assert ledger.send(association, image)
        association.release()
    return folder, ledger


@pytest.fixture
def ledger(ended: tuple[Path, Ledger]) -> Ledger:
    return copy.copy(ended[1])


@pytest.fixture
def stores(ended: tuple[Path, Ledger], tmp_path: Path) -> Iterator[Stores]:
    shutil.copytree(ended[0], tmp_path / "node")
    stores = NodeProcess(folder=tmp_path / "node", pacs_port=1).stores()
    yield stores
    stores.database.close()


def complaints(found: Audit) -> set[str]:
    return {name for name, count in found.complaints().items() if count}


def test_an_audit_sees_what_was_lost(stores: Stores, images: list[Image], ledger: Ledger) -> None:
    assert not complaints(audit(stores, ledger))
    never_came = images[0].altered(random.Random(4))  # noqa: S311 - pixels
    ledger.acknowledged = ledger.acknowledged + Counter([never_came.key])
    found = audit(stores, ledger)
    assert found.lost == [never_came.sop_instance_uid]
    assert complaints(found) == {"acknowledged instances lost", "instances with wrong receipts"}


def test_an_audit_sees_receipts_of_what_was_never_sent(
    stores: Stores, images: list[Image], ledger: Ledger
) -> None:
    ledger.attempts = Counter({**ledger.attempts, images[1].key: 0})
    assert audit(stores, ledger).miscounted == [images[1].sop_instance_uid]


def test_an_audit_sees_changed_bytes(stores: Stores, ledger: Ledger) -> None:
    record = next(visible(stores))
    with stores.packs.path(record.location).open("r+b") as pack:
        pack.seek(record.location.offset + record.location.length - 1)
        last = pack.read(1)
        pack.seek(-1, os.SEEK_CUR)
        pack.write(bytes([last[0] ^ 1]))
    found = audit(stores, ledger)
    assert found.changed == found.lost == [record.sop_instance_uid]


def test_an_audit_sees_a_half_instance(stores: Stores, ledger: Ledger) -> None:
    *_, last = sorted(visible(stores), key=lambda record: record.location.offset)
    path = stores.packs.path(last.location)
    with path.open("r+b") as pack:
        pack.truncate(last.location.offset + last.location.length - 2)
    found = audit(stores, ledger)
    assert found.half == [last.sop_instance_uid]


def test_what_is_read_back_is_the_data_set_that_was_sent(
    stores: Stores, images: list[Image]
) -> None:
    sent = {image.sop_instance_uid: image.data_set for image in images}
    for record in visible(stores):
        assert data_set_of(read_back(stores, record), record) == sent[record.sop_instance_uid]
