"""A node's stores with what was received and made, and DICOMweb served over them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from dicomweb_client import DICOMwebClient
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from node.dicomweb.app import DicomwebContext, DicomwebServer
from node.dicomweb.reader import Reader
from node.dicomweb.settings import DicomwebSettings
from storage.holdings import HoldingStore
from storage.jobs import JobStore
from storage.records import JobOutcome, NewJob, NewResult, Routing
from storage.rules import RuleStore
from storage.states import JobState
from tests.node.taking_in import TakingIn

REPORT = UID("1.2.840.10008.5.1.4.1.1.88.34")


def report(study: str, number: int = 1, *, name: str = "Phantom^Result") -> Dataset:
    """Return a small data set that says it is a report of a study."""
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.MediaStorageSOPClassUID = REPORT
    made.file_meta.MediaStorageSOPInstanceUID = UID(f"{study}.9.{number}")
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SpecificCharacterSet = "ISO_IR 192"
    made.SOPClassUID = REPORT
    made.SOPInstanceUID = f"{study}.9.{number}"
    made.StudyInstanceUID = study
    made.SeriesInstanceUID = f"{study}.9"
    made.Modality = "SR"
    made.SeriesNumber = 9001
    made.SeriesDescription = "Findings"
    made.InstanceNumber = number
    made.PatientName = name
    made.CompletionFlag = "COMPLETE"
    template = Dataset()
    template.MappingResource = "DCMR"
    template.TemplateIdentifier = "1500"
    made.ContentTemplateSequence = [template]
    return made


class PlantedWeb:
    """Received instances, results, and a server on a free port of loopback."""

    def __init__(self, folder: Path) -> None:
        self.stores = TakingIn(folder).start()
        self.jobs = JobStore(self.stores.database, self.stores.clock)
        self._rules = RuleStore(self.stores.database, self.stores.clock)
        self._revision = self._rules.save("", by="tests").revision
        self.holdings = HoldingStore(self.stores.database)
        self.servers: list[DicomwebServer] = []
        self.readers: list[Reader] = []

    def receive(self, files: Sequence[Path]) -> None:
        """Take files in."""
        for file in files:
            self.stores.accept(file)

    def make(self, study: str, results: Sequence[Dataset]) -> None:
        """Let one job end with these results."""
        record = self.stores.studies.complete_now(study, by="tests")
        job = NewJob(
            rule="every",
            engine="engine",
            priority=50,
            series_instance_uids=(f"{study}.1",),
            destinations=(),
        )
        routing = Routing(rule_revision=self._revision, jobs=(job,), explanation={})
        assert self.stores.studies.route(record.id, record.revision, routing)
        leased = self.jobs.lease("worker", 60)
        assert leased is not None
        made = tuple(self._kept(dataset) for dataset in results)
        outcome = JobOutcome(state=JobState.SUCCEEDED, results=made, summary={}, timings={})
        self.jobs.finish(leased.job.id, leased.token, outcome)

    def _kept(self, dataset: Dataset) -> NewResult:
        content = io.BytesIO()
        dataset.save_as(content, enforce_file_format=True)
        content.seek(0)
        stored = self.stores.objects.write(content)
        return NewResult(
            writer="report",
            sop_class_uid=dataset.SOPClassUID,
            sop_instance_uid=dataset.SOPInstanceUID,
            series_instance_uid=dataset.SeriesInstanceUID,
            transfer_syntax_uid=str(ExplicitVRLittleEndian),
            digest=stored.digest,
            size=stored.size,
        )

    def serve(self, **settings: object) -> str:
        """Serve DICOMweb; return its address."""
        checked = DicomwebSettings.model_validate({"port": 0, "processes": 1, **settings})
        reader = Reader(
            self.stores.packs, self.stores.objects, processes=checked.processes, memory_mib=2048
        )
        server = DicomwebServer(
            DicomwebContext(settings=checked, holdings=self.holdings, reader=reader)
        )
        self.readers.append(reader)
        server.start()
        self.servers.append(server)
        return server.address()

    def client(self, **settings: object) -> DICOMwebClient:
        """Serve, and return the outside client of it."""
        return DICOMwebClient(self.serve(**settings))

    def close(self) -> None:
        """End all."""
        for server in self.servers:
            server.stop()
        for reader in self.readers:
            reader.close()
        self.stores.close()
