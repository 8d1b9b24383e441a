"""The one way in, over the real stores: what is durable, what is refused, and with which status."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import config, dcmread
from pydicom.datadict import tag_for_keyword

from node.ingest import HEAD_BYTES, IngestLimits
from node.interfaces import (
    CannotUnderstand,
    DataSetMismatch,
    InvalidInstance,
    OutOfResources,
    Source,
    TooLarge,
)
from node.quotas import Watermarks
from storage.digests import InstanceDigest
from storage.states import AssociationState
from tests.factories import make_ct_series
from tests.node.listeners.receiving import data_set_bytes
from tests.node.taking_in import TakingIn, named_in


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[TakingIn]:
    made = TakingIn(tmp_path).start()
    yield made
    made.close()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return make_ct_series(tmp_path / "ct", slices=1, rows=16, columns=16)[0]


def test_accepted_instance_is_a_readable_file_with_the_same_bytes(
    bench: TakingIn, file: Path
) -> None:
    bench.accept(file)
    (study,) = bench.studies.list()
    (instance,) = bench.studies.instances(study.id)
    content = bench.packs.read(instance.location)
    assert content[-instance.size :] == data_set_bytes(file)
    assert content[:128] == bytes(128)
    assert dcmread(io.BytesIO(content)).PatientID == study.attributes.patient_id


def test_same_bytes_again_are_a_success_that_changes_nothing(bench: TakingIn, file: Path) -> None:
    bench.accept(file)
    bench.accept(file)
    conservation = bench.studies.conservation()
    assert (conservation.received, conservation.duplicates, conservation.missing) == (2, 1, 0)


def test_other_bytes_under_the_same_uid_are_kept_beside_the_first(
    bench: TakingIn, file: Path, tmp_path: Path
) -> None:
    bench.accept(file)
    changed = dcmread(file)
    changed.ImageComments = "changed"
    other = tmp_path / "other.dcm"
    changed.save_as(other)
    bench.accept(other)
    (study,) = bench.studies.list()
    assert study.instances == 1
    both = bench.studies.instances(study.id, include_conflicts=True)
    kept = {bench.packs.read(item.location)[-item.size :] for item in both}
    assert kept == {data_set_bytes(file), data_set_bytes(other)}
    assert bench.studies.conservation().missing == 0


def test_instances_of_an_association_count_for_it_and_hold_its_study(
    bench: TakingIn, tmp_path: Path
) -> None:
    files = make_ct_series(tmp_path / "three", slices=3, rows=16, columns=16)
    intake = bench.ingest.open(Source(listener="dimse", calling_ae="CT1"))
    bench.store(intake, files)
    intake.settle(10)
    (record,) = bench.associations.recent()
    assert (record.received, record.state) == (3, AssociationState.OPEN)
    intake.close(aborted=False)
    intake.settle(10)
    assert bench.associations.recent()[0].state is AssociationState.RELEASED


def test_full_disk_is_refused_before_a_byte_is_written(tmp_path: Path, file: Path) -> None:
    full = Watermarks(reserve_bytes=1 << 60, resume_bytes=1 << 60, urgent_bytes=1 << 60)
    bench = TakingIn(tmp_path, watermarks=full).start()
    with pytest.raises(OutOfResources) as caught:
        bench.accept(file)
    assert caught.value.status == 0xA700
    assert bench.packs.names() == {}
    bench.close()


def test_object_beyond_the_limit_is_refused_and_its_head_is_quarantined(
    tmp_path: Path, file: Path
) -> None:
    bench = TakingIn(tmp_path, limits=IngestLimits(max_object_bytes=10)).start()
    with pytest.raises(TooLarge):
        bench.accept(file)
    (kept,) = bench.studies.quarantined()
    head = bench.packs.read(kept.location)[-kept.size :]
    assert head == data_set_bytes(file)[: kept.size]
    assert kept.size <= HEAD_BYTES
    assert kept.reason == f"the object has more than 10 bytes; its first {kept.size} bytes are kept"
    assert kept.digest == InstanceDigest(head).hexdigest()
    assert bench.studies.list() == []
    bench.close()


def test_an_object_that_fits_can_follow_one_that_is_too_large(tmp_path: Path, file: Path) -> None:
    limit = len(data_set_bytes(file))
    bench = TakingIn(tmp_path, limits=IngestLimits(max_object_bytes=limit)).start()
    intake = bench.ingest.open(Source(listener="test", calling_ae="CT1"))
    intake.begin(*named_in(file))
    with pytest.raises(TooLarge):
        intake.write([memoryview(bytes(limit + 1))])
    bench.store(intake, [file])
    intake.settle(10)
    intake.close(aborted=False)
    (study,) = bench.studies.list()
    (instance,) = bench.studies.instances(study.id)
    assert bench.packs.read(instance.location)[-instance.size :] == data_set_bytes(file)
    assert len(bench.studies.quarantined()) == 1
    bench.close()


@pytest.mark.parametrize("claim", ["sop_class_uid", "sop_instance_uid"])
def test_data_set_that_is_not_what_the_command_says_is_quarantined(
    claim: str, bench: TakingIn, file: Path
) -> None:
    with pytest.raises(DataSetMismatch) as caught:
        bench.accept(file, **{claim: "1.2.3"})
    assert caught.value.status == 0xA900
    (kept,) = bench.studies.quarantined()
    assert bench.packs.read(kept.location)[-kept.size :] == data_set_bytes(file)
    assert bench.studies.list() == []


def test_data_set_with_a_malformed_uid_is_quarantined(
    bench: TakingIn, file: Path, tmp_path: Path
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


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID"])
def test_data_set_without_a_uid_has_no_place_and_is_quarantined(
    keyword: str, bench: TakingIn, file: Path, tmp_path: Path
) -> None:
    """PS3.4 table B.2-1: 0xA900, with the tag that is missing."""
    dataset = dcmread(file)
    del dataset[keyword]
    dataset.save_as(tmp_path / "without.dcm")
    with pytest.raises(DataSetMismatch) as caught:
        bench.accept(tmp_path / "without.dcm")
    assert caught.value.offending == tag_for_keyword(keyword)
    assert f"{keyword} is missing" in bench.studies.quarantined()[0].reason


@pytest.mark.parametrize(
    "uid", ["../../../tmp/x", "1..2", "1.02", "1." + "2" * 64, "", "1.2\0", "é"]
)
def test_instance_uid_that_is_none_is_refused_before_a_byte_is_written(
    uid: str, bench: TakingIn, file: Path
) -> None:
    with pytest.raises(InvalidInstance) as caught:
        bench.accept(file, sop_instance_uid=uid)
    assert caught.value.status == 0x0117
    assert bench.packs.names() == {}


def test_own_result_that_comes_back_is_known_by_its_header(
    bench: TakingIn, file: Path, tmp_path: Path
) -> None:
    result = dcmread(file)
    result.Manufacturer = result.ManufacturerModelName = "wetread"
    path = tmp_path / "result.dcm"
    result.save_as(path)
    bench.accept(path)
    conservation = bench.studies.conservation()
    assert (conservation.own_results, conservation.missing) == (1, 0)
    assert bench.studies.list() == []
    assert "instances.not_new" in bench.told


def test_database_that_is_gone_keeps_nobody_from_sending_and_its_rows_follow(
    tmp_path: Path, file: Path
) -> None:
    bench = TakingIn(tmp_path)
    with bench.database.transaction() as session:
        session.connection().exec_driver_sql("ALTER TABLE receipt RENAME TO away")
    bench.start()
    intake = bench.ingest.open(Source(listener="dimse"))
    bench.store(intake, [file])
    assert not bench.indexer.drain(0.3)
    with bench.database.transaction() as session:
        session.connection().exec_driver_sql("ALTER TABLE away RENAME TO receipt")
    assert bench.indexer.drain(20)
    assert bench.told == ["index.waits", "index.goes_on"]
    assert bench.studies.conservation().received == 1
    intake.close(aborted=False)
    bench.close()


def test_index_that_is_too_far_behind_refuses_new_instances(tmp_path: Path, file: Path) -> None:
    bench = TakingIn(tmp_path)  # the indexer does not run
    bench.indexer._most_waiting = 3
    intake = bench.ingest.open(Source(listener="dimse"))
    bench.store(intake, [file, file])
    with pytest.raises(OutOfResources, match="behind"):
        intake.begin(*named_in(file))
    with pytest.raises(OutOfResources):
        bench.ingest.open(Source(listener="dimse"))
    bench.database.close()


def test_the_last_of_the_room_in_the_index_is_for_urgent_sources(
    tmp_path: Path, file: Path
) -> None:
    """A22, NET-10: a flood while the database is slow leaves a tenth to who is urgent."""
    bench = TakingIn(tmp_path)  # the indexer does not run
    bench.indexer._most_waiting = 10
    routine, urgent = Source(listener="dimse"), Source(listener="dimse", urgent=True)
    bench.store(bench.ingest.open(routine), [file] * 8)
    with pytest.raises(OutOfResources, match="behind"):
        bench.ingest.admit(routine, stores=False)
    bench.ingest.admit(urgent, stores=True)
    bench.store(bench.ingest.open(urgent), [])
    with pytest.raises(OutOfResources, match="behind"):
        bench.ingest.admit(urgent, stores=True)
    bench.database.close()


def test_header_that_lies_far_behind_the_first_bytes_is_read(
    bench: TakingIn, file: Path, tmp_path: Path
) -> None:
    dataset = dcmread(file)
    block = dataset.private_block(0x0009, "wetread test", create=True)
    block.add_new(0x01, "OB", bytes(200_000))
    path = tmp_path / "long.dcm"
    dataset.save_as(path)
    bench.accept(path)
    (study,) = bench.studies.list()
    assert study.study_instance_uid == dataset.StudyInstanceUID
    (instance,) = bench.studies.instances(study.id)
    assert bench.packs.read(instance.location)[-instance.size :] == data_set_bytes(path)
