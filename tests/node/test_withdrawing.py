"""Notes that wait are made in a real sandbox, kept, and queued; what fails says why and waits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import dcmread

from node import withdrawing
from node.interfaces import DeviceIdentity
from node.withdrawing import Withdrawer
from storage.database import migrate
from storage.objects import ObjectStore
from storage.recall_records import RecallScope
from storage.states import DeliveryState
from tests.storage.holding import STUDY, Holding, arrived

DEVICE = DeviceIdentity(
    manufacturer="wetread",
    model="wetread",
    serial_number="TEST-1",
    station_name="TEST",
    software_version="1.0",
)


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Holding]:
    """Give a node's index with a recalled result whose bytes retention deleted."""
    url = f"sqlite:///{tmp_path / 'wetread.db'}"
    migrate(url)
    holding = Holding(url)
    holding.deliverable()
    leased = holding.send()
    holding.deliveries.record(leased.delivery.id, leased.token, arrived())
    holding.execute(
        "INSERT INTO deletion (id, at, kind, rule, count, size, places)"
        " VALUES (1, '2024-03-01 08:00:00', 'results', 'results_days', 1, 10, '[]')"
    )
    holding.execute("UPDATE result SET deletion_id = 1")
    scope = RecallScope(engine="liver")
    holding.recalls.recall(scope, code="113037", reason="wrong", by="anna")
    yield holding
    holding.close()


def withdrawer(held: Holding, folder: Path, rung: list[int] | None = None) -> Withdrawer:
    staging = folder / "staging"
    staging.mkdir(exist_ok=True)
    return Withdrawer(
        withdrawals=held.withdrawals,
        objects=ObjectStore(folder / "objects"),
        device=DEVICE,
        staging=staging,
        memory_mib=2048,
        clock=held.clock,
        made=lambda: rung.append(1) if rung is not None else None,
    )


def test_a_note_is_kept_and_queued_and_names_the_patient_though_the_result_is_gone(
    held: Holding, tmp_path: Path
) -> None:
    """Retention deleted the result: patient and study are those of the index."""
    rung: list[int] = []
    withdrawer(held, tmp_path, rung).sweep()
    states = [item.state for item in sorted(held.deliveries.list(), key=lambda row: row.id)]
    assert states == [DeliveryState.SENT, DeliveryState.QUEUED, DeliveryState.RESERVED]
    assert rung == [1]
    rejected, note, notice = held.jobs.results()
    document = dcmread(ObjectStore(tmp_path / "objects").path(note.digest))
    assert (document.StudyInstanceUID, document.PatientID) == (STUDY, "P1")
    assert (str(document.PatientName), document.Modality) == ("Doe^Jane", "KO")
    items = [item for item in document.ContentSequence if item.ValueType == "IMAGE"]
    assert [item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for item in items] == [
        rejected.sop_instance_uid
    ]
    assert (note.writer, notice.writer) == ("rejection_note", "rejection_notice")
    assert not list((tmp_path / "staging").iterdir())


def test_what_is_doubtful_has_a_note_of_its_own(held: Holding) -> None:
    """UID-06: an archive can refuse a whole note that names what it does not have."""
    (pending,) = held.withdrawals.pending(limit=9)
    (taken,) = pending.rejected
    doubtful = replace(taken, taken=False, sop_instance_uid="2.25.8")
    lots = withdrawing.lots_of(replace(pending, rejected=(doubtful, taken, doubtful)))
    assert [lot.rejected for lot in lots] == [(taken,), (doubtful,), (doubtful,)]
    assert lots[0].key == withdrawing.withdrawal_key(pending.withdrawal)
    assert lots[1].key == f"{lots[0].key}|2.25.8"
    assert len(withdrawing.lots_of(replace(pending, rejected=(doubtful,)))) == 1


def test_what_cannot_be_made_says_why_and_is_tried_again_after_a_while(
    held: Holding, tmp_path: Path
) -> None:
    study = held.studies.get(STUDY).id
    held.execute("UPDATE recall SET code = '113000'")
    one = withdrawer(held, tmp_path)
    one.sweep()
    (record,) = held.withdrawals.list(study_id=study)
    assert "113000 is no title for rejected objects" in record.error
    held.execute("UPDATE recall SET code = '113037'")
    one.sweep()
    assert held.withdrawals.list(study_id=study)[0].made_at is None
    held.clock.advance(withdrawing.REST_SECONDS)
    one.sweep()
    (record,) = held.withdrawals.list(study_id=study)
    assert (record.error, record.made_at) == ("", held.clock())


def test_nothing_is_started_where_nothing_waits(
    held: Holding, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (pending,) = held.withdrawals.pending(limit=9)
    held.withdrawals.made(pending.withdrawal.id, ())
    monkeypatch.delattr(withdrawing, "Sandbox")
    withdrawer(held, tmp_path).sweep()
