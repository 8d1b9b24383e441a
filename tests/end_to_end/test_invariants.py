"""What the invariants promise, over real associations and a real process."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import UID

from node.pacs import StandInPacs
from storage.records import JobRecord
from storage.states import DeliveryState, EngineState, ErrorClass, JobState
from tests.end_to_end.packages import copy_package, make_it_hang
from tests.end_to_end.processes import RULES, NodeProcess, free_port, storescu, wait_until
from tests.end_to_end.test_kill import send
from tests.factories import make_ct_series

ENHANCED_SR = "1.2.840.10008.5.1.4.1.1.88.22"


@pytest.fixture
def pacs(tmp_path: Path) -> Iterator[StandInPacs]:
    standin = StandInPacs(tmp_path / "pacs", ae_title="PACS", host="127.0.0.1", port=0)
    standin.start()
    yield standin
    standin.stop()


@pytest.fixture
def node(tmp_path: Path, pacs: StandInPacs) -> Iterator[NodeProcess]:
    with NodeProcess(folder=tmp_path / "node", pacs_port=pacs.port) as process:
        yield process


def study_of(files: list[Path]) -> str:
    return str(dcmread(files[0], stop_before_pixels=True).StudyInstanceUID)


def jobs_of(node: NodeProcess, study_instance_uid: str) -> Sequence[JobRecord]:
    stores = node.stores()
    try:
        record = stores.studies.get(study_instance_uid)
        return stores.jobs.list(study_id=record.id)
    finally:
        stores.database.close()


def results_at(pacs: StandInPacs) -> list[Dataset]:
    return [
        dcmread(instance.path)
        for study in pacs.listing()
        for series in study.series
        for instance in series.instances
    ]


def test_late_slice_opens_the_study_again_and_its_results_supersede(
    tmp_path: Path, node: NodeProcess, pacs: StandInPacs
) -> None:
    files = make_ct_series(tmp_path / "ct", slices=8, rows=64, columns=64)
    uid = study_of(files)
    storescu(node.port, files[:-1])
    assert node.wait_settled(uid).revision == 1
    storescu(node.port, files[-1:])
    assert node.wait_settled(uid, revision=2).revision == 2
    numbers = sorted((str(r.SeriesInstanceUID), int(r.InstanceNumber)) for r in results_at(pacs))
    series = {uid for uid, _ in numbers}
    assert len(series) == 3
    assert numbers == sorted((uid, number) for uid in series for number in (1, 2))
    second = [r for r in results_at(pacs) if int(r.InstanceNumber) == 2 and r.Modality == "SR"]
    assert any("PredecessorDocumentsSequence" in report for report in second)


def test_duplicate_is_acknowledged_and_changes_nothing(tmp_path: Path, node: NodeProcess) -> None:
    files = make_ct_series(tmp_path / "ct", slices=5, rows=64, columns=64)
    storescu(node.port, files)
    storescu(node.port, files[:2])
    record = node.wait_settled(study_of(files))
    assert (record.revision, record.instances) == (1, 5)
    stores = node.stores()
    try:
        assert stores.studies.conservation().duplicates == 2
    finally:
        stores.database.close()


def test_other_bytes_under_a_known_uid_are_kept_apart_and_never_overwrite(
    tmp_path: Path, node: NodeProcess
) -> None:
    files = make_ct_series(tmp_path / "ct", slices=5, rows=64, columns=64)
    storescu(node.port, files)
    changed = dcmread(files[2])
    changed.ImageComments = "not the same"
    other = tmp_path / "other.dcm"
    changed.save_as(other)
    storescu(node.port, [other])
    record = node.wait_settled(study_of(files))
    stores = node.stores()
    try:
        current = stores.studies.instances(record.id)
        everything = stores.studies.instances(record.id, include_conflicts=True)
        actions = [event.action for event in stores.events.timeline(record.id)]
        conservation = stores.studies.conservation()
    finally:
        stores.database.close()
    assert (len(current), len(everything)) == (5, 6)
    assert "instance.conflict" in actions
    assert (conservation.conflicts, conservation.missing) == (1, 0)


def test_identical_instances_at_once_make_one_row_and_only_successes(
    tmp_path: Path, node: NodeProcess
) -> None:
    files = make_ct_series(tmp_path / "ct", slices=5, rows=64, columns=64)
    acknowledged: list[int] = []
    senders = [
        threading.Thread(target=lambda: acknowledged.append(len(send(node.port, files))))
        for _ in range(4)
    ]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    assert acknowledged == [5, 5, 5, 5]
    record = node.wait_settled(study_of(files))
    assert record.instances == 5
    stores = node.stores()
    try:
        conservation = stores.studies.conservation()
    finally:
        stores.database.close()
    assert (conservation.received, conservation.duplicates, conservation.missing) == (20, 15, 0)


@pytest.mark.parametrize("damage", ["missing-slice", "mixed-orientation", "lossy"])
def test_unsuitable_series_ends_in_a_delivered_refusal(
    damage: str, tmp_path: Path, node: NodeProcess, pacs: StandInPacs
) -> None:
    """Silence is never negative; NET-04: lossy images are taken, and refused by the engine."""
    files = make_ct_series(tmp_path / "ct", slices=10, rows=64, columns=64)
    if damage == "lossy":
        for file in files:
            squeezed = dcmread(file)
            squeezed.LossyImageCompression = "01"
            squeezed.save_as(file)
    elif damage == "missing-slice":
        files = files[:4] + files[5:]
    else:
        turned = dcmread(files[3])
        turned.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
        turned.save_as(files[3])
    storescu(node.port, files)
    uid = study_of(files)
    node.wait_settled(uid)
    assert [job.state for job in jobs_of(node, uid)] == [JobState.REFUSED]
    results = results_at(pacs)
    assert [str(result.SOPClassUID) for result in results] == [ENHANCED_SR]
    assert "not analysed" in str(results[0]).lower()


def test_localizer_among_axial_slices_is_left_out_and_said(
    tmp_path: Path, node: NodeProcess
) -> None:
    files = make_ct_series(tmp_path / "ct", slices=8, rows=64, columns=64)
    localizer = dcmread(files[0])
    localizer.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    localizer.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
    localizer.SOPInstanceUID = str(localizer.SOPInstanceUID) + ".9"
    localizer.file_meta.MediaStorageSOPInstanceUID = localizer.SOPInstanceUID
    path = tmp_path / "localizer.dcm"
    localizer.save_as(path)
    storescu(node.port, [*files, path])
    uid = study_of(files)
    node.wait_settled(uid)
    (job,) = jobs_of(node, uid)
    assert job.state is JobState.SUCCEEDED
    limits = job.summary["limits"]
    assert isinstance(limits, list)
    assert any("ocalizer" in str(limit) for limit in limits)


def test_dead_pacs_parks_its_results_and_gets_them_when_it_is_back(tmp_path: Path) -> None:
    port = free_port()
    files = make_ct_series(tmp_path / "ct", slices=5, rows=64, columns=64)
    uid = study_of(files)
    with NodeProcess(folder=tmp_path / "node", pacs_port=port) as node:
        storescu(node.port, files)

        def parked() -> bool:
            stores = node.stores()
            try:
                return stores.deliveries.counts().get(DeliveryState.PARKED, 0) == 3
            finally:
                stores.database.close()

        wait_until(parked, "the three results are parked")
        standin = StandInPacs(tmp_path / "pacs", ae_title="PACS", host="127.0.0.1", port=port)
        standin.start()
        try:
            node.wait_settled(uid)
            assert len(results_at(standin)) == 3
        finally:
            standin.stop()


def test_hung_engine_is_killed_and_harms_nobody(tmp_path: Path, pacs: StandInPacs) -> None:
    """The engine hangs on one study; the study's other engine and the next study go on."""
    make_it_hang(
        copy_package(tmp_path / "engines/hangs", name="hangs", hard_deadline_seconds=4.0),
        above=2000.0,
    )
    rules = RULES + RULES.replace("every-ct", "hung").replace("ct-body-composition", "hangs")
    node = NodeProcess(
        folder=tmp_path / "node",
        pacs_port=pacs.port,
        rules=rules,
        extra=f'[engines]\nfolders = ["{tmp_path / "engines"}"]',
        max_attempts=1,
    )
    dense = dense_series(tmp_path / "dense", 1)
    plain = make_ct_series(tmp_path / "plain", slices=5, rows=64, columns=64, seed=2)
    with node:
        storescu(node.port, dense)
        storescu(node.port, plain)
        node.wait_settled(study_of(dense))
        node.wait_settled(study_of(plain))
        outcome = {job.engine: job for job in jobs_of(node, study_of(dense))}
        assert outcome["hangs"].state is JobState.DEAD
        assert outcome["hangs"].error_class is ErrorClass.DEADLINE
        assert outcome["ct-body-composition"].state in {JobState.SUCCEEDED, JobState.REFUSED}
        assert [job.state for job in jobs_of(node, study_of(plain))] == [JobState.SUCCEEDED] * 2
        assert node.stop() == 0


def test_an_engine_that_fails_on_study_after_study_rests_and_comes_back(
    tmp_path: Path, pacs: StandInPacs
) -> None:
    """Its jobs wait meanwhile, and the other engine reads every study (A13)."""
    make_it_hang(
        copy_package(tmp_path / "engines/hangs", name="hangs", hard_deadline_seconds=3.0),
        above=2000.0,
    )
    rules = RULES + RULES.replace("every-ct", "hung").replace("ct-body-composition", "hangs")
    node = NodeProcess(
        folder=tmp_path / "node",
        pacs_port=pacs.port,
        rules=rules,
        extra=f'[engines]\nfolders = ["{tmp_path / "engines"}"]',
        worker="quarantine_studies = 2\nquarantine_seconds = 6\n",
        max_attempts=1,
    )
    dense = [dense_series(tmp_path / f"dense{seed}", seed) for seed in (1, 2)]
    plain = make_ct_series(tmp_path / "plain", slices=5, rows=64, columns=64, seed=3)
    with node:
        for files in dense:
            storescu(node.port, files)
            node.wait_settled(study_of(files))
        wait_until(lambda: engine_state(node, "hangs") is EngineState.UNAVAILABLE, "it rests")
        storescu(node.port, plain)
        node.wait_settled(study_of(plain))
        assert [job.state for job in jobs_of(node, study_of(plain))] == [JobState.SUCCEEDED] * 2
        assert engine_state(node, "hangs") is EngineState.ACTIVE
        for files in dense:
            states = {job.engine: job.state for job in jobs_of(node, study_of(files))}
            assert states["hangs"] is JobState.DEAD
            assert states["ct-body-composition"] in {JobState.SUCCEEDED, JobState.REFUSED}
        log = node.log()
        assert log.index("engine.quarantined") < log.index("engine.lifted")
        assert node.stop() == 0


def dense_series(folder: Path, seed: int) -> list[Path]:
    """Make a series that the engine of these tests hangs on."""
    files = make_ct_series(folder, slices=5, rows=64, columns=64, seed=seed)
    for file in files:
        dataset = dcmread(file)
        dataset.RescaleIntercept = float(dataset.RescaleIntercept) + 2500
        dataset.save_as(file)
    return files


def engine_state(node: NodeProcess, name: str) -> EngineState:
    stores = node.stores()
    try:
        return stores.engines.get(name).state
    finally:
        stores.database.close()


def test_no_patient_data_reaches_the_log_or_a_timeline(tmp_path: Path, node: NodeProcess) -> None:
    files = make_ct_series(tmp_path / "ct", slices=5, rows=64, columns=64)
    canaries = {
        "PatientName": "CANARY^NAME",
        "PatientID": "CANARY-ID",
        "PatientBirthDate": "19010203",
    }
    for file in files:
        dataset = dcmread(file)
        for keyword, value in canaries.items():
            setattr(dataset, keyword, value)
        dataset.StudyDescription = dataset.SeriesDescription = "CANARY-TEXT"
        dataset.save_as(file)
    unreadable = dcmread(files[0])
    del unreadable.SeriesInstanceUID  # refused and quarantined: that path must keep quiet, too
    unreadable.SOPInstanceUID = UID("1.2.3.4")
    unreadable.file_meta.MediaStorageSOPInstanceUID = UID("1.2.3.4")
    path = tmp_path / "unreadable.dcm"
    unreadable.save_as(path)
    assert send(node.port, [*files, path]) == files
    record = node.wait_settled(study_of(files))
    stores = node.stores()
    try:
        told = str(stores.events.timeline(record.id)) + str(stores.events.recent(1000))
        jobs = str(stores.jobs.list(study_id=record.id))
    finally:
        stores.database.close()
    assert "study_id" in node.log()
    for text in (node.log(), told, jobs):
        assert "CANARY" not in text
        assert "19010203" not in text


def test_what_an_engine_on_trial_finds_is_kept_and_sent_nowhere(
    tmp_path: Path, pacs: StandInPacs
) -> None:
    files = make_ct_series(tmp_path / "ct", slices=6, rows=64, columns=64)
    uid = study_of(files)
    with NodeProcess(
        folder=tmp_path / "node",
        pacs_port=pacs.port,
        extra='[engines]\nshadow = ["ct-body-composition"]',
    ) as node:
        storescu(node.port, files)
        node.wait_settled(uid)
        assert engine_state(node, "ct-body-composition") is EngineState.SHADOW
        (job,) = jobs_of(node, uid)
        assert job.state in (JobState.SUCCEEDED, JobState.REFUSED)
        assert job.summary["shadow"] is True
        stores = node.stores()
        try:
            results = stores.jobs.results(study_id=job.study_id)
            assert results
            assert all(result.withheld for result in results)
            assert all(item.location for item in stores.holdings.instances(uid))
            assert not stores.deliveries.list(study_id=job.study_id)
        finally:
            stores.database.close()
    assert not results_at(pacs)
