"""What plugins implement, what they are handed, and what they may raise.

Listeners, result writers and delivery targets see this module and no other part of the node.
"""

# long: all that any kind of plugin sees, in the one place where its writer looks

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO, ClassVar, Final, Generic, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict
from pydicom.dataset import Dataset

from engines.findings import Outcome
from engines.images import SourceFrame
from node.expectation import Expectation

IMPLEMENTATION_CLASS_UID: Final = "2.25.277203056423785426668413923478628396765"
IMPLEMENTATION_VERSION_NAME: Final = "WETREAD_0_1"
"""How this software names itself on the wire and in files (PS3.7 D.3.3.2, PS3.10 7.1)."""
MANUFACTURER: Final = "wetread"
MODEL: Final = "wetread"
"""How it names itself as the maker of result objects (PS3.3 C.7.5.1)."""


class PluginSettings(BaseModel):
    """Base of every plugin's settings: strict, frozen, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, allow_inf_nan=False)


Rgb: TypeAlias = npt.NDArray[np.uint8]
"""A picture: [row, column, sample], red, green and blue."""
SettingsT = TypeVar("SettingsT", bound=PluginSettings)


# ---------------------------------------------------------------- ways in


class IngestError(Exception):
    """The instance was not taken. `status` is the C-STORE status to answer (PS3.4 Table B.2-1).

    `offending` is the tag of the element that is wrong, where it is one (PS3.7 C.4.2).
    """

    status: int = 0xC000

    def __init__(self, message: str = "", *, offending: int | None = None) -> None:
        super().__init__(message)
        self.offending = offending


class OutOfResources(IngestError):
    """The disk or the database cannot take it now; the sender may try again."""

    status = 0xA700


class DataSetMismatch(IngestError):
    """The data set does not match the SOP class or instance named in the command, or lacks UIDs."""

    status = 0xA900


class CannotUnderstand(IngestError):
    """The data set cannot be parsed."""

    status = 0xC000


class InvalidInstance(IngestError):
    """The SOP Instance UID in the command is no UID (PS3.7 9.1.1.1.9, PS3.5 9.1)."""

    status = 0x0117


class TooLarge(OutOfResources):
    """The object is larger than the limit; a sender that goes on may be cut off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where instances come from. For ways in other than DIMSE the AE titles may be empty."""

    listener: str
    calling_ae: str = ""
    called_ae: str = ""
    peer_address: str = ""
    urgent: bool = False  # goes before others where disk or associations are short


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One instance at the door, whole.

    `data` yields the data set bytes exactly as they came: no preamble, no file meta group.
    `sop_class_uid` and `sop_instance_uid` are what the file meta claims.
    """

    source: Source
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    data: BinaryIO


class Intake(ABC):
    """What one association brings, instance by instance; for one thread at a time.

    `begin`, any number of `write`, then `finish` or `abandon`. After an error of `begin` or `write`
    the instance is given up: nothing more is called for it.
    """

    @abstractmethod
    def begin(self, sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str) -> None:
        """Start an instance, as the command names it.

        Raises:
            IngestError: with the status to answer; no byte was written.
        """

    @abstractmethod
    def write(self, pieces: Sequence[memoryview]) -> None:
        """Take bytes of the data set exactly as they came; the buffers are free afterwards.

        Raises:
            IngestError: with the status to answer.
        """

    @abstractmethod
    def finish(self, pieces: Sequence[memoryview] = ()) -> None:
        """Take the last bytes; when this returns the instance may be acknowledged.

        Raises:
            IngestError: with the status to answer; nothing was acknowledged.
        """

    @abstractmethod
    def abandon(self) -> None:
        """Give the open instance up, if there is one: its sender vanished."""

    @abstractmethod
    def settle(self, seconds: float) -> None:
        """Wait, no longer than this, until all that was acknowledged can be found in the index."""

    @abstractmethod
    def close(self, *, aborted: bool) -> None:
        """End: the association was released, or not."""


class Ingest(ABC):
    """The one way in. Implemented by `node.ingest`, faked in tests of listeners."""

    @abstractmethod
    def admit(self, source: Source, *, stores: bool) -> None:
        """Say, before an association is accepted, whether anything can be taken over it now.

        `stores` says that it is to bring instances; another needs no room on the disk. What one
        sender alone may not is told it instance by instance, by `Intake.begin`.

        Raises:
            OutOfResources: nothing could be; the sender may try again.
        """

    @abstractmethod
    def open(self, source: Source) -> Intake:
        """Note that an association was accepted: until its intake closes it holds its studies open.

        Raises:
            OutOfResources: nothing can be taken now.
        """

    @abstractmethod
    def accept(self, received: Received) -> None:
        """Make one instance durable and indexed, outside any association.

        Raises:
            IngestError: with the status that says why not.
        """

    @abstractmethod
    def expected(self, expectation: Expectation) -> None:
        """Keep what is said that a study has; when this returns it may be answered.

        Raises:
            ExpectationError: with the status to answer.
        """


class Listener(ABC, Generic[SettingsT]):
    """A way in. One file in `node/listeners/`, one class."""

    name: ClassVar[str]
    settings_type: ClassVar[type[PluginSettings]]

    @abstractmethod
    def __init__(self, settings: SettingsT, ingest: Ingest) -> None:
        """Keep what is handed in; open nothing yet."""

    @abstractmethod
    def start(self) -> None:
        """Open the door. Returns when instances can arrive.

        Raises:
            ListenerError: naming the address or folder and what is wrong with it.
        """

    @abstractmethod
    def stop(self) -> None:
        """Close the door, finishing what is in flight within a grace time."""

    @abstractmethod
    def address(self) -> str:
        """Say where the door is, for people: `dicom://WETREAD@127.0.0.1:11112`."""


class SharedListener(Listener[SettingsT]):
    """A way in that several processes can share, where the database is PostgreSQL."""

    @classmethod
    @abstractmethod
    def processes(cls, settings: SettingsT) -> int:
        """Return how many processes are asked for; 1: the node's own."""

    @abstractmethod
    def bind(self) -> tuple[int, ...]:
        """In the node, instead of `start`: open the door; return what processes inherit."""

    @abstractmethod
    def inherit(self, descriptors: Sequence[int], process: int) -> None:
        """In a process, numbered from 1, before `start`: take the door that the node opened."""

    @abstractmethod
    def forget(self, process: int) -> None:
        """In the node: drop what a process held that has ended."""


class ListenerError(Exception):
    """The door could not be opened."""


# ---------------------------------------------------------------- result objects


class ResultError(Exception):
    """A result object could not be made, or failed its check before sending. Nothing is sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceIdentity:
    """The installation, as every result object names it (OBJ-05, OBJ-14)."""

    manufacturer: str
    model: str
    serial_number: str
    station_name: str
    software_version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineIdentity:
    """The engine that made the findings (OBJ-15). `digest` is over the whole package."""

    name: str
    version: str
    digest: str
    intended_use: str
    clinical_use: str  # e.g. "Not for clinical use", shown in every result
    parameters: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SupersededResult:
    """A result of an earlier revision that this run replaces (UID-05)."""

    writer: str
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str


class PictureError(Exception):
    """An image cannot be shown; the message says why, in words for people."""


class SourceImages(ABC):
    """The images that an outcome refers to, for writers that draw on them. Read when asked for."""

    @abstractmethod
    def header(self, frame: SourceFrame) -> Dataset:
        """Return the whole header of the instance that a frame is in, without pixel data.

        What says how that frame is shown (pixel spacing, orientation, rescale, window) stands at
        its top, also where it came from the functional groups of an enhanced instance. It is shared
        by all who ask, and not to be changed.

        Raises:
            PictureError: it cannot be read.
        """

    @abstractmethod
    def shown(self, frame: SourceFrame) -> Rgb:
        """Return a frame as a workstation first shows it: RGB uint8 [row, column, sample].

        A slide is shown whole: its total pixel matrix.

        Raises:
            PictureError: it cannot be decoded, or is no image.
        """


class NoSourceImages(SourceImages):
    """Where there are none: every image is refused."""

    def header(self, frame: SourceFrame) -> Dataset:
        """Refuse."""
        raise PictureError(f"the image {frame.sop_instance_uid} is not at hand")

    def shown(self, frame: SourceFrame) -> Rgb:
        """Refuse."""
        raise PictureError(f"the image {frame.sop_instance_uid} is not at hand")


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultContext:
    """All that a writer may use. Same context, same bytes (invariant 13).

    `sources` are the headers (no pixel data) of the instances the outcome refers to, one per
    distinct SOP Instance UID, in grid order; for a refusal without sources: headers of the job's
    instances, so that patient and study are known. That of the first instance of each series is
    whole; of others only `node.source_headers.OWN_KEYWORDS` may be there. `generation` is the
    study revision, from 1.
    `written` are the objects of the writers that ran before, by writer name.
    `series_instance_uids` are the job's series; where empty, those of the sources stand for them.
    `images` shows the sources, pixels and whole headers, for the few that a writer draws on.
    """

    job_key: str
    generation: int
    created: datetime
    series_created: datetime
    rule: str
    rule_revision: int
    device: DeviceIdentity
    engine: EngineIdentity
    outcome: Outcome
    sources: tuple[Dataset, ...]
    superseded: tuple[SupersededResult, ...]
    written: Mapping[str, tuple[Dataset, ...]]
    series_instance_uids: tuple[str, ...] = ()
    images: SourceImages = field(default_factory=NoSourceImages)


class ResultWriter(ABC):
    """A kind of result object. One file in `node/results/`, one class."""

    name: ClassVar[str]
    follows: ClassVar[tuple[str, ...]] = ()
    """Writers that must run before this one, where they run at all."""
    by_default: ClassVar[bool] = True
    """Whether it runs where nothing says which objects a destination is to get."""
    needs: ClassVar[tuple[str, ...]] = ()
    """Those of them whose objects this one refers to: they are made for it if nobody wants them."""
    sop_class_uids: ClassVar[tuple[str, ...]] = ()
    """What its objects can be: a destination is asked whether it takes them."""

    @abstractmethod
    def handles(self, outcome: Outcome) -> bool:
        """Say whether this object can carry the outcome."""

    @abstractmethod
    def write(self, context: ResultContext) -> tuple[Dataset, ...]:
        """Make the objects, each with its file meta, ready to be saved.

        Raises:
            ResultError: naming what the standard requires and the sources do not give.
        """

    @abstractmethod
    def check(self, path: Path, context: ResultContext) -> None:
        """Read a saved object back and compare it with the outcome, in patient space (R41).

        Raises:
            ResultError: naming the difference. The job fails and nothing is sent.
        """


# ---------------------------------------------------------------- ways out


class SendVerdict(StrEnum):
    """The few ways in which an attempt can end, whatever the way out."""

    ACCEPTED = "accepted"
    WARNED = "warned"  # kept, with a warning
    RETRY = "retry"  # this object later; the destination is alive
    UNREACHABLE = "unreachable"  # the destination is down: its breaker counts this
    REFUSED = "refused"  # never again without a person


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """One result object to send. `path` is a DICOM file (PS3.10)."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What came of one object: verdict, DIMSE (or HTTP) status if any, and words for people.

    `begun` False: nothing of it was sent, because of another. `cut_short`: it was on its way when
    the association ended, so that it may be what ended it. `may_be_there`: whether it may lie there
    now although it was not taken; None: as verdict and status have it (`arrival_of`).
    """

    verdict: SendVerdict
    status: int | None = None
    message: str = ""
    begun: bool = True
    cut_short: bool = False
    may_be_there: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A kind of object in one transfer syntax: what a destination may take, or not."""

    sop_class_uid: str
    transfer_syntax_uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Negotiated:
    """What a destination said of some offers; of those refused, why.

    `problem`: it could not be asked about all of them.
    """

    accepted: frozenset[Offer] = frozenset()
    refused: Mapping[Offer, str] = field(default_factory=dict)
    problem: str = ""


ReportSent: TypeAlias = Callable[[int, Sent], None]


class DeliveryTarget(ABC, Generic[SettingsT]):
    """A way out. One file in `node/delivery/`, one class."""

    name: ClassVar[str]
    settings_type: ClassVar[type[PluginSettings]]

    @abstractmethod
    def __init__(self, settings: SettingsT) -> None:
        """Keep the settings; connect to nothing yet."""

    @abstractmethod
    def send(self, objects: Sequence[Outgoing], report: ReportSent) -> None:
        """Send the objects over one connection, calling `report(index, Sent)` once for each.

        Each report is made as soon as its answer is known, before the next object is sent.
        Never raises for what a peer does: that is a verdict.
        """

    @abstractmethod
    def probe(self) -> Sent:
        """Ask whether the destination is there (C-ECHO), without sending an object."""

    def negotiate(self, offers: Sequence[Offer]) -> Negotiated:
        """Ask what the destination takes, without sending an object; not every kind can be."""
        return Negotiated(problem=f"{len(offers)} offers: only its answers to objects tell")

    @abstractmethod
    def address(self) -> str:
        """Say where results go, for people."""
