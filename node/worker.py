"""Leases a job, runs its engine in a sandbox, keeps what came of it."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, cast

import structlog

from engines.manifest import RungTable
from engines.package import EnginePackage
from node.bell import Bell
from node.breaker import EngineBreaker
from node.interfaces import DeviceIdentity
from node.messages import HeldMessage, InstanceMessage, JobAnswer, JobRequest, ResultMessage
from node.result_files import keep_result
from node.result_profiles import ResultProfiles
from node.sandbox import (
    Deadlines,
    Sandbox,
    SandboxCancelled,
    SandboxCrash,
    SandboxDeadline,
    SandboxError,
    SandboxFailed,
    Watch,
)
from storage.events import EventStore
from storage.jobs import JobStore
from storage.objects import ObjectStore
from storage.packs import PackStore
from storage.records import (
    InstanceRecord,
    JobOutcome,
    LeasedJob,
    LeaseLostError,
    NewDelivery,
    NewResult,
    NewReview,
    OutOfResourcesError,
    StorageError,
)
from storage.records import (
    JsonValue as StoredJson,
)
from storage.states import ErrorClass, JobState

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """What to do with a job that failed for this kind of reason (R26). Seconds; None: no retry."""

    first: float | None
    factor: float = 2.0

    def delay(self, attempts: int) -> float | None:
        """Return how long to wait after so many attempts."""
        if self.first is None:
            return None
        return float(self.first * self.factor ** max(0, attempts - 1))


RETRY_POLICIES: Final[Mapping[ErrorClass, RetryPolicy]] = {
    ErrorClass.TRANSIENT: RetryPolicy(first=5.0),
    ErrorClass.OUT_OF_MEMORY: RetryPolicy(first=30.0),
    ErrorClass.DEADLINE: RetryPolicy(first=10.0),
    ErrorClass.CRASH: RetryPolicy(first=5.0),
    ErrorClass.DETERMINISTIC: RetryPolicy(first=None),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class InstalledEngine:
    """An engine package that may take jobs, where it lies, and how its model is run here.

    What one in `shadow`, on trial, finds is sent nowhere.
    """

    package: EnginePackage
    folder: Path
    rung: RungTable | None = None
    shadow: bool = False

    @property
    def deadlines(self) -> Deadlines:
        """How long a job may take: as the rung says, or else the package."""
        soft, hard = self.package.soft_deadline_seconds, self.package.hard_deadline_seconds
        if self.rung is not None:
            soft = self.rung.soft_deadline_seconds or soft
            hard = self.rung.hard_deadline_seconds or hard
        return Deadlines(soft=soft, hard=hard)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerLimits:
    """What a worker may use, and for how long it owns a job between two signs of life."""

    staging: Path
    plans: Path | None = None
    memory_mib: int
    threads: int
    lease_seconds: float
    idle_seconds: float


class Worker:
    """One thread, one sandbox, one job at a time."""

    def __init__(  # noqa: PLR0913 - what a worker is made of
        self,
        *,
        name: str,
        jobs: JobStore,
        events: EventStore,
        packs: PackStore,
        objects: ObjectStore,
        engines: Callable[[str], InstalledEngine | None],
        breaker: EngineBreaker,
        profiles: ResultProfiles,
        device: DeviceIdentity,
        limits: WorkerLimits,
        work: Bell | None = None,
        finished: Callable[[], None] = lambda: None,
    ) -> None:
        """Take jobs when `work` rings, or at the next look; say when one has `finished`."""
        self.name = name
        self._work = work or Bell()
        self._finished = finished
        self._jobs = jobs
        self._events = events
        self._packs = packs
        self._objects = objects
        self._engines = engines
        self._breaker = breaker
        self._profiles = profiles
        self._device = device
        self._limits = limits
        self._sandbox = Sandbox(memory_mib=limits.memory_mib)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name=name, daemon=True)

    def start(self) -> None:
        """Begin to take jobs."""
        self._thread.start()

    def stop(self) -> None:
        """Take no more jobs; the one in hand is given back and its process killed."""
        self._stop.set()
        self._work.ring()
        self._thread.join()
        self._sandbox.close()

    def _loop(self) -> None:
        while not self._stop.is_set():
            heard = self._work.rings
            try:
                leased = self._jobs.lease(
                    self.name, self._limits.lease_seconds, without=self._breaker.resting()
                )
            except StorageError as error:
                log.error("worker.no_lease", worker=self.name, error=type(error).__name__)
                leased = None
            if leased is None:
                self._work.wait(heard, self._limits.idle_seconds)
            else:
                self.run(leased)
                self._finished()

    def run(self, leased: LeasedJob) -> None:
        """Run one leased job to an end that is written in its row."""
        try:
            outcome = self._outcome(leased)
            self._jobs.finish(leased.job.id, leased.token, outcome)
            self._breaker.succeeded(leased.job.engine)
            log.info("job.finished", job_id=leased.job.id, state=outcome.state.value)
        except LeaseLostError:
            log.warning("job.lease_lost", job_id=leased.job.id, worker=self.name)
        except SandboxCancelled:
            self._give_back(leased)
        except Exception as error:  # noqa: BLE001 - the edge of a job: recorded in its row
            self._fail(leased, error)

    def _outcome(self, leased: LeasedJob) -> JobOutcome:
        engine = self._engines(leased.job.engine)
        if engine is None and leased.job.engine in self._breaker.resting():
            raise SandboxCancelled("the engine rests")
        if engine is None:
            raise SandboxFailed("engine_unavailable", f"engine {leased.job.engine} is not active")
        with tempfile.TemporaryDirectory(dir=self._limits.staging) as staging:
            request = self._request(leased, engine, Path(staging))
            answer = self._call(leased, engine, request)
            started = time.monotonic()
            results = self._keep_all(answer.results, engine)
            review = self._review(answer.held, engine)
        timings = {**answer.timings, "storing": round(time.monotonic() - started, 4)}
        return JobOutcome(
            state=JobState.REFUSED if answer.refused else JobState.SUCCEEDED,
            results=results,
            summary=self._summary(leased, answer, engine),
            timings=timings,
            deliveries=() if engine.shadow else self._deliveries(leased, answer),
            engine_version=engine.package.version,
            engine_digest=engine.package.digest,
            rejecting=() if engine.shadow else tuple(sorted(self._profiles.rejecting)),
            review=review,
        )

    def _review(self, held: HeldMessage | None, engine: InstalledEngine) -> NewReview | None:
        """Keep what a person has to judge; nobody judges what an engine on trial found."""
        if held is None or engine.shadow:
            return None
        return NewReview(
            kind=held.kind.value,
            reason=held.reason,
            results=self._keep_all(held.results, engine),
        )

    def _summary(
        self, leased: LeasedJob, answer: JobAnswer, engine: InstalledEngine
    ) -> Mapping[str, StoredJson]:
        """Say beside what was found what of it is sent nowhere, or not to everybody."""
        summary = cast("Mapping[str, StoredJson]", answer.summary)
        if engine.shadow:
            return {**summary, "shadow": True}
        kind = answer.kind if answer.held is None else answer.held.kind
        left_out = self._profiles.left_out(kind, leased.job.destinations)
        return {**summary, "left_out": left_out} if left_out else summary

    def _deliveries(self, leased: LeasedJob, answer: JobAnswer) -> tuple[NewDelivery, ...]:
        written = [message.writer for message in answer.results]
        return self._profiles.deliveries(answer.kind, leased.job.destinations, written)

    def _call(self, leased: LeasedJob, engine: InstalledEngine, request: JobRequest) -> JobAnswer:
        answer = self._sandbox.call(
            "run_job",
            request.model_dump(mode="json"),
            deadlines=engine.deadlines,
            watch=self._watch(leased),
        )
        return JobAnswer.model_validate(answer)

    def _watch(self, leased: LeasedJob) -> Watch:
        """Renew the lease while the job runs; give the work up when it is no longer ours."""
        renewed = time.monotonic()

        def keep_going() -> bool:
            nonlocal renewed
            if self._stop.is_set():
                return False
            if time.monotonic() - renewed < self._limits.lease_seconds / 3:
                return True
            renewed = time.monotonic()
            return self._jobs.renew(leased.job.id, leased.token, self._limits.lease_seconds)

        def soft_deadline() -> None:
            log.warning("job.soft_deadline", job_id=leased.job.id)
            self._events.append(
                "job.soft_deadline", study_id=leased.study.id, job_id=leased.job.id, details={}
            )

        return Watch(
            progress=lambda stage: self._progress(leased, stage),
            soft_deadline=soft_deadline,
            keep_going=keep_going,
        )

    def _progress(self, leased: LeasedJob, stage: str) -> None:
        log.debug("job.stage", job_id=leased.job.id, stage=stage)

    def _request(self, leased: LeasedJob, engine: InstalledEngine, staging: Path) -> JobRequest:
        job = leased.job
        return JobRequest(
            engine_folder=engine.folder,
            engine_digest=engine.package.digest,
            rung=engine.rung,
            plans=self._limits.plans,
            instances=tuple(self._instance(item) for item in leased.instances),
            series_instance_uids=job.series_instance_uids,
            staging=staging,
            threads=self._limits.threads,
            job_key=job_key(leased),
            generation=job.revision,
            created=job.created_at,
            series_created=leased.series_created_at,
            rule=job.rule,
            rule_revision=job.rule_revision,
            objects=self._profiles.wanted(job.destinations),
            device={
                "manufacturer": self._device.manufacturer,
                "model": self._device.model,
                "serial_number": self._device.serial_number,
                "station_name": self._device.station_name,
                "software_version": self._device.software_version,
            },
            superseded=tuple(
                {
                    "writer": item.writer,
                    "sop_class_uid": item.sop_class_uid,
                    "sop_instance_uid": item.sop_instance_uid,
                    "series_instance_uid": item.series_instance_uid,
                    "study_instance_uid": item.study_instance_uid,
                }
                for item in leased.predecessors
            ),
        )

    def _instance(self, item: InstanceRecord) -> InstanceMessage:
        return InstanceMessage(
            path=self._packs.path(item.location),
            offset=item.location.offset,
            length=item.location.length,
            sop_instance_uid=item.sop_instance_uid,
            sop_class_uid=item.sop_class_uid,
        )

    def _keep_all(
        self, messages: Sequence[ResultMessage], engine: InstalledEngine
    ) -> tuple[NewResult, ...]:
        """Move checked result files into the object store, durably."""
        return tuple(
            replace(keep_result(self._objects, item), withheld=engine.shadow) for item in messages
        )

    def _give_back(self, leased: LeasedJob) -> None:
        """Return a job that was interrupted on purpose; its lease may be gone already."""
        try:
            self._jobs.give_back(leased.job.id, leased.token)
        except (LeaseLostError, StorageError):
            log.info("job.not_given_back", job_id=leased.job.id)

    def _fail(self, leased: LeasedJob, error: Exception) -> None:
        error_class = classify(error)
        retry_in = RETRY_POLICIES[error_class].delay(leased.job.attempts)
        try:
            state = self._jobs.fail(
                leased.job.id,
                leased.token,
                error_class=error_class,
                error=describe(error),
                retry_in=retry_in,
            )
        except StorageError as storage_error:
            log.error(
                "job.failure_not_written",
                job_id=leased.job.id,
                error=type(storage_error).__name__,
            )
            return
        log.error(
            "job.failed",
            job_id=leased.job.id,
            state=state.value,
            error_class=error_class.value,
        )
        try:
            self._breaker.failed(leased.job.engine, leased.study.id, error_class)
        except StorageError as storage_error:
            log.error("engine.quarantine_not_written", error=type(storage_error).__name__)


def job_key(leased: LeasedJob) -> str:
    """Name a job so that a second run of it makes the same objects (invariant 13).

    The same study revision, rule, engine and series always give the same key; a database id would
    not survive a restored backup.
    """
    job = leased.job
    series = ",".join(sorted(job.series_instance_uids))
    return f"{job.study_instance_uid}|{job.revision}|{job.rule}|{job.engine}|{series}"


def classify(error: Exception) -> ErrorClass:
    """Sort an error into the class that decides about a retry."""
    if isinstance(error, SandboxFailed):
        known = {item.value: item for item in ErrorClass}
        return known.get(error.kind, ErrorClass.DETERMINISTIC)
    if isinstance(error, SandboxDeadline):
        return ErrorClass.DEADLINE
    if isinstance(error, SandboxCrash):
        return ErrorClass.CRASH
    if isinstance(error, OutOfResourcesError | StorageError | OSError):
        return ErrorClass.TRANSIENT
    return ErrorClass.DETERMINISTIC


def describe(error: Exception) -> str:
    """Word an error for the job's row: no text of a data set can be in it."""
    if isinstance(error, SandboxError | StorageError):
        return str(error)[:1000]
    return type(error).__qualname__
