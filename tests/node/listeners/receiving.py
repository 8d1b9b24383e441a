"""What tests of listeners share: an ingest that keeps or refuses as told, and senders."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.association import Association

from node.interfaces import Ingest, Received, Source

CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"


class KeepingIngest(Ingest):
    """Keeps bytes in memory; raises what the test puts into `errors`."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}
        self.syntaxes: dict[str, str] = {}
        self.sources: list[Source] = []
        self.opened: list[Source] = []
        self.closed: list[tuple[int, bool]] = []
        self.errors: list[Exception] = []
        self.largest = 0
        self.keep = True
        self._lock = threading.Lock()

    def association_opened(self, source: Source) -> int:
        with self._lock:
            self.opened.append(source)
            return len(self.opened)

    def association_closed(self, association_id: int, *, aborted: bool) -> None:
        with self._lock:
            self.closed.append((association_id, aborted))

    def accept(self, received: Received) -> None:
        if self.errors:
            raise self.errors.pop(0)
        content = bytearray()
        while chunk := received.data.read(1 << 20):
            self.largest += len(chunk)
            if self.keep:
                content += chunk
        with self._lock:
            self.kept[received.sop_instance_uid] = bytes(content)
            self.syntaxes[received.sop_instance_uid] = received.transfer_syntax_uid
            self.sources.append(received.source)


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
