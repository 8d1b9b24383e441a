"""Late, again, withdrawn: one study through a real node, to Orthanc and to a PACS that is choosy.

The node dies after its first run and runs the job again; the study is sent again; a slice comes
late; the engine is recalled. The tests look at what each of these left behind.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from typer.testing import CliRunner

from node.cli import app
from node.probing import sop_classes_of_objects
from storage.records import DeliveryRecord, EventRecord
from storage.states import DeliveryState
from tests.end_to_end.processes import RULES, NodeProcess, Orthanc, storescu, wait_until
from tests.factories import make_ct_series
from tests.node.delivery.choosy_pacs import ChoosyPacs

SEGMENTATION: Final = "1.2.840.10008.5.1.4.1.1.66.4"
ENHANCED_SR: Final = "1.2.840.10008.5.1.4.1.1.88.22"
COMPREHENSIVE_3D_SR: Final = "1.2.840.10008.5.1.4.1.1.88.34"
KEY_OBJECT: Final = "1.2.840.10008.5.1.4.1.1.88.59"
MADE: Final = (SEGMENTATION, ENHANCED_SR, COMPREHENSIVE_3D_SR)
REASON: Final = "It counts the table as fat."
CHOOSY: Final = """
[destinations.choosy]
kind = "dimse"
host = "127.0.0.1"
port = {port}
ae_title = "PACS"
reject_superseded = true
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """What was there after each step; files of Orthanc by SOP Instance UID."""

    stored_by: tuple[frozenset[str], frozenset[str]]
    first: Mapping[str, bytes]
    sent_again: Mapping[str, bytes]
    late: Mapping[str, bytes]
    recalled: Mapping[str, bytes]
    answer: Mapping[str, Any]
    repeated: Mapping[str, Any]
    events: list[EventRecord]
    deliveries: list[DeliveryRecord]
    refused: ChoosyPacs
    superseded: str
    given: frozenset[str]
    given_late: frozenset[str]


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:  # long: one story
    folder = tmp_path_factory.mktemp("recall")
    files = make_ct_series(folder / "ct", slices=9, rows=64, columns=64)
    uid = str(dcmread(files[0], stop_before_pixels=True).StudyInstanceUID)
    takes = {item for found in sop_classes_of_objects().values() for item in found} - {KEY_OBJECT}
    with Orthanc(folder=folder / "orthanc") as orthanc, ChoosyPacs(sorted(takes)) as choosy:
        node = NodeProcess(
            folder=folder / "node",
            pacs_port=orthanc.dicom_port,
            rules=RULES.replace('["pacs"]', '["pacs", "choosy"]'),
            extra=CHOOSY.format(port=choosy.port),
            quiet_seconds=0.5,
        )
        node.write()
        node.start(kill_at="results-stored")
        storescu(node.port, files[:-1])
        wait_until(node.died, "the node dies before it writes what it made")
        stored = objects_of(node)
        node.start()
        try:
            node.wait_settled(uid)
            stored_by = stored, objects_of(node)
            first = held_by(orthanc)
            storescu(node.port, files[:-1])
            node.wait_settled(uid)
            sent_again = held_by(orthanc)
            given = given_by(node, uid)
            storescu(node.port, files[-1:])
            node.wait_settled(uid, revision=2)
            late, given_late = held_by(orthanc), given_by(node, uid)
            wait_until(lambda: told(node, uid) == 1, "one is told what was superseded")
            superseded = choosy.kept[-1]
            answer = recall(node)
            wait_until(lambda: told(node, uid) == 3, "both are told what was recalled")
            recalled = held_by(orthanc)
            yield Story(
                stored_by=stored_by,
                first=first,
                sent_again=sent_again,
                late=late,
                recalled=recalled,
                answer=answer,
                repeated=recall(node),
                events=timeline(node, uid),
                deliveries=deliveries(node, uid),
                refused=choosy,
                superseded=superseded,
                given=given,
                given_late=given_late,
            )
        finally:
            node.kill()  # how a node stops is shown elsewhere, and takes it seconds
            orthanc.kill()


def objects_of(node: NodeProcess) -> frozenset[str]:
    """Return the digests of the result objects that a node keeps."""
    stores = node.stores()
    try:
        return frozenset(stores.objects.digests())
    finally:
        stores.database.close()


def held_by(orthanc: Orthanc) -> dict[str, bytes]:
    """Return every file that Orthanc holds, by SOP Instance UID."""
    return {
        item["MainDicomTags"]["SOPInstanceUID"]: orthanc.file(item["ID"])
        for item in orthanc.get("/instances?expand")
    }


def given_by(node: NodeProcess, study_instance_uid: str) -> frozenset[str]:
    """Return the results that the node hands out itself, over DICOMweb."""
    stores = node.stores()
    try:
        found = stores.holdings.instances(study_instance_uid)
    finally:
        stores.database.close()
    return frozenset(item.sop_instance_uid for item in found if item.location is None)


def deliveries(node: NodeProcess, study_instance_uid: str) -> list[DeliveryRecord]:
    stores = node.stores()
    try:
        study = stores.studies.get(study_instance_uid)
        return sorted(stores.deliveries.list(study_id=study.id), key=lambda item: item.id)
    finally:
        stores.database.close()


def timeline(node: NodeProcess, study_instance_uid: str) -> list[EventRecord]:
    stores = node.stores()
    try:
        return stores.events.timeline(stores.studies.get(study_instance_uid).id)
    finally:
        stores.database.close()


def told(node: NodeProcess, study_instance_uid: str) -> int:
    """Return how many of the notes arrived; a destination has only one of its two."""
    stores = node.stores()
    try:
        study = stores.studies.get(study_instance_uid)
        results = stores.jobs.results(study_id=study.id)
        notes = {item.id for item in results if item.withdrawal_id is not None}
        rows = stores.deliveries.list(study_id=study.id)
    finally:
        stores.database.close()
    return sum(row.result_id in notes and row.state is DeliveryState.SENT for row in rows)


def recall(node: NodeProcess) -> Mapping[str, Any]:
    """Say the command in this process, beside the node: another interpreter takes seconds."""
    command = ["recall", "--engine", "ct-body-composition", "--reason", REASON, "--by", "anna"]
    done = CliRunner().invoke(app, [*command, "--json", "--config", str(node.config)])
    assert done.exit_code == 0, done.output
    answer: Mapping[str, Any] = json.loads(done.stdout)
    return answer


def read(files: Mapping[str, bytes], folder: Path) -> list[Dataset]:
    found: list[Dataset] = []
    for uid, content in files.items():
        path = folder / f"{uid}.dcm"
        path.write_bytes(content)
        found.append(dcmread(path))
    return found


# ---------------------------------------------------------------- again


def test_the_same_job_run_twice_makes_the_same_bytes(story: Story) -> None:
    """UID-01, UID-02: it was run again from the start, and its objects have the same digests."""
    before, after = story.stored_by
    assert len(before) == len(MADE)
    assert after == before
    assert sorted(str(item) for item in _classes(story.first)) == sorted(MADE)


def test_the_same_study_sent_again_makes_no_run_and_sends_nothing(story: Story) -> None:
    """UID-03: what is there already is a duplicate, and the archive holds the very same files."""
    assert story.sent_again == story.first
    runs = [event for event in story.events if event.action == "job.succeeded"]
    assert len(runs) == 2  # of the first revision, and of the one with the late slice
    assert {item.attempts for item in story.deliveries if item.sop_instance_uid in story.first} == {
        1
    }


# ---------------------------------------------------------------- late


def test_a_late_slice_gives_new_instances_in_the_same_series(story: Story, tmp_path: Path) -> None:
    """UID-04, UID-07, OBJ-07: the next Instance Number, and the series keeps its date."""
    assert story.late.items() > story.first.items()
    old = {str(item.SOPClassUID): item for item in read(story.first, tmp_path)}
    for new in read(_without(story.late, story.first), tmp_path):
        former = old[str(new.SOPClassUID)]
        assert new.SeriesInstanceUID == former.SeriesInstanceUID
        assert (former.InstanceNumber, new.InstanceNumber) == (1, 2)
        assert (new.SeriesDate, new.SeriesTime) == (former.SeriesDate, former.SeriesTime)
    assert len(story.late) == 2 * len(MADE)


def test_reports_name_those_they_replace_and_refer_to_all_slices(
    story: Story, tmp_path: Path
) -> None:
    """UID-05, UID-07: the SEG has no predecessor; the report that refers to it carries the link."""
    old = {str(item.SOPClassUID): item for item in read(story.first, tmp_path)}
    new = {str(i.SOPClassUID): i for i in read(_without(story.late, story.first), tmp_path)}
    for sop_class in (ENHANCED_SR, COMPREHENSIVE_3D_SR):
        (study,) = new[sop_class].PredecessorDocumentsSequence
        named = [
            str(item.ReferencedSOPInstanceUID)
            for series in study.ReferencedSeriesSequence
            for item in series.ReferencedSOPSequence
        ]
        assert str(old[sop_class].SOPInstanceUID) in named
        assert "PredecessorDocumentsSequence" not in old[sop_class]
    assert "PredecessorDocumentsSequence" not in new[SEGMENTATION]
    evidence = _evidence(new[COMPREHENSIVE_3D_SR])
    assert str(new[SEGMENTATION].SOPInstanceUID) in evidence
    assert str(old[SEGMENTATION].SOPInstanceUID) not in evidence
    assert len(evidence) == 9 + 1


def test_only_who_wants_to_is_told_what_was_superseded_and_after_it_has_the_new_results(
    story: Story,
) -> None:
    """UID-06: off unless its destination has it; here the report in the place of the note."""
    rows = [item for item in story.deliveries if item.destination == "choosy"]
    of_both, note, notice = rows[: 2 * len(MADE)], *rows[2 * len(MADE) : -2]
    assert (note.sop_class_uid, note.state) == (KEY_OBJECT, DeliveryState.REPLACED)
    assert (notice.sop_instance_uid, notice.state) == (story.superseded, DeliveryState.SENT)
    kept = story.refused.kept
    assert kept.index(story.superseded) == len(of_both)
    assert KEY_OBJECT not in set(_classes(story.late))


def test_the_node_itself_hands_out_one_current_result(story: Story) -> None:
    assert story.given == story.first.keys()
    assert story.given_late == story.late.keys() - story.first.keys()


# ---------------------------------------------------------------- withdrawn


def test_a_recall_hits_every_result_of_the_engine_at_each_destination(story: Story) -> None:
    (study,) = story.answer["studies"]
    assert study["destinations"] == ["choosy", "pacs"]
    assert (study["results"], study["unsent"]) == (2 * len(MADE), 0)
    assert story.repeated["recall"] is None
    assert story.repeated["studies"] == []


def test_orthanc_has_one_note_that_rejects_all_results_of_the_study(
    story: Story, tmp_path: Path
) -> None:
    """UID-06: it keeps the note and the objects; hiding them is up to archives that know IOCM."""
    (note,) = read(_without(story.recalled, story.late), tmp_path)
    (title,) = note.ConceptNameCodeSequence
    assert (note.SOPClassUID, title.CodeValue) == (KEY_OBJECT, "113037")
    assert _evidence(note) == story.late.keys()
    assert any(REASON in str(item.get("TextValue", "")) for item in note.ContentSequence)
    assert story.recalled.items() >= story.late.items()


def test_a_destination_that_takes_no_key_object_gets_a_report_and_everybody_sees_it(
    story: Story,
) -> None:
    """VIEW-02, NET-18."""
    rows = [item for item in story.deliveries if item.destination == "choosy"]
    note, notice = rows[-2:]
    assert (note.sop_class_uid, note.state) == (KEY_OBJECT, DeliveryState.REPLACED)
    assert (notice.sop_class_uid, notice.state) == (ENHANCED_SR, DeliveryState.SENT)
    assert notice.sop_instance_uid in story.refused.kept
    assert note.sop_instance_uid not in story.refused.kept
    assert "delivery.replaced" in {event.action for event in story.events}


def test_who_recalled_it_and_why_stands_on_the_timeline(story: Story) -> None:
    (event,) = [event for event in story.events if event.action == "results.recalled"]
    assert (event.actor, event.details["reason"]) == ("anna", REASON)
    made = [event for event in story.events if event.action == "withdrawal.made"]
    told = sorted(
        str(event.details["destination"]) for event in made if event.details["recall"] is not None
    )
    assert told == ["choosy", "pacs"]


def _classes(files: Mapping[str, bytes]) -> Iterator[str]:
    for content in files.values():
        yield str(dcmread(BytesIO(content), stop_before_pixels=True).SOPClassUID)


def _without(files: Mapping[str, bytes], others: Mapping[str, bytes]) -> dict[str, bytes]:
    return {uid: content for uid, content in files.items() if uid not in others}


def _evidence(document: Dataset) -> set[str]:
    return {
        str(item.ReferencedSOPInstanceUID)
        for study in document.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    }
