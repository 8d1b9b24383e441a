"""What a start does about an end that was not clean, over the real stores."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest

from node.interfaces import Source
from storage.digests import InstanceDigest
from storage.pack_format import FIRST
from storage.records import OutOfResourcesError
from storage.states import AssociationState
from tests.factories import make_ct_series
from tests.node.listeners.receiving import data_set_bytes
from tests.node.taking_in import TakingIn, named_in, start_of_data_set


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return make_ct_series(tmp_path / "ct", slices=3, rows=16, columns=16)


def killed_after(folder: Path, files: list[Path], *, open_record: bool = False) -> None:
    """Do what a node does until it is killed before it could write a row."""
    bench = TakingIn(folder)
    intake = bench.ingest.open(Source(listener="dimse", calling_ae="CT1"))
    bench.store(intake, files)
    if open_record:
        intake.begin(*named_in(files[0]))
        content = memoryview(files[0].read_bytes())[start_of_data_set(files[0]) :]
        intake.write([content[:100]])
    bench.database.close()


@pytest.mark.parametrize("open_record", [False, True])
def test_instances_without_rows_are_indexed_and_what_was_cut_off_is_not(
    tmp_path: Path, files: list[Path], open_record: bool
) -> None:
    killed_after(tmp_path, files, open_record=open_record)
    bench = TakingIn(tmp_path)
    assert bench.reconcile().indexed == 3
    (study,) = bench.studies.list()
    assert (study.instances, study.calling_ae) == (3, "CT1")
    kept = {
        bench.packs.read(item.location)[-item.size :] for item in bench.studies.instances(study.id)
    }
    assert kept == {data_set_bytes(file) for file in files}
    (record,) = bench.associations.recent()
    assert (record.state, record.received) == (AssociationState.ABORTED, 3)
    again = bench.reconcile()
    assert (again.indexed, again.missing) == (0, 0)
    assert bench.studies.conservation().missing == 0
    bench.close()


def test_rows_are_written_of_what_is_on_the_disk_only(
    tmp_path: Path, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a killed node left in the page cache looks finished, and a power cut takes it away."""
    killed_after(tmp_path, files)
    bench = TakingIn(tmp_path)

    def fails(_descriptor: int) -> None:
        raise OSError(errno.EIO, "the disk fails")

    with monkeypatch.context() as patched:
        patched.setattr("storage.disk.os.fdatasync", fails)
        with pytest.raises(OutOfResourcesError):
            bench.reconcile()
    assert bench.studies.list() == []
    assert bench.reconcile().indexed == 3
    bench.close()


def test_instances_that_have_rows_are_not_counted_twice(tmp_path: Path, files: list[Path]) -> None:
    bench = TakingIn(tmp_path).start()
    intake = bench.ingest.open(Source(listener="dimse"))
    bench.store(intake, files[:2])
    intake.settle(10)
    bench.indexer.stop()
    bench.store(intake, files[2:])
    bench.database.close()
    after = TakingIn(tmp_path)
    assert after.reconcile().indexed == 1
    assert after.studies.conservation().received == 3
    assert after.studies.list()[0].instances == 3
    after.close()


def test_record_that_was_torn_by_a_power_cut_ends_its_pack(
    tmp_path: Path, files: list[Path]
) -> None:
    killed_after(tmp_path, files)
    (pack,) = (tmp_path / "objects" / "packs").iterdir()
    content = bytearray(pack.read_bytes())
    content[-700] ^= 0xFF  # in the pixels of the last instance
    pack.write_bytes(content)
    bench = TakingIn(tmp_path)
    assert bench.reconcile().indexed == 2
    assert pack.stat().st_size < len(content)
    assert bench.studies.conservation().missing == 0
    bench.close()


def test_record_with_a_note_of_another_version_is_raised(tmp_path: Path) -> None:
    bench = TakingIn(tmp_path)
    pack = bench.packs.borrow()
    pack.begin(b"prefix")
    pack.finish(InstanceDigest().digest(), b"{}")
    assert bench.reconcile().unread == 1
    assert bench.events.recent(1)[0].action == "record.unread"
    bench.database.close()


def test_pack_that_is_gone_or_too_short_is_raised(tmp_path: Path, files: list[Path]) -> None:
    bench = TakingIn(tmp_path).start()
    bench.accept(files[0])
    bench.close()
    (pack,) = (tmp_path / "objects" / "packs").iterdir()
    os.truncate(pack, pack.stat().st_size - 8)
    after = TakingIn(tmp_path)
    assert after.reconcile().missing == 1
    assert after.events.recent(1)[0].action == "pack.missing"
    pack.unlink()
    assert after.reconcile().missing == 1
    after.close()


def test_cut_off_files_and_open_associations_are_ended(tmp_path: Path) -> None:
    bench = TakingIn(tmp_path)
    part = tmp_path / "objects" / "incoming" / "left.part"
    part.write_bytes(b"half")
    past = time.time() - 60
    os.utime(part, (past, past))
    spare = tmp_path / "objects" / "packs" / "left.new"
    spare.write_bytes(b"half")
    bench.associations.opened(
        listener="dimse", calling_ae="CT1", called_ae="WETREAD", peer_address="127.0.0.1"
    )
    outcome = bench.reconcile()
    assert (outcome.parts_removed, outcome.associations_ended) == (2, 1)
    assert not part.exists()
    assert not spare.exists()
    assert bench.associations.recent(1)[0].state is AssociationState.ABORTED
    bench.close()


def test_empty_packs_of_the_last_run_are_used_again_if_they_were_written_in_advance(
    tmp_path: Path,
) -> None:
    bench = TakingIn(tmp_path)
    assert bench.packs.prepare_spare()
    borrowed = bench.packs.borrow()
    unprepared = bench.packs.borrow()
    assert (borrowed.path.stat().st_size, unprepared.path.stat().st_size) == (1 << 20, FIRST - 32)
    bench.database.close()
    after = TakingIn(tmp_path)
    after.reconcile()
    assert after.packs.names() == {borrowed.name: 1 << 20}
    assert after.packs.spare_count() == 1
    after.close()
