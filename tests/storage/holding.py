"""A node's stores over one database, and short ways to put studies, jobs and results into them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, Final, TypeVar

from sqlalchemy import CursorResult, text

from storage.associations import AssociationStore
from storage.database import Database
from storage.deliveries import DeliveryStore
from storage.engines import EngineStore
from storage.events import EventStore
from storage.jobs import JobStore
from storage.recalls import RecallStore
from storage.records import (
    DeliveryAttempt,
    JobOutcome,
    LeasedDelivery,
    LeasedJob,
    Location,
    NewInstance,
    NewJob,
    NewResult,
    NewReview,
    Recorded,
    Routing,
    SeriesAttributes,
    StudyAttributes,
    StudyRecord,
)
from storage.reviews import ReviewStore
from storage.rules import RuleStore
from storage.states import DeliveryState, JobState, Reached
from storage.studies import StudyStore
from storage.withdrawals import WithdrawalStore

STUDY: Final = "1.2.826.0.1.1"
CT: Final = "1.2.840.10008.5.1.4.1.1.2"
SEGMENTATION: Final = "1.2.840.10008.5.1.4.1.1.66.4"
LITTLE_ENDIAN: Final = "1.2.840.10008.1.2.1"
QUIET: Final = 30.0

R = TypeVar("R")


class SetClock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = datetime(2024, 3, 1, 8, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += timedelta(seconds=seconds)


class Holding:
    """Every store over one database, with a clock that the test moves."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.clock = SetClock()
        self.database = Database(url)
        self.associations = AssociationStore(self.database, self.clock)
        self.studies = StudyStore(self.database, self.clock)
        self.jobs = JobStore(self.database, self.clock)
        self.deliveries = DeliveryStore(self.database, self.clock)
        self.events = EventStore(self.database, self.clock)
        self.rules = RuleStore(self.database, self.clock)
        self.engines = EngineStore(self.database, self.clock)
        self.recalls = RecallStore(self.database, self.clock)
        self.withdrawals = WithdrawalStore(self.database, self.clock)
        self.reviews = ReviewStore(self.database, self.clock)

    def receive(self, number: int = 1, **changes: Any) -> Recorded:  # noqa: ANN401
        """Record one instance; the number stands for its UID and its bytes."""
        association_id = changes.pop("association_id", None)
        return self.studies.record(new_instance(number, **changes), association_id)

    def complete(self, study: str = STUDY) -> StudyRecord:
        """Let a study fall quiet and close it."""
        self.clock.advance(QUIET)
        record = self.studies.get(study)
        assert self.studies.complete(record.id, record.revision, {"kind": "quiet"})
        return self.studies.get(study)

    def route(self, study: str = STUDY, *, jobs: int = 1, max_attempts: int = 3) -> list[int]:
        """Close a study and make jobs for it."""
        record = self.complete(study)
        rules = self.rules.save("rules", by="test")
        return self.studies.route(
            record.id, record.revision, routing(rules.revision, jobs), max_attempts
        )

    def lease(self, seconds: float = 60.0) -> LeasedJob:
        """Claim a job that must be there."""
        leased = self.jobs.lease("worker-1", seconds)
        assert leased is not None
        return leased

    def finish(self, results: int = 1) -> Sequence[int]:
        """Run the most urgent job to its end; return its deliveries."""
        leased = self.lease()
        return self.jobs.finish(leased.job.id, leased.token, outcome(leased, results))

    def hold_back(self) -> int:
        """Run the most urgent job to an end that has to be reviewed; return the review."""
        leased = self.lease()
        held = tuple(new_result(f"2.25.{leased.job.id}9{index}") for index in range(2))
        review = NewReview(kind="segmentation", reason="a lung of 9 ml", results=held)
        told = replace(outcome(leased), state=JobState.REFUSED, review=review)
        self.jobs.finish(leased.job.id, leased.token, told)
        return self.reviews.list()[0].id

    def deliverable(self, results: int = 1) -> Sequence[int]:
        """Take one study all the way to waiting deliveries; return them."""
        self.deliveries.set_destinations([("PACS", "dimse")])
        self.receive()
        self.route()
        return self.finish(results)

    def send(self, seconds: float = 60.0) -> LeasedDelivery:
        """Claim a delivery that must be there."""
        (leased,) = self.deliveries.lease("PACS", limit=1, seconds=seconds)
        return leased

    def actions(self, study: str = STUDY) -> list[str]:
        """Return the actions on a study's timeline, oldest first."""
        return [event.action for event in self.events.timeline(self.studies.get(study).id)]

    def execute(self, statement: str, **values: object) -> Sequence[Any]:
        """Run a statement behind the stores' back; return its rows, if it gives any."""
        with self.database.transaction() as session:
            result = session.execute(text(statement), values)
            return result.all() if isinstance(result, CursorResult) and result.returns_rows else []

    def close(self) -> None:
        """Close every connection."""
        self.database.close()


def new_instance(  # noqa: PLR0913 - what a test may want to vary
    number: int = 1,
    *,
    study: str = STUDY,
    series: int = 1,
    data: str | None = None,
    quiet_seconds: float = QUIET,
    attributes: StudyAttributes | None = None,
    sop_instance_uid: str | None = None,
    calling_ae: str = "SCANNER",
) -> NewInstance:
    """Return an instance; `data` stands for its bytes."""
    uid = sop_instance_uid or f"{study}.{series}.{number}"
    return NewInstance(
        study_instance_uid=study,
        series_instance_uid=f"{study}.{series}",
        sop_instance_uid=uid,
        sop_class_uid=CT,
        transfer_syntax_uid=LITTLE_ENDIAN,
        instance_number=str(number),
        digest=digest(data or uid),
        size=1000 + number,
        study=attributes or StudyAttributes(patient_id="P1", patient_name="Doe^Jane"),
        series=SeriesAttributes(modality="CT", series_number=str(series)),
        listener="dimse",
        calling_ae=calling_ae,
        peer_address="127.0.0.1",
        location=Location(pack="0" * 32, offset=64 + 2000 * number, length=1400 + number),
        quiet_seconds=quiet_seconds,
    )


def routing(rule_revision: int, jobs: int, destinations: Sequence[str] = ("PACS",)) -> Routing:
    """Return a routing of so many jobs, each by its own rule."""
    return Routing(
        rule_revision=rule_revision,
        jobs=tuple(
            NewJob(
                rule=f"rule-{number}",
                engine="liver",
                priority=0,
                series_instance_uids=(f"{STUDY}.1",),
                destinations=tuple(destinations),
            )
            for number in range(jobs)
        ),
        explanation={"rules": jobs},
    )


def outcome(leased: LeasedJob, results: int = 1) -> JobOutcome:
    """Return a success with so many result objects, all named after the job."""
    return JobOutcome(
        state=JobState.SUCCEEDED,
        results=tuple(new_result(f"2.25.{leased.job.id}{index}") for index in range(results)),
        summary={"findings": results},
        timings={"inference": 0.5},
        engine_version="1.0",
        engine_digest=digest("liver 1.0"),
    )


def new_result(sop_instance_uid: str) -> NewResult:
    """Return a result object."""
    return NewResult(
        writer="segmentation",
        sop_class_uid=SEGMENTATION,
        sop_instance_uid=sop_instance_uid,
        series_instance_uid="2.25.7",
        transfer_syntax_uid=LITTLE_ENDIAN,
        digest=digest(sop_instance_uid),
        size=10,
    )


def arrived() -> DeliveryAttempt:
    """Return an attempt that the destination answered with success."""
    return DeliveryAttempt(state=DeliveryState.SENT, status=0x0000)


def failed(retry_in: float = 5.0) -> DeliveryAttempt:
    """Return an attempt that is made again later."""
    return DeliveryAttempt(
        state=DeliveryState.QUEUED,
        reached=Reached.NO,
        status=0xA700,
        error="out of resources",
        retry_in=retry_in,
    )


def digest(data: str) -> str:
    """Return the digest that stands for some bytes."""
    return sha256(data.encode()).hexdigest()


def at_once(*calls: Callable[[], R]) -> list[R]:
    """Run calls in a thread each, started together; return what each returned, in order."""
    start = threading.Barrier(len(calls))
    returned: dict[int, R] = {}
    raised: list[BaseException] = []

    def run(index: int, call: Callable[[], R]) -> None:
        start.wait()
        try:
            returned[index] = call()
        except BaseException as error:  # noqa: BLE001 - raised again in the test's own thread
            raised.append(error)

    threads = [threading.Thread(target=run, args=(index, call)) for index, call in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if raised:
        raise raised[0]
    return [returned[index] for index in range(len(calls))]
