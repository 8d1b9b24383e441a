"""What a start does about an end that was not clean, over the real stores."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import dcmread

from node.clock import system_clock
from node.ingest import StudyIngest, part10_prefix
from node.interfaces import Received, Source
from node.reconcile import Reconciled, Reconciliation
from storage.associations import AssociationStore
from storage.database import Database, migrate
from storage.events import EventStore
from storage.objects import ObjectStore
from storage.states import AssociationState
from storage.studies import StudyStore
from tests.factories import make_ct_series


class Bench:
    """A node's state without its processes."""

    def __init__(self, folder: Path) -> None:
        url = f"sqlite:///{folder}/test.db"
        migrate(url)
        self.database = Database(url)
        self.objects = ObjectStore(folder / "objects")
        self.studies = StudyStore(self.database, system_clock)
        self.associations = AssociationStore(self.database, system_clock)
        self.events = EventStore(self.database, system_clock)
        self.ingest = StudyIngest(
            objects=self.objects,
            studies=self.studies,
            associations=self.associations,
            quiet_time=lambda _modality, _ae: 1.0,
            max_object_bytes=1 << 30,
            reserve_bytes=1,
        )

    def reconcile(self) -> Reconciled:
        return Reconciliation(
            objects=self.objects,
            studies=self.studies,
            associations=self.associations,
            events=self.events,
            ingest=self.ingest,
            clock=system_clock,
            own_model="wetread",
        ).run()

    def store_bytes_only(self, file: Path) -> str:
        """Keep a file's data set as an interrupted receive would: bytes, and no row."""
        header = dcmread(file, stop_before_pixels=True)
        prefix = part10_prefix(
            header.SOPClassUID, header.SOPInstanceUID, header.file_meta.TransferSyntaxUID
        )
        with file.open("rb") as data:
            data.seek(140)
            data.seek(144 + int.from_bytes(data.read(4), "little"))
            return self.objects.write(data, prefix=prefix).digest


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.database.close()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return make_ct_series(tmp_path / "ct", slices=1, rows=16, columns=16)[0]


def test_bytes_without_a_row_are_adopted(bench: Bench, file: Path) -> None:
    digest = bench.store_bytes_only(file)
    assert bench.reconcile().adopted == 1
    (study,) = bench.studies.list()
    assert study.listener == "reconciliation"
    assert [item.digest for item in bench.studies.instances(study.id)] == [digest]
    assert bench.reconcile().adopted == 0


def test_own_result_without_a_row_is_left_for_its_job(
    bench: Bench, file: Path, tmp_path: Path
) -> None:
    result = dcmread(file)
    result.ManufacturerModelName = "wetread"
    path = tmp_path / "result.dcm"
    result.save_as(path)
    bench.store_bytes_only(path)
    outcome = bench.reconcile()
    assert (outcome.adopted, outcome.missing) == (0, 0)
    assert bench.studies.list() == []


def test_row_without_bytes_is_raised(bench: Bench, file: Path) -> None:
    header = dcmread(file, stop_before_pixels=True)
    with file.open("rb") as data:
        data.seek(140)
        data.seek(144 + int.from_bytes(data.read(4), "little"))
        bench.ingest.accept(
            Received(
                source=Source(listener="test"),
                sop_class_uid=header.SOPClassUID,
                sop_instance_uid=header.SOPInstanceUID,
                transfer_syntax_uid=header.file_meta.TransferSyntaxUID,
                data=data,
            )
        )
    (digest,) = bench.objects.digests()
    bench.objects.path(digest).unlink()
    assert bench.reconcile().missing == 1
    assert bench.events.recent(1)[0].action == "object.missing"


def test_part_files_and_open_associations_are_ended(bench: Bench, tmp_path: Path) -> None:
    part = tmp_path / "objects" / "incoming" / "left.part"
    part.write_bytes(b"half")
    past = time.time() - 60
    os.utime(part, (past, past))
    bench.ingest.association_opened(Source(listener="dimse"))
    outcome = bench.reconcile()
    assert (outcome.parts_removed, outcome.associations_ended) == (1, 1)
    assert not part.exists()
    assert bench.associations.recent(1)[0].state is AssociationState.ABORTED
