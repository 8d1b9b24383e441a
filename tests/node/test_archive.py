"""The archive is asked over real associations: Orthanc that answers, and one that does not."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.events import Event

from node.archive import (
    MOST_ANSWERS,
    STUDY_ROOT_FIND,
    Archive,
    ArchiveAnswer,
    ArchivePeer,
    SeriesCount,
)
from tests.end_to_end.processes import Orthanc, free_port, storescu
from tests.factories import make_ct_series

STUDY = "1.2.3"
Answers: TypeAlias = Iterator[tuple[int, Dataset | None]]
Script: TypeAlias = Callable[[Dataset], Answers]


def archive(port: int, *, called: str = "PACS", seconds: float = 10.0) -> Archive:
    return Archive(
        ArchivePeer(
            host="127.0.0.1",
            port=port,
            ae_title=called,
            calling_ae_title="WETREAD",
            connect_seconds=seconds,
            acse_seconds=seconds,
            dimse_seconds=seconds,
        )
    )


def asked(script: Script, *studies: str, seconds: float = 10.0) -> list[ArchiveAnswer]:
    """Ask an archive that answers by a script about some studies."""
    ae = AE(ae_title="PACS")
    ae.add_supported_context(STUDY_ROOT_FIND)
    handlers: list[evt.EventHandlerType] = [
        (evt.EVT_C_FIND, lambda event: _scripted(script, event))
    ]
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    assert server is not None
    assert server.socket is not None
    try:
        port = server.socket.getsockname()[1]
        return list(archive(port, seconds=seconds).ask(studies or (STUDY,)))
    finally:
        server.shutdown()


def _scripted(script: Script, event: Event) -> Answers:
    yield from script(event.identifier)


def match(query: Dataset, study: str = STUDY, **values: object) -> Dataset:
    found = Dataset()
    found.QueryRetrieveLevel = query.QueryRetrieveLevel
    found.StudyInstanceUID = study
    for keyword, value in values.items():
        setattr(found, keyword, value)
    return found


def counts(study: str | None, **series: str | None) -> Script:
    """Return a script of an archive that holds a study with some series; None: no count."""

    def script(query: Dataset) -> Answers:
        if query.QueryRetrieveLevel == "STUDY":
            found = match(query, study=query.StudyInstanceUID, PatientName="Doe^Jane")
            if study is not None:
                found.NumberOfStudyRelatedInstances = study
            yield 0xFF00, found
            return
        for uid, number in series.items():
            found = match(query, SeriesInstanceUID=f"{STUDY}.{uid[1:]}", Modality="CT")
            if number is not None:
                found.NumberOfSeriesRelatedInstances = number
            yield 0xFF01, found

    return script


def fails(status: int, level: str = "STUDY") -> Script:
    def script(query: Dataset) -> Answers:
        if query.QueryRetrieveLevel == level:
            yield status, None
        else:
            yield from counts("3")(query)

    return script


def test_orthanc_tells_how_many_instances_study_and_series_have(tmp_path: Path) -> None:
    first = make_ct_series(tmp_path / "1", slices=3, rows=8, columns=8)
    second = make_ct_series(tmp_path / "2", slices=2, rows=8, columns=8, series=2)
    headers = [dcmread(files[0], stop_before_pixels=True) for files in (first, second)]
    uid = str(headers[0].StudyInstanceUID)
    with Orthanc(folder=tmp_path / "orthanc") as orthanc:
        storescu(orthanc.dicom_port, [*first, *second], called="PACS")
        answer, other = archive(orthanc.dicom_port).ask((uid, "1.2.3.4"))
    assert answer == ArchiveAnswer(
        study_instance_uid=uid,
        instances=5,
        series={
            str(header.SeriesInstanceUID): SeriesCount(modality="CT", instances=number)
            for header, number in zip(headers, (3, 2), strict=True)
        },
    )
    assert other.why == "it does not hold the study"


def test_counts_of_study_and_series_are_told() -> None:
    (answer,) = asked(counts("5", s1="2", s2=None))
    assert (answer.instances, answer.why) == (5, "")
    assert {uid: item.instances for uid, item in answer.series.items()} == {
        f"{STUDY}.1": 2,
        f"{STUDY}.2": None,
    }


@pytest.mark.parametrize("study", [None, "", "-3", "3.5", "99999999999"])
@pytest.mark.filterwarnings("ignore:Invalid value for VR IS")
def test_an_archive_without_a_usable_count_is_not_known(study: str | None) -> None:
    def script(query: Dataset) -> Answers:
        found = match(query)
        if study is not None:
            found.add_new(0x00201208, "LO", study)  # Number of Study Related Instances
        yield 0xFF00, found

    (answer,) = asked(script)
    assert (answer.instances, answer.why) == (None, "it gives no counts")


def test_series_that_count_make_up_for_a_study_that_does_not() -> None:
    (answer,) = asked(counts(None, s1="2"))
    assert (answer.instances, answer.series[f"{STUDY}.1"].instances, answer.why) == (None, 2, "")


def test_answers_about_other_studies_are_not_taken_for_this_one() -> None:
    def script(query: Dataset) -> Answers:
        yield 0xFF00, match(query, study="9.9", NumberOfStudyRelatedInstances="7")

    (answer,) = asked(script)
    assert answer.why == "it does not hold the study"


@pytest.mark.parametrize(
    ("status", "meaning"),
    [
        (0xA700, "status 0xA700: out of resources"),
        (0xA900, "status 0xA900: identifier does not match SOP class"),
        (0xC000, "status 0xC000: unable to process"),
        (0xC123, "status 0xC123: unable to process"),
        (0xFE00, "status 0xFE00: cancelled"),
        (0x0122, "status 0x0122: SOP class not supported"),
    ],
)
def test_a_failure_is_not_known_for_this_study_and_the_next_is_asked(
    status: int, meaning: str
) -> None:
    def script(query: Dataset) -> Answers:
        yield from (fails(status) if query.StudyInstanceUID == STUDY else counts("3"))(query)

    first, second = asked(script, STUDY, "1.2.4")
    assert first.why == meaning
    assert (second.instances, second.why) == (3, "")


def test_a_part_of_the_matches_is_no_count() -> None:
    (answer,) = asked(fails(0xB001))
    assert answer.why == "status 0xB001: only a part of the matches"


def test_a_failure_at_series_level_leaves_the_count_of_the_study() -> None:
    (answer,) = asked(fails(0xC000, "SERIES"))
    assert (answer.instances, answer.series, answer.why) == (3, {}, "")


def test_an_archive_that_hangs_is_given_up_and_the_rest_is_not_asked() -> None:
    def script(_: Dataset) -> Answers:
        time.sleep(1.0)
        yield 0xFF00, None

    first, second = asked(script, STUDY, "1.2.4", seconds=0.3)
    assert first.why == second.why == "no answer: the association was aborted or timed out"


def test_an_archive_whose_answers_do_not_end_is_cut_off() -> None:
    def script(query: Dataset) -> Answers:
        for _ in range(MOST_ANSWERS + 100):
            yield 0xFF00, match(query)

    first, second = asked(script, STUDY, "1.2.4")
    assert first.why == second.why == "its answer did not come to an end"


def test_an_archive_that_is_down_is_not_known() -> None:
    assert [answer.why for answer in archive(free_port()).ask((STUDY, "1.2.4"))] == [
        "it does not answer"
    ] * 2


def test_an_archive_that_accepts_and_says_nothing_is_not_known() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        (answer,) = archive(listener.getsockname()[1], seconds=0.3).ask((STUDY,))
    assert answer.why == "it does not answer"


def test_an_archive_that_refuses_the_association_or_the_query_is_not_known() -> None:
    ae = AE(ae_title="PACS")
    ae.require_called_aet = True
    ae.add_supported_context("1.2.840.10008.1.1")
    server = ae.start_server(("127.0.0.1", 0), block=False)
    assert server is not None
    assert server.socket is not None
    try:
        port = server.socket.getsockname()[1]
        (rejected,) = archive(port, called="OTHER").ask((STUDY,))
        (without,) = archive(port).ask((STUDY,))
    finally:
        server.shutdown()
    assert rejected.why == "the association was rejected"
    assert without.why == "it takes no query of the Study Root model"
