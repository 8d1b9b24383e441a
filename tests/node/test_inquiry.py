"""What an archive's answer says of the instances that can come here, and when it is asked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from node.archive import NOT_HELD, ArchiveAnswer, SeriesCount
from node.inquiry import Inquiry, said_of
from storage.database import migrate
from storage.expectations import ExpectationStore, SeriesSaid
from storage.states import ExpectationState
from tests.storage.holding import STUDY, Holding


def answer(number: int | None, **series: tuple[str, int | None]) -> ArchiveAnswer:
    return ArchiveAnswer(
        study_instance_uid=STUDY,
        instances=number,
        series={
            uid: SeriesCount(modality=modality, instances=count)
            for uid, (modality, count) in series.items()
        },
    )


CT, REPORT = ("CT", 3), ("SR", 1)
TAKEN_APART = "it does not tell our own results from the rest"


@pytest.mark.parametrize(
    ("said", "own", "ignored", "instances", "series", "note"),
    [
        (answer(3, a=CT), "", "", 3, {"a": 3}, ""),
        (answer(4, a=CT, b=REPORT), "", "", 4, {"a": 3, "b": 1}, ""),
        (answer(4, a=CT, b=REPORT), "b", "", 3, {"a": 3}, ""),
        (answer(4, a=CT, b=REPORT), "", "SR", 3, {"a": 3}, ""),
        (answer(4, a=CT, b=("SR", None)), "b", "", 3, {"a": 3}, ""),
        (answer(4, a=("CT", None), b=REPORT), "b", "", 3, {}, ""),
        (answer(None, a=CT, b=REPORT), "", "", 4, {"a": 3, "b": 1}, ""),
        (answer(None, a=CT, b=("SR", None)), "", "", None, {}, "it gives no counts"),
        (answer(4, a=("CT", None), b=("SR", None)), "b", "", None, {}, TAKEN_APART),
        (answer(4), "b", "", None, {}, TAKEN_APART),
        (answer(4), "", "SR", None, {}, TAKEN_APART),
        (answer(4), "", "", 4, {}, ""),
        (ArchiveAnswer(study_instance_uid=STUDY, why="down"), "", "", None, {}, "down"),
    ],
)
def test_an_answer_is_taken_apart_from_what_cannot_come_here(  # noqa: PLR0917 - a table
    said: ArchiveAnswer,
    own: str,
    ignored: str,
    instances: int | None,
    series: dict[str, int],
    note: str,
) -> None:
    found = said_of(said, own.split(), ignored.split())
    assert (found.instances, found.note) == (instances, note)
    assert found.series == {uid: SeriesSaid(instances=many) for uid, many in series.items()}
    known = ExpectationState.NOT_KNOWN if note else ExpectationState.COUNTED
    assert found.state is known


class Scripted:
    """An archive that answers what the test puts into it, and notes what it was asked."""

    def __init__(self) -> None:
        self.why = ""
        self.asked: list[tuple[str, ...]] = []

    def ask(self, study_instance_uids: Sequence[str]) -> Iterator[ArchiveAnswer]:
        self.asked.append(tuple(study_instance_uids))
        for uid in study_instance_uids:
            yield ArchiveAnswer(
                study_instance_uid=uid, instances=None if self.why else 3, why=self.why
            )

    def address(self) -> str:
        return "dicom://PACS@127.0.0.1:104"


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Holding]:
    migrate(f"sqlite:///{tmp_path}/wetread.db")
    made = Holding(f"sqlite:///{tmp_path}/wetread.db")
    yield made
    made.close()


def inquiry(held: Holding, archive: Scripted) -> Inquiry:
    return Inquiry(
        archive=archive,
        expectations=ExpectationStore(held.database, held.clock),
        every_seconds=5.0,
        ignore_modalities=(),
    )


def test_each_study_is_asked_about_every_so_often_over_one_association(held: Holding) -> None:
    archive = Scripted()
    sweeps = inquiry(held, archive)
    sweeps.sweep()
    held.receive(1)
    held.receive(1, study="1.2.3")
    for _ in range(6):
        sweeps.sweep()
        held.clock.advance(1)
    assert [sorted(uids) for uids in archive.asked] == [sorted((STUDY, "1.2.3"))] * 2
    found = ExpectationStore(held.database, held.clock).of([STUDY])[STUDY]
    assert [record.said.instances for record in found] == [3]


def test_an_archive_that_is_down_is_logged_once_and_when_it_is_back(held: Holding) -> None:
    archive = Scripted()
    sweeps = inquiry(held, archive)
    held.receive(1)
    with capture_logs() as logs:
        for why in ("it does not answer", "it does not answer", "", "", NOT_HELD):
            archive.why = why
            sweeps.sweep()
            held.clock.advance(5)
    assert [line["event"] for line in logs] == [
        "archive.count_not_known",
        "archive.count_known_again",
    ]
