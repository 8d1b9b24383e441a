"""What is held: received instances and results, until retention takes their bytes."""

from __future__ import annotations

import pytest

from storage.holdings import HoldingStore, StudyMatch
from tests.storage.holding import STUDY
from tests.storage.keeping import DAY, Keeping

OTHER = "1.2.826.0.1.3680043.8.498.9"


@pytest.fixture
def holdings(keeping: Keeping) -> HoldingStore:
    return HoldingStore(keeping.held.database)


def test_received_instances_and_results_are_held_alike(
    keeping: Keeping, holdings: HoldingStore
) -> None:
    for number in (1, 2):
        keeping.receive(number)
    keeping.read(results=2)
    [found] = holdings.studies(StudyMatch(), limit=10)
    assert (found.series, found.instances, sum(found.results.values())) == (1, 2, 2)
    held = holdings.instances(STUDY)
    assert [item.location is None for item in held] == [False, False, True, True]
    assert all(item.study_instance_uid == STUDY for item in held)
    series = held[0].series_instance_uid
    assert len(holdings.instances(STUDY, series)) == 2
    assert len(holdings.instances(STUDY, series, held[0].sop_instance_uid)) == 1
    assert not holdings.instances(STUDY, series, held[2].sop_instance_uid)
    assert set(holdings.series_attributes(STUDY)) == {series}


def test_other_bytes_under_a_known_uid_are_not_held(
    keeping: Keeping, holdings: HoldingStore
) -> None:
    keeping.receive(1)
    keeping.receive(1, data=b"other bytes" * 1000)
    assert len(holdings.instances(STUDY)) == 1


def test_what_is_withheld_is_given_to_nobody(keeping: Keeping, holdings: HoldingStore) -> None:
    keeping.receive(1)
    keeping.held.deliveries.set_destinations([("PACS", "dimse")])
    keeping.held.route()
    keeping.finish(withheld=True)
    (result,) = keeping.held.jobs.results()
    assert result.withheld
    assert not keeping.held.deliveries.list()
    [received] = holdings.instances(STUDY)
    assert received.location is not None
    [found] = holdings.studies(StudyMatch(), limit=10)
    assert not found.results
    wanted = StudyMatch(modalities=("SEG",), result_classes=(result.sop_class_uid,))
    assert not holdings.studies(wanted, limit=10)


def test_what_retention_deleted_is_not_held(keeping: Keeping, holdings: HoldingStore) -> None:
    keeping.receive(1)
    keeping.read()
    keeping.held.clock.advance(1.5 * DAY)
    keeping.retention().sweep()
    assert [item.location for item in holdings.instances(STUDY)] == [None]
    [found] = holdings.studies(StudyMatch(), limit=10)
    assert (found.instances, sum(found.results.values())) == (0, 1)
    keeping.held.clock.advance(2 * DAY)
    keeping.retention().sweep()
    assert not holdings.studies(StudyMatch(), limit=10)


@pytest.mark.parametrize(
    ("match", "matches"),
    [
        (StudyMatch(uids=(STUDY,)), [STUDY]),
        (StudyMatch(uids=("1.2.3",)), []),
        (StudyMatch(texts={"patient_id": "*"}), [OTHER, STUDY]),
        (StudyMatch(texts={"patient_id": "%"}), []),
        (StudyMatch(texts={"patient_id": "\\*"}), []),
        (StudyMatch(ranges={"study_date": ("99990101", "")}), []),
        (StudyMatch(modalities=("CT",)), [OTHER, STUDY]),
        (StudyMatch(modalities=("MR",)), []),
    ],
)
def test_studies_are_matched_on_every_database(
    match: StudyMatch, matches: list[str], keeping: Keeping, holdings: HoldingStore
) -> None:
    keeping.receive(1)
    keeping.held.clock.advance(1)
    keeping.receive(1, study=OTHER)
    found = holdings.studies(match, limit=10)
    assert [item.study.study_instance_uid for item in found] == matches


def test_pages_follow_each_other(keeping: Keeping, holdings: HoldingStore) -> None:
    for number in range(3):
        keeping.held.clock.advance(1)
        keeping.receive(1, study=f"{OTHER}.{number}")
    pages = [holdings.studies(StudyMatch(), limit=2, offset=offset) for offset in (0, 2)]
    found = [item.study.study_instance_uid for page in pages for item in page]
    assert found == [f"{OTHER}.{number}" for number in (2, 1, 0)]
