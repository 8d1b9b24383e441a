"""A node's outbox towards a real socket: objects of every class, sent by a profile that ships."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Final, cast

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

import node.results
from node.dispatch import Dispatcher, DispatchLimits
from node.interfaces import DeliveryTarget, PluginSettings
from node.plugins import names_of
from node.probing import sop_classes_of_objects
from node.result_profiles import FindingKind, ResultProfiles, read_profiles, shipped_profiles
from storage.database import migrate
from storage.objects import ObjectStore
from storage.records import DeliveryRecord, NewResult
from tests.node.delivery.objects import target_at
from tests.storage.holding import STUDY, Holding, outcome

NAME: Final = "test.db"
META_LENGTH_END: Final = 144
OBJECTS: Final = (
    "segmentation",
    "measurement_report",
    "presentation_state",
    "secondary_capture",
    "key_object",
    "text_report",
)
"""What a segmentation is made into, in the order in which it is written."""
CLASSES: Final = {name: uids[0] for name, uids in sop_classes_of_objects().items()}
WHOLE_RETRY_SECONDS: Final = 100.0


def new_database(folder: Path) -> Path:
    """Make a database without a row; return its file."""
    migrate(f"sqlite:///{folder / NAME}")
    return folder / NAME


class FallbackBench:
    """A database with one finished job, its objects in the store, and the real sender."""

    def __init__(self, folder: Path, port: int, profile: str, *, seconds: float = 5.0) -> None:
        """Use the new database of the folder; an answer may take so many `seconds`."""
        self.held = Holding(f"sqlite:///{folder / NAME}")
        self._objects = ObjectStore(folder / "objects")
        self._names: dict[str, str] = {}
        self.dispatcher = Dispatcher(
            destination="PACS",
            target=cast(
                "DeliveryTarget[PluginSettings]", target_at(port, called="PACS", seconds=seconds)
            ),
            deliveries=self.held.deliveries,
            objects=self._objects,
            clock=self.held.clock,
            limits=DispatchLimits(
                batch=50,
                lease_seconds=60,
                idle_seconds=0.01,
                retry_first_seconds=10,
                retry_max_seconds=60,
                breaker_failures=3,
                breaker_seconds=30,
                fallback_attempts=2,
            ),
        )
        self._finish(profile)

    def _finish(self, profile: str) -> None:
        profiles = ResultProfiles(
            profiles=read_profiles([shipped_profiles()], {*names_of(node.results), *OBJECTS}),
            destinations={"PACS": profile},
            installed=frozenset(OBJECTS),
        )
        wanted = profiles.wanted(["PACS"])[FindingKind.SEGMENTATION]
        made = [name for name in OBJECTS if name in wanted]
        self.held.deliveries.set_destinations([("PACS", "dimse")])
        self.held.receive()
        self.held.route()
        leased = self.held.lease()
        results = tuple(self._keep(name, number) for number, name in enumerate(made, 1))
        self.held.jobs.finish(
            leased.job.id,
            leased.token,
            replace(
                outcome(leased),
                results=results,
                deliveries=profiles.deliveries(FindingKind.SEGMENTATION, ["PACS"], made),
            ),
        )

    def _keep(self, name: str, number: int) -> NewResult:
        content = file_of(CLASSES[name], f"2.25.{number}")
        prefix = META_LENGTH_END + int.from_bytes(content[140:144], "little")
        stored = self._objects.write(BytesIO(content), prefix=content[:prefix])
        self._names[f"2.25.{number}"] = name
        return NewResult(
            writer=name,
            sop_class_uid=CLASSES[name],
            sop_instance_uid=f"2.25.{number}",
            series_instance_uid="2.25.9",
            transfer_syntax_uid=str(ExplicitVRLittleEndian),
            digest=stored.digest,
            size=stored.size,
        )

    def send(self) -> None:
        """Send all that may be sent now."""
        while self.dispatcher.empty():
            pass

    def later(self) -> None:
        """Let every wait pass, and a parked destination be asked, and send."""
        self.held.clock.advance(WHOLE_RETRY_SECONDS)
        self.dispatcher.knock()
        self.send()

    def rows(self) -> dict[str, DeliveryRecord]:
        """Return the deliveries by the writer of their object."""
        found = sorted(self.held.deliveries.list(), key=lambda row: row.id)
        return {self._names[row.sop_instance_uid]: row for row in found}

    def ends(self) -> dict[str, tuple[str, int]]:
        """Return state and attempts of each delivery."""
        return {name: (row.state.value, row.attempts) for name, row in self.rows().items()}

    def names(self, uids: Sequence[str]) -> list[str]:
        """Return the writers of some objects."""
        return [self._names[uid] for uid in uids]

    def actions(self, name: str) -> list[str]:
        """Return what the study's timeline tells of a delivery."""
        wanted = self.rows()[name].id
        timeline = self.held.events.timeline(self.held.studies.get(STUDY).id)
        return [event.action for event in timeline if event.delivery_id == wanted]

    def close(self) -> None:
        """Close the database."""
        self.held.close()


def file_of(sop_class_uid: str, sop_instance_uid: str) -> bytes:
    """Return a DICOM file that is no more than an object of its class."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class_uid, sop_instance_uid
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = STUDY, "2.25.9"
    dataset.EncapsulatedDocument = random.Random(sop_instance_uid).randbytes(3000)  # noqa: S311
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    written = BytesIO()
    dataset.save_as(written, enforce_file_format=True)
    return written.getvalue()
