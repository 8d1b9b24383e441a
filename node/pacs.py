"""A stand-in PACS: takes and keeps every storage class, answers C-ECHO and C-FIND, lists.

For the demo and for acceptance tests at a new site; it is no archive.
"""

from __future__ import annotations

import fnmatch
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import AE, AllStoragePresentationContexts, _config, evt
from pynetdicom.events import Event
from pynetdicom.transport import ThreadedAssociationServer

from node.listeners._transfer_syntaxes import TRANSFER_SYNTAXES

VERIFICATION: Final = "1.2.840.10008.1.1"
STUDY_ROOT_FIND: Final = "1.2.840.10008.5.1.4.1.2.2.1"
SUCCESS: Final = 0x0000
PENDING: Final = 0xFF00
CANCELLED: Final = 0xFE00
OUT_OF_RESOURCES: Final = 0xA700
CANNOT_UNDERSTAND: Final = 0xC000
UNIQUE_KEYS: Final = {
    "STUDY": "StudyInstanceUID",
    "SERIES": "SeriesInstanceUID",
    "IMAGE": "SOPInstanceUID",
}
LOOKED_AT: Final = (
    "SpecificCharacterSet",
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "Modality",
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyID",
    "StudyDescription",
    "SeriesDescription",
    "SeriesNumber",
    "InstanceNumber",
)

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldInstance:
    """One object that is kept; `header` has what C-FIND matches on."""

    sop_class_uid: str
    sop_instance_uid: str
    path: Path
    header: Dataset


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldSeries:
    """The objects of one series."""

    series_instance_uid: str
    instances: tuple[HeldInstance, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldStudy:
    """The series of one study."""

    study_instance_uid: str
    series: tuple[HeldSeries, ...]

    @property
    def count(self) -> int:
        """How many objects the study has here."""
        return sum(len(series.instances) for series in self.series)


@dataclass(slots=True)
class Refusals:
    """Statuses to answer instead of keeping an object, for tests of the sender's retries."""

    statuses: list[int] = field(default_factory=list)


class StandInPacs:
    """A storage and query SCP over a folder: `<study>/<series>/<instance>.dcm`."""

    def __init__(
        self,
        folder: Path,
        *,
        ae_title: str = "STANDIN",
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self._folder = folder
        self._ae_title = ae_title
        self._host = host
        self._port = port
        self._server: ThreadedAssociationServer | None = None
        self._lock = threading.Lock()
        self._held: dict[str, HeldInstance] = {}
        self._refusals = Refusals()
        self.received = 0

    def start(self) -> None:
        """Listen, and look at what the folder holds already.

        Raises:
            OSError: the address cannot be had, or the folder cannot be used.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        for path in self._folder.glob("*/*/*.dcm"):
            self._remember(path)
        _config.STORE_RECV_CHUNKED_DATASET = True
        _config.LOG_HANDLER_LEVEL = "none"
        ae = AE(ae_title=self._ae_title)
        for context in AllStoragePresentationContexts:
            if context.abstract_syntax is not None:
                ae.add_supported_context(context.abstract_syntax, list(TRANSFER_SYNTAXES))
        ae.add_supported_context(VERIFICATION)
        ae.add_supported_context(STUDY_ROOT_FIND)
        ae.require_called_aet = True
        handlers: list[evt.EventHandlerType] = [
            (evt.EVT_C_STORE, self._on_store),
            (evt.EVT_C_FIND, self._on_find),
            (evt.EVT_C_ECHO, lambda _: SUCCESS),
        ]
        self._server = ae.start_server((self._host, self._port), block=False, evt_handlers=handlers)

    def stop(self) -> None:
        """Stop listening and end what is in flight."""
        server, self._server = self._server, None
        if server is not None:
            ae = server.ae
            self._port = self.port_of(server)
            ae.shutdown()

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return self._port if self._server is None else self.port_of(self._server)

    @staticmethod
    def port_of(server: ThreadedAssociationServer) -> int:
        """Return the port a server got."""
        port: int = server.server_address[1]
        return port

    def address(self) -> str:
        """Say where it is."""
        return f"dicom://{self._ae_title}@{self._host}:{self.port}"

    def refuse_with(self, *statuses: int) -> None:
        """Answer the next objects with these statuses; one with 0xBxxx is kept all the same."""
        with self._lock:
            self._refusals.statuses += statuses

    def listing(self) -> list[HeldStudy]:
        """Return everything that is kept, by UID."""
        tree: dict[str, dict[str, list[HeldInstance]]] = {}
        with self._lock:
            held = sorted(self._held.values(), key=lambda item: item.sop_instance_uid)
        for item in held:
            study = tree.setdefault(str(item.header.StudyInstanceUID), {})
            study.setdefault(str(item.header.SeriesInstanceUID), []).append(item)
        return [
            HeldStudy(
                study_instance_uid=uid,
                series=tuple(
                    HeldSeries(series_instance_uid=series_uid, instances=tuple(instances))
                    for series_uid, instances in sorted(series.items())
                ),
            )
            for uid, series in sorted(tree.items())
        ]

    # ------------------------------------------------------------ C-STORE

    def _on_store(self, event: Event) -> int:
        with self._lock:
            self.received += 1
            status = self._refusals.statuses.pop(0) if self._refusals.statuses else SUCCESS
        if status != SUCCESS and status >> 12 != 0xB:  # noqa: PLR2004 - a warning keeps the object
            return status
        try:
            self._keep(Path(event.dataset_path))
        except OSError:
            return OUT_OF_RESOURCES
        except (AttributeError, ValueError):
            return CANNOT_UNDERSTAND
        log.info("object.kept", sop_class_uid=str(event.context.abstract_syntax))
        return status

    def _keep(self, spooled: Path) -> None:
        header = _header(spooled)
        uids = (header.StudyInstanceUID, header.SeriesInstanceUID, header.SOPInstanceUID)
        if not all(UID(uid).is_valid for uid in uids):
            raise ValueError("a UID is malformed")
        study, series, instance = (str(uid) for uid in uids)
        folder = self._folder / study / series
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / f"{instance}.dcm"
        part = folder / f".{instance}.{threading.get_ident()}"
        part.write_bytes(spooled.read_bytes())
        os.replace(part, target)  # noqa: PTH105 - the atomic one
        self._remember(target)

    def _remember(self, path: Path) -> None:
        header = _header(path)
        item = HeldInstance(
            sop_class_uid=str(header.SOPClassUID),
            sop_instance_uid=str(header.SOPInstanceUID),
            path=path,
            header=header,
        )
        with self._lock:
            self._held[item.sop_instance_uid] = item

    # ------------------------------------------------------------ C-FIND

    def _on_find(self, event: Event) -> Iterator[tuple[int, Dataset | None]]:
        """Answer a Study Root query (PS3.4 C.6.2) with what is kept."""
        query = event.identifier
        unique = UNIQUE_KEYS.get(str(query.get("QueryRetrieveLevel", "")))
        if unique is None:
            yield CANNOT_UNDERSTAND, None
            return
        seen: set[str] = set()
        for study in self.listing():
            for item in (instance for series in study.series for instance in series.instances):
                if event.is_cancelled:
                    yield CANCELLED, None
                    return
                key = str(item.header.get(unique, ""))
                if key in seen or not _matches(item.header, query):
                    continue
                seen.add(key)
                yield PENDING, _answer(item, query, study)


def _header(path: Path) -> Dataset:
    return dcmread(path, stop_before_pixels=True, specific_tags=list(LOOKED_AT))


def _matches(header: Dataset, query: Dataset) -> bool:
    """Match single value, list of UID, wildcard and universal keys (PS3.4 C.2.2.2)."""
    for element in query:
        if element.keyword in {"QueryRetrieveLevel", "SpecificCharacterSet"} or not element.value:
            continue
        if element.keyword not in LOOKED_AT:
            continue
        wanted = element.value if isinstance(element.value, list) else [element.value]
        there = str(header.get(element.keyword, ""))
        if not any(fnmatch.fnmatchcase(there, _pattern(str(item))) for item in wanted):
            return False
    return True


def _pattern(text: str) -> str:
    return text.replace("[", "[[]")


def _answer(item: HeldInstance, query: Dataset, study: HeldStudy) -> Dataset:
    answer = Dataset()
    for element in query:
        value = item.header.get(element.keyword)
        setattr(answer, element.keyword, "" if value is None else value)
    answer.QueryRetrieveLevel = query.QueryRetrieveLevel
    if "NumberOfStudyRelatedInstances" in query:
        answer.NumberOfStudyRelatedInstances = study.count
    if "ModalitiesInStudy" in query:
        answer.ModalitiesInStudy = sorted(
            {
                str(instance.header.get("Modality", ""))
                for series in study.series
                for instance in series.instances
            }
        )
    return answer
