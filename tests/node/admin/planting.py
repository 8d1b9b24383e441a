"""A node's state on SQLite with a study in it, made through the stores only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

from node.admin.context import AdminContext, ListenerSummary, SettingsSummary
from storage.associations import AssociationStore
from storage.database import Database, migrate
from storage.deliveries import DeliveryStore
from storage.engines import EngineStore
from storage.events import EventStore
from storage.holds import HoldStore
from storage.jobs import JobStore
from storage.objects import ObjectStore
from storage.packs import PackStore
from storage.recalls import RecallStore
from storage.records import (
    DeliveryAttempt,
    EngineRecord,
    JobOutcome,
    JsonValue,
    Location,
    NewDelivery,
    NewInstance,
    NewJob,
    NewResult,
    NewReview,
    QuarantinedInstance,
    Recorded,
    Routing,
    SeriesAttributes,
    StudyAttributes,
    StudyRecord,
)
from storage.retention import Retention
from storage.retention_records import RetentionPolicy
from storage.reviews import ReviewStore
from storage.rules import RuleStore
from storage.states import (
    AssociationState,
    DeliveryState,
    EngineState,
    ErrorClass,
    JobState,
)
from storage.studies import StudyStore
from storage.withdrawals import WithdrawalStore

STUDY = "1.2.826.0.1.3680043.8.498.777.1"
SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
CT = "1.2.840.10008.5.1.4.1.1.2"
LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
ADDRESS = "dicom://WETREAD@127.0.0.1:11112"
RULES = '[[rules]]\nname = "abdomen"\nengines = ["liver"]\n'
EXPLANATION: Mapping[str, JsonValue] = {
    "rules": [
        {
            "rule": "abdomen",
            "matched": True,
            "jobs": 1,
            "conditions": {
                "field": "Modality",
                "op": "equals",
                "value": "CT",
                "found": ["CT"],
                "verdict": True,
            },
        },
        {
            "rule": "heads",
            "matched": False,
            "jobs": 0,
            "why": "its conditions do not hold",
            "conditions": {
                "all": [
                    {
                        "field": "BodyPartExamined",
                        "op": "contains",
                        "value": "HEAD",
                        "found": None,
                        "verdict": False,
                    }
                ],
                "verdict": False,
            },
        },
    ],
    "unreadable_instances": {},
}

FINDING: Mapping[str, JsonValue] = {
    "verdict": "finding",
    "limits": ["The field of view cuts the region."],
    "left_out": {"viewer": ["box_report"]},
    "findings": [
        {
            "label": "Liver",
            "measurements": [
                {
                    "name": "Volume",
                    "derivation": None,
                    "value": 1512.25,
                    "unit": "mL",
                    "slice": None,
                }
            ],
        }
    ],
}


@dataclass(slots=True)
class SteppingClock:
    """A clock that stands still until it is moved."""

    now: datetime = datetime(2026, 7, 15, 10, 0, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def forward(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What the node says of its health."""

    components: Mapping[str, str] = field(default_factory=lambda: {"database": "", "disk": ""})
    live: bool = True


def digest_of(text: str) -> str:
    return sha256(text.encode()).hexdigest()


class PlantedNode:
    """Stores over one SQLite file, and the means to move a study through them."""

    def __init__(self, folder: Path) -> None:
        url = f"sqlite:///{folder / 'wetread.db'}"
        migrate(url)
        self.clock = SteppingClock()
        self.database = Database(url)
        self.associations = AssociationStore(self.database, self.clock)
        self.studies = StudyStore(self.database, self.clock)
        self.jobs = JobStore(self.database, self.clock)
        self.deliveries = DeliveryStore(self.database, self.clock)
        self.rules = RuleStore(self.database, self.clock)
        self.engines = EngineStore(self.database, self.clock)
        self.events = EventStore(self.database, self.clock)
        self.holds = HoldStore(self.database, self.clock)
        self.recalls = RecallStore(self.database, self.clock)
        self.withdrawals = WithdrawalStore(self.database, self.clock)
        self.reviews = ReviewStore(self.database, self.clock)

    def context(
        self,
        *,
        answers: Answers | None = None,
        listeners: tuple[ListenerSummary, ...] = (ListenerSummary(name="dimse", address=ADDRESS),),
    ) -> AdminContext:
        said = answers or Answers()
        return AdminContext(
            studies=self.studies,
            jobs=self.jobs,
            deliveries=self.deliveries,
            rules=self.rules,
            engines=self.engines,
            events=self.events,
            associations=self.associations,
            holds=self.holds,
            recalls=self.recalls,
            withdrawals=self.withdrawals,
            reviews=self.reviews,
            policy=RetentionPolicy(studies_days=30, low_bytes=5 << 30, high_bytes=9 << 30),
            free_bytes=lambda: 7 << 30,
            device_name="WETREAD-TEST",
            version="0.1.0",
            clock=self.clock,
            readiness=lambda: said.components,
            live=lambda: said.live,
            settings=SettingsSummary(
                listeners=listeners,
                destinations={"PACS": "dicom://PACS@127.0.0.1:104"},
                lines=(("Quiet time", "30 s"),),
            ),
        )

    def configure(self) -> None:
        """Save rules, register one engine that works and one that does not, name destinations."""
        self.rules.save(RULES, by="anna")
        self.engines.register(engine("liver", EngineState.ACTIVE))
        self.engines.register(engine("nodule", EngineState.UNAVAILABLE, "no GPU is there"))
        self.deliveries.set_destinations([("PACS", "dimse"), ("ARCHIVE", "dimse")])

    def receive(
        self,
        study: str = STUDY,
        *,
        number: int = 1,
        attributes: StudyAttributes | None = None,
        content: str = "",
        association_id: int | None = None,
    ) -> Recorded:
        sop = f"{study}.1.{number}"
        return self.studies.record(
            NewInstance(
                study_instance_uid=study,
                series_instance_uid=f"{study}.1",
                sop_instance_uid=sop,
                sop_class_uid=CT,
                transfer_syntax_uid=LITTLE_ENDIAN,
                instance_number=str(number),
                digest=digest_of(content or sop),
                size=524_288,
                study=attributes or StudyAttributes(patient_name="DOE^JANE", patient_id="P1"),
                series=SeriesAttributes(modality="CT", series_number="2"),
                listener="dimse",
                calling_ae="CT_SCANNER",
                peer_address="10.0.0.5",
                location=Location(pack="0" * 32, offset=64, length=524_688),
                quiet_seconds=30,
            ),
            association_id,
        )

    def complete(self, study: str = STUDY) -> StudyRecord:
        self.clock.forward(60)
        record = self.studies.get(study)
        evidence: Mapping[str, JsonValue] = {"kind": "quiet time", "quiet_seconds": 60.0}
        assert self.studies.complete(record.id, record.revision, evidence)
        return self.studies.get(study)

    def route(
        self,
        study: str = STUDY,
        *,
        engines: tuple[str, ...] = ("liver",),
        explanation: Mapping[str, JsonValue] = EXPLANATION,
    ) -> list[int]:
        record = self.complete(study)
        jobs = tuple(
            NewJob(
                rule="abdomen",
                engine=name,
                priority=50,
                series_instance_uids=(f"{study}.1",),
                destinations=("PACS", "ARCHIVE"),
            )
            for name in engines
        )
        routing = Routing(rule_revision=1, jobs=jobs, explanation=explanation)
        return self.studies.route(record.id, record.revision, routing)

    def succeed(
        self, *, results: int = 1, deliveries: tuple[NewDelivery, ...] | None = None
    ) -> None:
        """Let the next job find something, and make its results."""
        leased = self.jobs.lease("worker-0", 60)
        assert leased is not None
        self.clock.forward(10)
        made = tuple(
            NewResult(
                writer="segmentation",
                sop_class_uid=SEGMENTATION,
                sop_instance_uid=f"2.25.{leased.job.id}{index}",
                series_instance_uid=f"2.25.{leased.job.id}",
                transfer_syntax_uid=LITTLE_ENDIAN,
                digest=digest_of(f"result {leased.job.id} {index}"),
                size=1000,
            )
            for index in range(results)
        )
        outcome = JobOutcome(
            state=JobState.SUCCEEDED,
            results=made,
            summary=FINDING,
            timings={"inference": 8.5},
            deliveries=deliveries,
        )
        self.jobs.finish(leased.job.id, leased.token, outcome)

    def hold_back(self, reason: str) -> None:
        """Let the next job end with something that its engine did not believe."""
        leased = self.jobs.lease("worker-0", 60)
        assert leased is not None
        made = NewResult(
            writer="segmentation",
            sop_class_uid=SEGMENTATION,
            sop_instance_uid=f"2.25.{leased.job.id}9",
            series_instance_uid=f"2.25.{leased.job.id}",
            transfer_syntax_uid=LITTLE_ENDIAN,
            digest=digest_of(f"held {leased.job.id}"),
            size=1000,
        )
        meaning = "Result of the engine not plausible"
        outcome = JobOutcome(
            state=JobState.REFUSED,
            results=(),
            summary={
                "verdict": "not analysed",
                "reason": {"code": "IMPLAUSIBLE", "scheme": "99WETREAD", "meaning": meaning},
                "detail": reason,
                "held": FINDING,
            },
            timings={},
            review=NewReview(kind="segmentation", reason=reason, results=(made,)),
        )
        self.jobs.finish(leased.job.id, leased.token, outcome)

    def fail(self) -> None:
        """Let the next job fail in a way that a retry would repeat."""
        leased = self.jobs.lease("worker-0", 60)
        assert leased is not None
        self.jobs.fail(
            leased.job.id,
            leased.token,
            error_class=ErrorClass.OUT_OF_MEMORY,
            error="6144 MiB asked for, 4096 MiB allowed",
            retry_in=None,
        )

    def answer(
        self, destination: str, state: DeliveryState, *, status: int | None, error: str = ""
    ) -> None:
        """Let a destination answer everything that waits for it."""
        for item in self.deliveries.lease(destination, limit=10, seconds=60):
            attempt = DeliveryAttempt(state=state, status=status, error=error)
            self.deliveries.record(item.delivery.id, item.token, attempt)

    def associate(self) -> int:
        return self.associations.opened(
            listener="dimse",
            calling_ae="CT_SCANNER",
            called_ae="WETREAD",
            peer_address="10.0.0.5",
        )

    def quarantine(self, reason: str = "no SOP Class UID") -> None:
        self.studies.quarantine(
            QuarantinedInstance(
                digest=digest_of(reason),
                size=5123,
                location=Location(pack="1" * 32, offset=64, length=5500),
                reason=reason,
                listener="folder",
            )
        )

    def delete(self, folder: Path) -> None:
        """Let retention delete what is done."""
        packs = PackStore(folder / "packs")
        for name in ("0" * 32, "1" * 32):
            packs.path_of(name).touch()
        policy = RetentionPolicy(
            studies_days=30, failed_days=40, results_days=30, quarantine_days=30
        )
        Retention(
            database=self.database,
            packs=packs,
            objects=ObjectStore(folder),
            clock=self.clock,
            policy=policy,
        ).sweep()

    def whole_story(self, attributes: StudyAttributes | None = None) -> None:
        """Plant one study from its association to a refused and a waiting delivery."""
        self.configure()
        association = self.associate()
        for number in (1, 2, 3):
            self.receive(number=number, attributes=attributes, association_id=association)
        self.associations.closed(association, AssociationState.RELEASED)
        self.route(engines=("liver", "nodule"))
        self.succeed()
        self.fail()
        self.answer("PACS", DeliveryState.FAILED, status=0x0122, error="not accepted")


def engine(name: str, state: EngineState, reason: str = "") -> EngineRecord:
    return EngineRecord(
        name=name,
        version="1.2.0",
        digest=digest_of(name),
        task="segmentation",
        runtime="onnxruntime",
        intended_use="Volume of the liver. Not for clinical use.",
        state=state,
        reason=reason,
    )
