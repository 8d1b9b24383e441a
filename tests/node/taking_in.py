"""An ingest over real stores in a folder, as a node has it, for tests."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from functools import partial
from pathlib import Path

from pydicom import dcmread

from node.clock import system_clock
from node.ingest import IngestLimits, OwnDevice, StudyIngest
from node.interfaces import Intake, Received, Source
from node.quotas import Quotas, Watermarks
from node.reconcile import Reconciled, Reconciliation
from storage.associations import AssociationStore
from storage.database import Database, migrate
from storage.duplicates import same_bytes
from storage.events import EventStore
from storage.expectations import ExpectationStore
from storage.indexing import Indexer
from storage.objects import ObjectStore
from storage.packs import PackStore
from storage.studies import StudyStore
from storage.waiting import WaitingStore


class TakingIn:
    """Packs, index and ingest; a second one over the same folder is the node's next start."""

    def __init__(
        self,
        folder: Path,
        *,
        clock: Callable[[], datetime] = system_clock,
        quiet_time: Callable[[str, str], float] = lambda _modality, _ae: 1.0,
        limits: IngestLimits | None = None,
        watermarks: Watermarks | None = None,
        durable: bool = True,
        pack_bytes: int = 1 << 20,
    ) -> None:
        url = f"sqlite:///{folder}/test.db"
        migrate(url)
        self.clock = clock
        self.database = Database(url)
        self.packs = PackStore(folder / "objects" / "packs", pack_bytes=pack_bytes, durable=durable)
        self.objects = ObjectStore(folder / "objects")
        self.studies = StudyStore(self.database, clock)
        self.associations = AssociationStore(self.database, clock)
        self.events = EventStore(self.database, clock)
        self.told: list[str] = []
        self.indexer = self._indexer()
        self.ingest = StudyIngest(
            packs=self.packs,
            indexer=self.indexer,
            expectations=ExpectationStore(self.database, clock),
            quiet_time=quiet_time,
            limits=limits or IngestLimits(max_object_bytes=1 << 30),
            quotas=Quotas(
                watermarks or Watermarks(reserve_bytes=1, resume_bytes=1, urgent_bytes=1),
                free_bytes=self.packs.free_bytes,
                waiting=WaitingStore(self.database).bytes_by_source,
            ),
            own_device=OwnDevice(manufacturer="wetread", model="wetread"),
            clock=clock,
        )

    def _indexer(self) -> Indexer:
        return Indexer(
            self.database,
            self.clock,
            same_bytes=partial(same_bytes, self.packs),
            tell=lambda what, _details: self.told.append(what),
        )

    def start(self) -> TakingIn:
        """Let the indexer write."""
        self.indexer.start()
        return self

    def close(self) -> None:
        """End as a node does."""
        self.indexer.stop()
        self.packs.close()
        self.database.close()

    def reconcile(self) -> Reconciled:
        """Do what a start does."""
        return Reconciliation(
            packs=self.packs,
            objects=self.objects,
            studies=self.studies,
            associations=self.associations,
            indexer=self.indexer,
            events=self.events,
            clock=self.clock,
        ).run()

    def accept(self, file: Path, **claims: str) -> None:
        """Take a file in as one that belongs to no association."""
        sop_class, instance, syntax = named_in(file)
        with file.open("rb") as data:
            data.seek(start_of_data_set(file))
            self.ingest.accept(
                Received(
                    source=Source(listener="test", calling_ae="CT1"),
                    sop_class_uid=claims.get("sop_class_uid", sop_class),
                    sop_instance_uid=claims.get("sop_instance_uid", instance),
                    transfer_syntax_uid=syntax,
                    data=data,
                )
            )

    def store(self, intake: Intake, files: Iterable[Path]) -> None:
        """Send files over an association."""
        for file in files:
            intake.begin(*named_in(file))
            intake.finish([memoryview(file.read_bytes())[start_of_data_set(file) :]])


def named_in(file: Path) -> tuple[str, str, str]:
    """Return SOP class, SOP instance and transfer syntax of a file."""
    header = dcmread(file, stop_before_pixels=True)
    return (
        str(header.SOPClassUID),
        str(header.SOPInstanceUID),
        str(header.file_meta.TransferSyntaxUID),
    )


def start_of_data_set(file: Path) -> int:
    """Return where the data set starts, behind the file meta group."""
    return 144 + int.from_bytes(file.read_bytes()[140:144], "little")
