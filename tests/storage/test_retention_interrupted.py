"""A sweep that was cut off, or a disk that fails or cannot: the next one goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.orm import Session

from storage.burial import bury
from storage.packs import PackStore
from storage.records import OutOfResourcesError
from storage.retention_records import Planned, RetentionPolicy
from tests.storage.holding import STUDY, Holding
from tests.storage.keeping import DAY, Keeping

OTHER = "1.2.826.0.1.2"


class CrashError(BaseException):
    """Stands in for the end of the process."""


@pytest.mark.parametrize("step", ["_finish_one", "_remove", "_forget", "_erase"])
def test_a_sweep_that_was_cut_off_is_finished_by_the_next(
    step: str, keeping: Keeping, held: Holding, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeping.receive(1)
    kept = keeping.receive(1, study=OTHER)
    keeping.read()
    if step in {"_remove", "_forget"}:
        held.execute("UPDATE study SET complete_after = first_received_at")
        keeping.read(study=OTHER)
    keeping.seal()
    held.clock.advance(2 * DAY)

    def crash(*_: object) -> bool:
        raise CrashError

    sweeper = keeping.retention()
    with monkeypatch.context() as patch:
        patch.setattr(sweeper, step, crash)
        with pytest.raises(CrashError):
            sweeper.sweep()
    keeping.open()
    assert keeping.retention().sweep().unfinished == 0
    assert keeping.bytes_there() == [False]
    assert keeping.there(kept) == (step in {"_finish_one", "_erase"})
    assert keeping.holds.unfinished() == 0
    assert set(keeping.indexer.indexed_through()) == set(keeping.packs.names())


def test_a_disk_that_fails_is_told_and_tried_again(
    keeping: Keeping, held: Holding, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeping.receive(1)
    keeping.read()
    held.clock.advance(2 * DAY)

    def failing(*_: object) -> int:
        raise OutOfResourcesError("EIO")

    with monkeypatch.context() as patch:
        patch.setattr("storage.retention.erase_records", failing)
        assert keeping.retention().sweep().unfinished == 1
    assert "retention.failed" in keeping.told
    assert keeping.retention().sweep().unfinished == 0
    assert keeping.bytes_there() == [False]


def test_one_study_that_cannot_be_written_down_stops_no_other(
    keeping: Keeping, held: Holding, monkeypatch: pytest.MonkeyPatch
) -> None:
    for study in (STUDY, OTHER):
        keeping.receive(1, study=study)
        keeping.read(study=study)
    held.clock.advance(2 * DAY)
    failed: list[str] = []

    def failing(session: Session, packs: PackStore, item: Planned, *rest: Any) -> int:  # noqa: ANN401
        if not failed:
            failed.append(item.what)
            raise OutOfResourcesError("locked")
        return bury(session, packs, item, *rest)

    with monkeypatch.context() as patch:
        patch.setattr("storage.retention.bury", failing)
        assert keeping.retention(RetentionPolicy(studies_days=1)).sweep().deletions == 1
    assert (failed, keeping.told) == ([STUDY], ["retention.failed"])
    assert (keeping.bytes_there(), keeping.bytes_there(OTHER)) == ([True], [False])


def test_where_no_hole_can_be_punched_bytes_wait_for_their_whole_pack(
    keeping: Keeping, held: Holding, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.erasing.punch_holes", lambda *_: False)
    keeping.receive(1)
    keeping.receive(1, study=OTHER)
    keeping.read()
    keeping.seal()
    held.clock.advance(2 * DAY)
    sweeper = keeping.retention()
    assert sweeper.sweep().unfinished == 1
    assert sweeper.sweep().unfinished == 1
    assert keeping.told == ["retention.no_holes"]
    assert keeping.bytes_there(OTHER) == [True]
    held.execute("UPDATE study SET complete_after = first_received_at")
    keeping.read(study=OTHER)
    held.clock.advance(2 * DAY)
    swept = sweeper.sweep()
    assert (swept.packs, swept.unfinished) == (1, 0)
    assert keeping.packs.names() == {}


def test_bytes_of_another_node_are_left_to_it(
    keeping: Keeping, held: Holding, tmp_path: Path
) -> None:
    keeping.receive(1)
    keeping.read()
    held.clock.advance(2 * DAY)
    elsewhere = Keeping(held, tmp_path / "elsewhere")
    assert elsewhere.retention(RetentionPolicy(studies_days=1)).plan() == []
    elsewhere.retention(RetentionPolicy(studies_days=1)).sweep()
    assert keeping.bytes_there() == [True]
    keeping.retention()._bury(keeping.retention().plan())
    assert elsewhere.retention().sweep().unfinished == 1  # it has not the bytes
    assert keeping.retention().sweep().unfinished == 0


def test_a_sweep_ends_when_it_is_told_to(keeping: Keeping, held: Holding) -> None:
    keeping.receive(1)
    keeping.read()
    held.clock.advance(2 * DAY)
    sweeper = keeping.retention()
    sweeper.stop()
    assert sweeper.sweep().deletions == 0
    assert keeping.bytes_there() == [True]
