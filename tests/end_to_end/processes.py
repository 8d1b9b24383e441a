"""Real processes for end-to-end tests: our node, Orthanc, dcmtk's storescu. Loopback only."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from node.settings import load_settings
from node.stores import Stores, open_stores
from storage.records import NotFoundError, StudyRecord
from storage.states import DeliveryState, JobState, StudyState

LISTENING_PORTS = (15_000, 32_000)
_given_ports: set[int] = set()
PATIENCE_SECONDS = 90.0
STOP_SECONDS = 60.0  # associations in flight have 20 of them (`grace_seconds`)
ENDED_JOBS = {JobState.SUCCEEDED, JobState.REFUSED, JobState.FAILED, JobState.DEAD}
OPEN_DELIVERIES = {DeliveryState.QUEUED, DeliveryState.SENDING, DeliveryState.PARKED}

RULES = """
[[rules]]
name = "every-ct"
owner = "tests"
priority = "routine"
trigger = "series"
engines = ["ct-body-composition"]
destinations = ["pacs"]
conditions = {field = "Modality", op = "equals", value = "CT", level = "series"}
"""


def free_port() -> int:
    """Return a port that nobody listens on, and that no connection is given as its own by chance.

    Systems give those from 32768 on. The process that is to listen starts later, and would find a
    port from there taken now and then.
    """
    while True:
        port = random.SystemRandom().randrange(*LISTENING_PORTS)
        with socket.socket() as probe:
            if port not in _given_ports and probe.connect_ex(("127.0.0.1", port)) != 0:
                _given_ports.add(port)
                return port


def wait_until(condition: Callable[[], bool], what: str, seconds: float = PATIENCE_SECONDS) -> None:
    """Wait for a condition; fail with its name when it does not come."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError(f"not within {seconds:g} s: {what}")


def listens(port: int) -> bool:
    """Say whether somebody accepts connections on a loopback port."""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


@dataclass(kw_only=True)
class NodeProcess:
    """`wetread run` as a real process with its own folder and configuration."""

    folder: Path
    pacs_port: int
    pacs_ae: str = "PACS"
    rules: str = RULES
    quiet_seconds: float = 1.0
    wait_seconds: float = 0.0
    max_attempts: int = 3
    extra: str = ""
    listener: str = ""
    worker: str = ""
    port: int = field(default_factory=free_port)
    code: Path = Path(__file__).parents[2]  # the folder that holds node, engines and storage
    process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> NodeProcess:
        """Write the configuration and start."""
        self.write()
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop the process if it still runs."""
        self.stop()

    def write(self) -> None:
        """Write the configuration and the rules."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "rules.toml").write_text(self.rules)
        self.config.write_text(self.configuration())

    @property
    def config(self) -> Path:
        """The node's configuration file."""
        return self.folder / "wetread.toml"

    def configuration(self) -> str:
        """Return the TOML text: quick timers, one destination."""
        return f"""
[node]
name = "TEST"
serial_number = "TEST-1"
data_dir = "data"
[logging]
level = "info"
format = "json"
[listeners.dimse]
ae_titles = ["WETREAD"]
host = "127.0.0.1"
port = {self.port}
allow_any_peer = true
{self.listener}[destinations.pacs]
kind = "dimse"
host = "127.0.0.1"
port = {self.pacs_port}
ae_title = "{self.pacs_ae}"
calling_ae_title = "WETREAD"
[completion]
quiet_seconds = {self.quiet_seconds}
sweep_seconds = 0.2
wait_seconds = {self.wait_seconds}
[worker]
max_attempts = {self.max_attempts}
{self.worker}lease_seconds = 3
idle_seconds = 0.1
[delivery]
lease_seconds = 3
idle_seconds = 0.1
retry_first_seconds = 0.5
breaker_seconds = 1
breaker_failures = 2
[rules]
file = "rules.toml"
[admin]
enabled = false
{self.extra}
"""

    def start(self, kill_at: str | None = None) -> None:
        """Start the node; with `kill_at` it kills itself with SIGKILL at that named point."""
        module = "node" if kill_at is None else "tests.end_to_end.kill_at"
        arguments = [] if kill_at is None else [kill_at]
        log = (self.folder / "node.log").open("ab")
        starts = self.starts()
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments, "run", "--config", str(self.config)],
            stdout=log,
            stderr=log,
            cwd=self.code,
        )
        log.close()
        wait_until(
            lambda: self.died() or (listens(self.port) and self.starts() > starts),
            "the node listens, in every process",
        )
        if self.died():
            raise AssertionError(f"the node ended: {self.log()[-2000:]}")

    def died(self) -> bool:
        """Say whether the process has ended."""
        return self.process is None or self.process.poll() is not None

    def log(self) -> str:
        """Return what the node has logged."""
        return (self.folder / "node.log").read_text()

    def starts(self) -> int:
        """Return how often its listener was started."""
        return self.log().count("listener.started")

    def kill(self) -> None:
        """End the node as a power cut would."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()

    def stop(self) -> int:
        """Ask the node to end and return its exit status."""
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def stores(self) -> Stores:
        """Open the node's stores from outside, to look at them. Close `database` afterwards."""
        return open_stores(load_settings(self.config))

    def settled(self, study_instance_uid: str, *, revision: int = 1) -> bool:
        """Say whether a study revision was routed, its jobs ended and nothing waits to be sent."""
        stores = self.stores()
        try:
            record = stores.studies.get(study_instance_uid)
            jobs = stores.jobs.list(study_id=record.id)
            deliveries = stores.deliveries.list(study_id=record.id)
        except NotFoundError:
            return False
        finally:
            stores.database.close()
        routed = record.revision >= revision and record.state in {
            StudyState.ROUTED,
            StudyState.UNMATCHED,
        }
        current = [job for job in jobs if job.revision == record.revision]
        return (
            routed
            and all(job.state in ENDED_JOBS for job in current)
            and not any(item.state in OPEN_DELIVERIES for item in deliveries)
        )

    def wait_settled(
        self, study_instance_uid: str, *, revision: int = 1, seconds: float = PATIENCE_SECONDS
    ) -> StudyRecord:
        """Wait for a study to come to its end; return it."""
        wait_until(
            lambda: self.settled(study_instance_uid, revision=revision),
            f"study revision {revision} settles",
            seconds,
        )
        stores = self.stores()
        try:
            return stores.studies.get(study_instance_uid)
        finally:
            stores.database.close()


ORTHANC_WEB = "/usr/share/orthanc/plugins/libOrthancDicomWeb.so"


@dataclass(kw_only=True)
class Orthanc:
    """Debian's Orthanc as the destination PACS.

    It binds all addresses whatever it is told, so it answers loopback callers only: HTTP by
    RemoteAccessAllowed, DICOM by a list of known modalities with their host.
    """

    folder: Path
    http_port: int = field(default_factory=free_port)
    dicom_port: int = field(default_factory=free_port)
    web: bool = False  # DICOMweb, by Debian's plugin
    process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Orthanc:
        """Write its configuration and start it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        configuration = {
            "Name": "TEST",
            "StorageDirectory": str(self.folder / "storage"),
            "IndexDirectory": str(self.folder / "storage"),
            "HttpPort": self.http_port,
            "DicomPort": self.dicom_port,
            "DicomAet": "PACS",
            "DicomCheckCalledAet": True,
            "DicomCheckModalityHost": True,
            "DicomModalities": {"node": ["WETREAD", "127.0.0.1", 11112]},
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "SaveJobs": False,
            "Plugins": [ORTHANC_WEB] if self.web else [],
        }
        path = self.folder / "orthanc.json"
        path.write_text(json.dumps(configuration))
        with (self.folder / "orthanc.log").open("wb") as log:
            self.process = process = subprocess.Popen(
                ["Orthanc", str(path)],
                stdout=log,
                stderr=log,
                env={**os.environ, "TCP_NODELAY": "1"},
            )
        try:
            wait_until(lambda: self.listens() or process.poll() is not None, "Orthanc listens")
            assert self.listens(), (self.folder / "orthanc.log").read_text()[-2000:]
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End it."""
        self.stop()

    def listens(self) -> bool:
        """Say whether it answers on both of its ports."""
        return listens(self.http_port) and listens(self.dicom_port)

    def stop(self) -> None:
        """End it, if it was started."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(20)

    def kill(self) -> None:
        """End it at once, where nobody reads its folder any more: to stop takes it seconds."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def get(self, path: str) -> Any:  # noqa: ANN401 - whatever JSON the REST interface gives
        """Ask its REST interface."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}{path}") as answer:
            return json.loads(answer.read())

    def file(self, instance: str) -> bytes:
        """Return the DICOM file of one of its instances."""
        url = f"http://127.0.0.1:{self.http_port}/instances/{instance}/file"
        with urllib.request.urlopen(url) as answer:
            content: bytes = answer.read()
        return content


def storescu(port: int, files: Sequence[Path], *, called: str = "WETREAD") -> None:
    """Send files with dcmtk's storescu; every one must be accepted."""
    subprocess.run(
        ["storescu", "-aet", "SCANNER", "-aec", called, "127.0.0.1", str(port)]
        + [str(path) for path in files],
        check=True,
        capture_output=True,
        env={**os.environ, "TCP_NODELAY": "1"},
        timeout=120,
    )
