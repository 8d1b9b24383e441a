"""What tests of listeners share: an ingest that keeps or refuses as told, and senders."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.association import Association

from node.expectation import Expectation
from node.interfaces import Ingest, IngestError, Intake, Received, Source
from node.listeners._dimse_settings import DimseListenerSettings
from node.listeners.dimse import DimseListener

CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"


class KeepingIngest(Ingest):
    """Keeps bytes in memory; raises what the test puts into `errors`."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}
        self.syntaxes: dict[str, str] = {}
        self.sources: list[Source] = []
        self.opened: list[Source] = []
        self.closed: list[bool] = []
        self.errors: list[Exception] = []
        self.no_room: IngestError | None = None
        self.expectations: list[Expectation] = []
        self.largest = 0
        self.abandoned = 0
        self.keep = True
        self.lock = threading.Lock()

    def admit(self, source: Source, *, stores: bool) -> None:
        del source
        if self.no_room is not None and stores:
            raise self.no_room

    def open(self, source: Source) -> KeepingIntake:
        with self.lock:
            self.opened.append(source)
        return KeepingIntake(self, source)

    def expected(self, expectation: Expectation) -> None:
        self.expectations.append(expectation)

    def accept(self, received: Received) -> None:
        intake = KeepingIntake(self, received.source)
        intake.begin(
            received.sop_class_uid, received.sop_instance_uid, received.transfer_syntax_uid
        )
        while chunk := received.data.read(1 << 20):
            intake.write([memoryview(chunk)])
        intake.finish()


class KeepingIntake(Intake):
    """One association of it; `closed` gets whether it was aborted."""

    def __init__(self, ingest: KeepingIngest, source: Source) -> None:
        self._ingest = ingest
        self._source = source
        self._content = bytearray()
        self._named = ("", "")
        self._open = False

    def begin(self, sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str) -> None:
        del sop_class_uid
        if self._ingest.errors:
            raise self._ingest.errors.pop(0)
        self._content.clear()
        self._named = (sop_instance_uid, transfer_syntax_uid)
        self._open = True

    def write(self, pieces: Sequence[memoryview]) -> None:
        assert self._open
        for piece in pieces:
            self._ingest.largest += len(piece)
            if self._ingest.keep:
                self._content += piece

    def finish(self, pieces: Sequence[memoryview] = ()) -> None:
        self.write(pieces)
        self._open = False
        uid, syntax = self._named
        with self._ingest.lock:
            self._ingest.kept[uid] = bytes(self._content)
            self._ingest.syntaxes[uid] = syntax
            self._ingest.sources.append(self._source)

    def abandon(self) -> None:
        self._ingest.abandoned += self._open
        self._open = False

    def settle(self, seconds: float) -> None:
        del seconds

    def close(self, *, aborted: bool) -> None:
        with self._ingest.lock:
            self._ingest.closed.append(aborted)


def listener_for(ingest: KeepingIngest, **settings: object) -> DimseListener:
    """Return a listener that lets anybody in, with other settings as given; it is not started."""
    raw = {"port": 0, "allow_any_peer": True, "grace_seconds": 3.0, **settings}
    return DimseListener(DimseListenerSettings.model_validate(raw), ingest)


def eventually(holds: object, seconds: float = 5.0) -> bool:
    """Wait for something to hold; say whether it came to."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if callable(holds) and holds():
            return True
        time.sleep(0.02)
    return False


def data_set_bytes(path: Path) -> bytes:
    """Return what follows the file meta group."""
    content = path.read_bytes()
    return content[144 + int.from_bytes(content[140:144], "little") :]


def associate(port: int, *, calling: str = "CT1", called: str = "WETREAD") -> Association:
    """Ask for an association for CT images."""
    ae = AE(ae_title=calling)
    ae.acse_timeout = 10
    ae.add_requested_context(CT_IMAGE_STORAGE, [ExplicitVRLittleEndian])
    return ae.associate("127.0.0.1", port, ae_title=called)


def store(association: Association, file: Path) -> Dataset:
    """Send one file; return the response's status data set."""
    return association.send_c_store(dcmread(file))


def dcmtk(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run one of dcmtk's programs without Nagle's delay."""
    return subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "TCP_NODELAY": "1"},
    )


def sop_instance_uids(files: Sequence[Path]) -> list[str]:
    """Return the SOP Instance UID of each file."""
    return [str(dcmread(file, stop_before_pixels=True).SOPInstanceUID) for file in files]
