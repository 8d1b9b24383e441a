"""Procedure steps and availability over real associations, from the message to the row."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE

from node.expectation import Expectation, ExpectationError, ExpectationKind, NotKeptNow, StepState
from node.expecting import keep_expectation
from node.listeners._attributes import EXPLICIT_LITTLE, Encoded
from node.listeners._procedure_steps import AVAILABILITY, PROCEDURE_STEP, n_create, n_set
from storage.database import Database, migrate
from storage.expectations import ExpectationStore, SaidRecord
from storage.states import ExpectationSource, ExpectationState
from tests.node.listeners.receiving import KeepingIngest, listener_for

STUDY, SERIES, STEP = "1.2.3", "1.2.3.4", "2.25.1"


class ExpectingIngest(KeepingIngest):
    """Keeps what is said in a store, as the node's ingest does."""

    def __init__(self, store: ExpectationStore) -> None:
        super().__init__()
        self.store = store

    def expected(self, expectation: Expectation) -> None:
        keep_expectation(self.store, expectation)


class Bench:
    """A listener, and a modality that is associated with it."""

    def __init__(
        self, database: Database, ingest: KeepingIngest, syntax: str = ExplicitVRLittleEndian
    ) -> None:
        self.store = ExpectationStore(database, lambda: datetime(2026, 1, 2, tzinfo=UTC))
        scu = AE(ae_title="MOD")
        for sop_class in (PROCEDURE_STEP, AVAILABILITY):
            scu.add_requested_context(sop_class, syntax)
        scu.acse_timeout = scu.dimse_timeout = scu.network_timeout = 10
        self.listener = listener_for(ingest)
        self.listener.start()
        self.association = scu.associate("127.0.0.1", self.listener.port, ae_title="WETREAD")
        assert self.association.is_established

    def create(self, attributes: Dataset, uid: str = STEP, sop_class: str = PROCEDURE_STEP) -> int:
        answer, _ = self.association.send_n_create(attributes, sop_class, uid)
        return int(answer.Status)

    def set(self, modifications: Dataset, uid: str = STEP) -> Dataset:
        answer, _ = self.association.send_n_set(modifications, PROCEDURE_STEP, uid)
        return answer

    def said(self) -> SaidRecord:
        (record,) = self.store.of([STUDY])[STUDY]
        return record

    def close(self) -> None:
        self.association.release()
        self.listener.stop()


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("expectations") / "wetread.db"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture(
    params=[ExplicitVRLittleEndian, ImplicitVRLittleEndian], ids=["explicit", "implicit"]
)
def bench(template: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Bench]:
    shutil.copy(template, tmp_path / "wetread.db")
    database = Database(f"sqlite:///{tmp_path}/wetread.db")
    store = ExpectationStore(database, lambda: datetime(2026, 1, 2, tzinfo=UTC))
    made = Bench(database, ExpectingIngest(store), request.param)
    yield made
    made.close()
    database.close()


def item(**values: object) -> Dataset:
    dataset = Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


def step(status: str | None = "IN PROGRESS", study: str = STUDY) -> Dataset:
    """Return the attributes of an N-CREATE, with a patient's name that must go nowhere."""
    dataset = item(
        PatientName="Doe^Jane",
        PatientID="P1",
        Modality="CT",
        ScheduledStepAttributesSequence=[item(StudyInstanceUID=study)],
        PerformedSeriesSequence=[],
    )
    if status is not None:
        dataset.PerformedProcedureStepStatus = status
    return dataset


def performed(status: str, **series: int) -> Dataset:
    """Return the modifications of an N-SET: of each series one image more is a report."""
    return item(
        PerformedProcedureStepStatus=status,
        PerformedSeriesSequence=[
            item(
                SeriesInstanceUID=f"{SERIES}.{uid[1:]}",
                ReferencedImageSequence=[
                    item(ReferencedSOPInstanceUID=f"{SERIES}.{uid[1:]}.{number}")
                    for number in range(count)
                ],
                ReferencedNonImageCompositeSOPInstanceSequence=[
                    item(ReferencedSOPInstanceUID=f"{SERIES}.{uid[1:]}.99")
                ],
            )
            for uid, count in series.items()
        ],
    )


def available(study: str = STUDY, **availability: str) -> Dataset:
    return item(
        StudyInstanceUID=study,
        ReferencedSeriesSequence=[
            item(
                SeriesInstanceUID=SERIES,
                ReferencedSOPSequence=[
                    item(ReferencedSOPInstanceUID=f"{SERIES}.{uid[1:]}", InstanceAvailability=state)
                    for uid, state in availability.items()
                ],
            )
        ],
    )


def test_a_step_that_begins_and_completes_leaves_its_instances_by_series(bench: Bench) -> None:
    assert bench.create(step()) == 0x0000
    assert bench.said().said.state is ExpectationState.IN_PROGRESS
    assert bench.set(performed("COMPLETED", s1=2, s2=1)).Status == 0x0000
    said = bench.said().said
    assert (said.source, said.state) == (
        ExpectationSource.PROCEDURE_STEP,
        ExpectationState.COUNTED,
    )
    assert {uid: part.sop_instance_uids for uid, part in said.series.items()} == {
        f"{SERIES}.1": (f"{SERIES}.1.0", f"{SERIES}.1.1", f"{SERIES}.1.99"),
        f"{SERIES}.2": (f"{SERIES}.2.0", f"{SERIES}.2.99"),
    }


def test_a_discontinued_step_is_kept_as_such(bench: Bench) -> None:
    bench.create(step())
    assert bench.set(performed("DISCONTINUED")).Status == 0x0000
    assert bench.said().said.state is ExpectationState.DISCONTINUED


def test_a_message_without_status_leaves_the_step_in_progress(bench: Bench) -> None:
    bench.create(step())
    assert bench.set(item(PerformedProcedureStepDescription="Doe^Jane")).Status == 0x0000
    assert bench.said().said.state is ExpectationState.IN_PROGRESS


def test_a_step_that_is_not_known_is_answered_no_such_object_instance(bench: Bench) -> None:
    assert bench.set(performed("COMPLETED")).Status == 0x0112


def test_a_step_that_has_ended_may_no_longer_be_updated(bench: Bench) -> None:
    bench.create(step())
    bench.set(performed("COMPLETED", s1=1))
    answer = bench.set(performed("COMPLETED", s1=7))
    assert (answer.Status, answer.ErrorID) == (0x0110, 0xA710)
    assert answer.ErrorComment == "Performed Procedure Step Object may no longer be updated"
    assert bench.said().said.series[f"{SERIES}.1"].instances == 2


def test_a_notification_counts_what_is_available(bench: Bench) -> None:
    attributes = available(s1="ONLINE", s2="NEARLINE", s3="UNAVAILABLE")
    assert bench.create(attributes, "2.25.9", AVAILABILITY) == 0x0000
    said = bench.said().said
    assert (said.source, said.state) == (ExpectationSource.AVAILABILITY, ExpectationState.COUNTED)
    assert said.series[SERIES].sop_instance_uids == (f"{SERIES}.1", f"{SERIES}.2")


def test_the_same_instance_twice_is_a_duplicate(bench: Bench) -> None:
    bench.create(step())
    assert bench.create(step()) == 0x0111


@pytest.mark.parametrize(
    ("make", "status"),
    [
        (lambda: step("COMPLETED"), 0x0106),
        (lambda: step("PAUSED"), 0x0106),
        (lambda: step(None), 0x0120),
        (lambda: item(PerformedProcedureStepStatus="IN PROGRESS"), 0x0120),
        (lambda: step(study=""), 0x0120),
        (lambda: step(study="1.2.x"), 0x0106),
        (lambda: step(study="1." * 40 + "1"), 0x0106),
    ],
    ids=["completed", "no term", "no status", "no item", "no study", "no UID", "long UID"],
)
def test_a_step_that_cannot_be_used_is_answered_by_cause(
    bench: Bench, make: Callable[[], Dataset], status: int
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's, where the test writes what is not valid
        attributes = make()
        assert bench.create(attributes) == status
    assert bench.store.of([STUDY]) == {}


def test_a_notification_without_series_is_refused(bench: Bench) -> None:
    assert bench.create(item(StudyInstanceUID=STUDY), "2.25.9", AVAILABILITY) == 0x0120


def test_another_sop_class_and_a_bad_instance_uid_are_refused() -> None:
    ingest, nothing = KeepingIngest(), Encoded(b"", EXPLICIT_LITTLE)
    assert n_create("1.2.840.10008.1.1", STEP, nothing, ingest).Status == 0x0122
    assert n_set(AVAILABILITY, STEP, nothing, ingest).Status == 0x0122
    assert n_create(PROCEDURE_STEP, "", nothing, ingest).Status == 0x0117
    assert n_set(PROCEDURE_STEP, "../etc", nothing, ingest).Status == 0x0117


def test_a_data_set_that_cannot_be_decoded_is_a_processing_failure() -> None:
    broken = Encoded(b"Doe^Jane", EXPLICIT_LITTLE)
    answer = n_create(PROCEDURE_STEP, STEP, broken, KeepingIngest())
    assert (answer.Status, answer.ErrorComment) == (0x0110, "the data set cannot be read")


def test_a_database_that_is_away_is_a_resource_limitation(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/gone/wetread.db")
    store = ExpectationStore(database, lambda: datetime(2026, 1, 2, tzinfo=UTC))
    expectation = Expectation(
        kind=ExpectationKind.STEP_SET, sop_instance_uid=STEP, state=StepState.COMPLETED
    )
    with pytest.raises(NotKeptNow) as raised:
        keep_expectation(store, expectation)
    assert raised.value.status == 0x0213
    database.close()


def test_every_refusal_is_an_expectation_error() -> None:
    assert {kind.status for kind in ExpectationError.__subclasses__()} == {
        0x0110,
        0x0111,
        0x0112,
        0x0213,
    }
