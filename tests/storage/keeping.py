"""A node's stores with real packs and objects under them, and retention over both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path

from storage.digests import InstanceDigest
from storage.holds import HoldStore
from storage.indexing import Indexer
from storage.notes import Entry, NoteWriter
from storage.objects import ObjectStore
from storage.packs import PackStore
from storage.records import (
    Brought,
    DeliveryAttempt,
    JobOutcome,
    LeasedJob,
    Location,
    NewInstance,
    QuarantinedInstance,
)
from storage.retention import Retention
from storage.retention_records import RetentionPolicy
from storage.states import DeletionRule, DeliveryState, JobState
from tests.storage.holding import STUDY, Holding, arrived, new_instance, new_result

PREFIX = b"preamble and file meta"
DAY = 86400.0
BYTES = 20_000
EVERYTHING = RetentionPolicy(
    studies_days=1, failed_days=10, results_days=2, quarantine_days=3, duplicates_days=1
)


class Keeping:
    """Puts bytes into packs with their rows, as a node does, and lets retention sweep."""

    def __init__(self, held: Holding, folder: Path) -> None:
        self.held = held
        self.folder = folder
        self.told: list[str] = []
        self.holds = HoldStore(held.database, held.clock)
        self.indexer = Indexer(held.database, held.clock, owner="NODE")
        self.open()

    def open(self) -> None:
        """Open the folder, as a start does."""
        self.packs = PackStore(self.folder / "packs", pack_bytes=1 << 16)
        self.objects = ObjectStore(self.folder)

    def retention(self, policy: RetentionPolicy = EVERYTHING) -> Retention:
        return Retention(
            database=self.held.database,
            packs=self.packs,
            objects=self.objects,
            clock=self.held.clock,
            policy=policy,
            tell=lambda what, _details: self.told.append(what),
        )

    def receive(
        self,
        number: int = 1,
        *,
        study: str = STUDY,
        data: bytes | None = None,
        sop_instance_uid: str | None = None,
    ) -> Location:
        """Take one instance in; the number stands for its UID, and for its bytes."""
        data = data if data is not None else bytes_of(study, number)
        new = new_instance(number, study=study, sop_instance_uid=sop_instance_uid)
        return self._keep(new, data)

    def come_back(self, sop_instance_uid: str) -> Location:
        """Take in one of our own results."""
        new = new_instance(1, sop_instance_uid=sop_instance_uid)
        return self._keep(new, sop_instance_uid.encode() * 100)

    def written(self, number: int) -> tuple[Entry, Location]:
        """Put an instance into a pack without its row; return what makes the row."""
        return self._entry(new_instance(number), bytes_of(STUDY, number))

    def _keep(self, new: NewInstance, data: bytes) -> Location:
        entry, location = self._entry(new, data)
        self.indexer.rebuild([entry])
        return location

    def _entry(self, new: NewInstance, data: bytes) -> tuple[Entry, Location]:
        now = self.held.clock()
        brought = Brought(token="", listener="dimse", calling_ae=new.calling_ae)
        digest = InstanceDigest(data)
        location, end = self._write(data, NoteWriter(brought).of_instance(new, now))
        what = replace(new, digest=digest.hexdigest(), size=len(data), location=location)
        return Entry(brought=brought, at=now, what=what, end=end), location

    def quarantine(self, reason: str = "no header") -> Location:
        """Keep bytes that could not be indexed."""
        now, data = self.held.clock(), reason.encode() * 1000
        brought = Brought(token="", listener="dimse")
        location, end = self._write(data, NoteWriter(brought).of_quarantine(reason, now))
        what = QuarantinedInstance(
            digest=InstanceDigest(data).hexdigest(),
            size=len(data),
            reason=reason,
            listener="dimse",
            location=location,
        )
        self.indexer.rebuild([Entry(brought=brought, at=now, what=what, end=end)])
        return location

    def _write(self, data: bytes, note: bytes) -> tuple[Location, int]:
        pack = self.packs.borrow()
        pack.begin(PREFIX)
        pack.write([data])
        location = pack.location()
        pack.finish(InstanceDigest(data).digest(), note)
        end = pack.end
        self.packs.give_back(pack)
        return location, end

    def seal(self) -> None:
        """End every pack, as a stop does."""
        self.packs.close()

    def read(self, *, study: str = STUDY, results: int = 1) -> None:
        """Take a study all the way to results at its destination."""
        self.held.deliveries.set_destinations([("PACS", "dimse")])
        self.held.route(study)
        self.finish(results)
        self.deliver()

    def finish(self, results: int = 1, *, withheld: bool = False) -> None:
        """Run the most urgent job to its end, with result objects that are there."""
        leased = self.held.lease()
        outcome = self.outcome(leased, results)
        made = tuple(replace(new, withheld=withheld) for new in outcome.results)
        self.held.jobs.finish(leased.job.id, leased.token, replace(outcome, results=made))

    def outcome(self, leased: LeasedJob, results: int) -> JobOutcome:
        """Return the outcome of a job with so many result objects, whose bytes are there."""
        made = []
        for index in range(results):
            new = new_result(f"2.25.{leased.job.id}{index}")
            stored = self.objects.write(BytesIO(new.sop_instance_uid.encode() * 500))
            made.append(replace(new, digest=stored.digest, size=stored.size))
        return JobOutcome(state=JobState.SUCCEEDED, results=tuple(made), summary={}, timings={})

    def deliver(self) -> None:
        """Let the destination take everything that waits."""
        for leased in self.held.deliveries.lease("PACS", limit=100, seconds=60):
            self.held.deliveries.record(leased.delivery.id, leased.token, arrived())

    def bytes_there(self, study: str = STUDY) -> Sequence[bool]:
        """Say of each instance, in order, whether its bytes are there."""
        record = self.held.studies.get(study)
        return [
            self.there(item.location)
            for item in self.held.studies.instances(record.id, include_conflicts=True)
        ]

    def there(self, location: Location) -> bool:
        """Say whether a record is in its pack, whole."""
        try:
            content = self.packs.read(location)
        except FileNotFoundError:
            return False
        return content.startswith(PREFIX)

    def disk(self) -> int:
        """Return how much of the disk the packs take."""
        return sum(path.stat().st_blocks * 512 for path in (self.folder / "packs").iterdir())


def bytes_of(study: str, number: int) -> bytes:
    """Return the bytes that stand for an instance: no two alike, none compressible to nothing."""
    return f"{study}/{number}/".encode() * (BYTES // len(f"{study}/{number}/"))


def refused() -> DeliveryAttempt:
    """Return an attempt that the destination refused for good."""
    return DeliveryAttempt(state=DeliveryState.FAILED, status=0x0122, error="refused")


def rules_of(keeping: Keeping, policy: RetentionPolicy = EVERYTHING) -> list[DeletionRule]:
    """Return the rules that would delete something now, once for each item."""
    return [item.rule for item in keeping.retention(policy).plan()]
