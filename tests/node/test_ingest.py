"""The one way in, over the real stores: what is durable, what is refused, and with which status."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import config, dcmread

from node.clock import system_clock
from node.ingest import StudyIngest
from node.interfaces import (
    CannotUnderstand,
    DataSetMismatch,
    OutOfResources,
    Received,
    Source,
)
from storage.associations import AssociationStore
from storage.database import Database, migrate
from storage.objects import ObjectStore
from storage.studies import StudyStore
from tests.factories import make_ct_series
from tests.node.listeners.receiving import data_set_bytes


class Bench:
    """An ingest over stores in a folder."""

    def __init__(self, folder: Path) -> None:
        url = f"sqlite:///{folder}/test.db"
        migrate(url)
        self.database = Database(url)
        self.objects = ObjectStore(folder / "objects")
        self.studies = StudyStore(self.database, system_clock)
        self.reserve = 1
        self.limit = 1 << 30

    def accept(self, file: Path, **claims: str) -> None:
        header = dcmread(file, stop_before_pixels=True)
        ingest = StudyIngest(
            objects=self.objects,
            studies=self.studies,
            associations=AssociationStore(self.database, system_clock),
            quiet_time=lambda _modality, _ae: 1.0,
            max_object_bytes=self.limit,
            reserve_bytes=self.reserve,
        )
        ingest.accept(
            Received(
                source=Source(listener="test", calling_ae="CT1"),
                sop_class_uid=claims.get("sop_class_uid", str(header.SOPClassUID)),
                sop_instance_uid=claims.get("sop_instance_uid", str(header.SOPInstanceUID)),
                transfer_syntax_uid=str(header.file_meta.TransferSyntaxUID),
                data=io.BytesIO(data_set_bytes(file)),
            )
        )


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.database.close()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return make_ct_series(tmp_path / "ct", slices=1, rows=16, columns=16)[0]


def test_accepted_instance_is_a_readable_file_with_the_same_bytes(bench: Bench, file: Path) -> None:
    bench.accept(file)
    (study,) = bench.studies.list()
    (instance,) = bench.studies.instances(study.id)
    path = bench.objects.path(instance.digest)
    assert data_set_bytes(path) == data_set_bytes(file)
    assert path.read_bytes()[:128] == bytes(128)
    assert dcmread(path).PatientID == study.attributes.patient_id


def test_same_bytes_again_are_a_success_that_changes_nothing(bench: Bench, file: Path) -> None:
    bench.accept(file)
    bench.accept(file)
    conservation = bench.studies.conservation()
    assert (conservation.received, conservation.duplicates, conservation.missing) == (2, 1, 0)


def test_other_bytes_under_the_same_uid_are_kept_beside_the_first(
    bench: Bench, file: Path, tmp_path: Path
) -> None:
    bench.accept(file)
    changed = dcmread(file)
    changed.ImageComments = "changed"
    other = tmp_path / "other.dcm"
    changed.save_as(other)
    bench.accept(other)
    (study,) = bench.studies.list()
    assert study.instances == 1
    assert len(bench.studies.instances(study.id, include_conflicts=True)) == 2
    assert bench.studies.conservation().missing == 0


def test_full_disk_is_refused_before_a_byte_is_written(bench: Bench, file: Path) -> None:
    bench.reserve = 1 << 60
    with pytest.raises(OutOfResources) as caught:
        bench.accept(file)
    assert caught.value.status == 0xA700
    assert list(bench.objects.digests()) == []


def test_object_beyond_the_limit_is_refused_and_leaves_nothing(bench: Bench, file: Path) -> None:
    bench.limit = 10
    with pytest.raises(OutOfResources):
        bench.accept(file)
    assert list(bench.objects.digests()) == []
    assert bench.studies.list() == []


@pytest.mark.parametrize("claim", ["sop_class_uid", "sop_instance_uid"])
def test_data_set_that_is_not_what_the_command_says_is_quarantined(
    claim: str, bench: Bench, file: Path
) -> None:
    with pytest.raises(DataSetMismatch) as caught:
        bench.accept(file, **{claim: "1.2.3"})
    assert caught.value.status == 0xA900
    (kept,) = bench.studies.quarantined()
    assert bench.objects.exists(kept.digest)
    assert bench.studies.list() == []


def test_data_set_with_a_malformed_uid_is_quarantined(
    bench: Bench, file: Path, tmp_path: Path
) -> None:
    dataset = dcmread(file)
    path = tmp_path / "bad.dcm"
    with config.disable_value_validation():
        dataset.StudyInstanceUID = "../../x"
        dataset.save_as(path)
    with pytest.raises(CannotUnderstand) as caught:
        bench.accept(path)
    assert caught.value.status == 0xC000
    assert "StudyInstanceUID" in bench.studies.quarantined()[0].reason


def test_database_that_is_gone_is_out_of_resources(bench: Bench, file: Path) -> None:
    with bench.database.transaction() as session:
        session.connection().exec_driver_sql("DROP TABLE receipt")
    with pytest.raises((OutOfResources, CannotUnderstand)):
        bench.accept(file)
