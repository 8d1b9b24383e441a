# ruff: noqa: S603 - part of the programs in this folder, in no package; it starts servers
"""The servers that are measured, our node and its peers: each a process with its own folder."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import ClassVar, Final

from sender import CALLING_AE, Address

ROOT: Final = Path(__file__).resolve().parents[2]
START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 30.0
SYSTEM_FOLDERS: Final = ("/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin")
NO_DELAY: Final = "TCP_NODELAY"
"""Read by dcmtk, and by Orthanc through it: without it they answer in two pieces, 44 ms apart."""


class PeerError(Exception):
    """A peer is not installed, or did not start."""


def free_port() -> int:
    """Return a port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@dataclass(kw_only=True)
class Server(ABC):
    """A storage SCP as a process; `no_delay` sets TCP_NODELAY=1 in its environment."""

    folder: Path
    no_delay: bool = True
    durability: str | None = None
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    name: ClassVar[str]
    title: ClassVar[str]
    called_ae: ClassVar[str] = "BENCHSCP"
    end_by: ClassVar[signal.Signals] = signal.SIGKILL  # what it holds is thrown away
    sweeps: ClassVar[bool] = False
    """Whether what has arrived can be removed while it runs."""

    @abstractmethod
    def command(self) -> Sequence[str]:
        """Write its configuration, and return the command that starts it in its folder."""

    @abstractmethod
    def arrived(self) -> int:
        """Count the instances that it holds."""

    @property
    def address(self) -> Address:
        """Where it listens."""
        return Address(port=self.port, called_ae=self.called_ae)

    @property
    def pid(self) -> int:
        """The process that all its others come from."""
        if self.process is None:
            raise PeerError(f"{self.name} is not running")
        return self.process.pid

    def start(self) -> None:
        """Start it and wait until it listens.

        Raises:
            PeerError: it is not installed, or it ended.
        """
        self.folder.mkdir(parents=True)
        command = self.command()
        environment = {name: value for name, value in os.environ.items() if name != NO_DELAY}
        if self.no_delay:
            environment[NO_DELAY] = "1"
        with (self.folder / "server.log").open("wb") as log:
            self.process = subprocess.Popen(
                command,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**environment, "PYTHONPATH": str(ROOT)},
                start_new_session=True,
            )
        until = time.monotonic() + START_SECONDS
        while not listens(self.port):
            if self.process.poll() is not None or time.monotonic() > until:
                said = (self.folder / "server.log").read_text(errors="replace")[-1000:]
                self.stop()
                raise PeerError(f"{self.name} does not listen: {said}")
            time.sleep(0.05)

    def stop(self) -> None:
        """End it with all that it has started."""
        process, self.process = self.process, None
        if process is None:
            return
        process.send_signal(self.end_by)
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its session is its own
        process.wait()

    def sweep(self) -> None:  # noqa: B027 - most need not
        """Remove what has arrived, so that memory lasts, where `sweeps` says that it can be."""


class _FolderServer(Server):
    """A server that writes a file for each instance, named by its UID, into a folder."""

    sweeps: ClassVar[bool] = True

    @property
    def received(self) -> Path:
        """The folder of what it has received."""
        return self.folder / "received"

    def arrived(self) -> int:
        """Count the files."""
        return len(os.listdir(self.received))  # noqa: PTH208 - names only, of thousands

    def sweep(self) -> None:
        """Remove the files."""
        for path in self.received.iterdir():
            path.unlink()


class StoreScpFork(_FolderServer):
    """dcmtk's storescp, a process for each association."""

    name: ClassVar[str] = "storescp-fork"
    title: ClassVar[str] = "dcmtk storescp --fork"
    options: ClassVar[Sequence[str]] = ("--fork",)

    def command(self) -> Sequence[str]:
        """Return its command."""
        self.received.mkdir()
        return [program("storescp"), *self.options, "-od", str(self.received), str(self.port)]


class StoreScpBitPreserving(StoreScpFork):
    """dcmtk's storescp at its fastest: no data set is parsed, PDUs as long as it allows."""

    name: ClassVar[str] = "storescp-128k"
    title: ClassVar[str] = "dcmtk storescp --fork +B -pdu 131072"
    options: ClassVar[Sequence[str]] = ("--fork", "+B", "-pdu", "131072")


class Tutorial(_FolderServer):
    """pynetdicom with the handler of its tutorial."""

    name: ClassVar[str] = "pynetdicom"
    title: ClassVar[str] = "pynetdicom, the tutorial's handler"

    def command(self) -> Sequence[str]:
        """Return its command."""
        self.received.mkdir()
        script = Path(__file__).with_name("tutorial_scp.py")
        return ["env", "-C", str(self.received), sys.executable, str(script), str(self.port)]


class Orthanc(Server):
    """Orthanc with its defaults: an MD5 and an fsync for each file, an index in SQLite."""

    name: ClassVar[str] = "orthanc"
    title: ClassVar[str] = "Orthanc, its defaults"
    settings: ClassVar[Mapping[str, object]] = {}

    def command(self) -> Sequence[str]:
        """Write its configuration; only loopback callers are answered (REST and DICOM)."""
        self._http_port = free_port()
        configuration = {
            "StorageDirectory": str(self.folder / "storage"),
            "IndexDirectory": str(self.folder / "storage"),
            "HttpPort": self._http_port,
            "DicomPort": self.port,
            "DicomAet": self.called_ae,
            "DicomCheckModalityHost": True,
            "DicomModalities": {"bench": [CALLING_AE, "127.0.0.1", 11112]},
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "Plugins": [],
            **self.settings,
        }
        path = self.folder / "orthanc.json"
        path.write_text(json.dumps(configuration), encoding="utf-8")
        return [program("Orthanc"), str(path)]

    def arrived(self) -> int:
        """Ask its REST interface."""
        url = f"http://127.0.0.1:{self._http_port}/statistics"
        with urllib.request.urlopen(url) as answer:
            return int(json.loads(answer.read())["CountInstances"])


class OrthancFastest(Orthanc):
    """Orthanc with what slows it turned off."""

    name: ClassVar[str] = "orthanc-fastest"
    title: ClassVar[str] = "Orthanc, no MD5, no fsync, 128 KiB PDUs"
    settings: ClassVar[Mapping[str, object]] = {
        "StoreMD5ForAttachments": False,
        "SyncStorageArea": False,
        "MaximumPduLength": 131072,
    }


class Node(Server):
    """Our node as `wetread run`: header scan, digest and index rows on, no rule, no admin page."""

    name: ClassVar[str] = "wetread"
    title: ClassVar[str] = "wetread run"
    end_by: ClassVar[signal.Signals] = signal.SIGTERM  # it ends its own processes, in time
    called_ae: ClassVar[str] = "WETREAD"

    def command(self) -> Sequence[str]:
        """Write its configuration; `durability` is named only to a node that knows it."""
        path = self.folder / "wetread.toml"
        path.write_text(self._configuration(), encoding="utf-8")
        return [sys.executable, "-m", "node", "run", "--config", str(path)]

    def arrived(self) -> int:
        """Count the rows of its index."""
        database = self.folder / "data" / "wetread.db"
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
            return int(connection.execute("SELECT count(*) FROM instance").fetchone()[0])

    def _configuration(self) -> str:
        storage = f'[storage]\ndurability = "{self.durability}"\n' if self.durability else ""
        return (
            '[node]\nname = "BENCH"\ndata_dir = "data"\n'
            f"{storage}"
            "[completion]\nquiet_seconds = 86400.0\n"
            "[admin]\nenabled = false\n"
            f'[listeners.dimse]\nae_titles = ["{self.called_ae}"]\n'
            f'host = "127.0.0.1"\nport = {self.port}\n'
            f'[[listeners.dimse.peers]]\nae_title = "{CALLING_AE}"\naddresses = ["127.0.0.1"]\n'
        )


SERVERS: Final[Mapping[str, type[Server]]] = {
    kind.name: kind
    for kind in (Node, StoreScpFork, StoreScpBitPreserving, Orthanc, OrthancFastest, Tutorial)
}


def node_knows_durability(folder: Path) -> bool:
    """Say whether this node's configuration has `[storage] durability`."""
    folder.mkdir(parents=True)
    node = Node(folder=folder, durability="sync")
    path = Path(node.command()[-1])
    done = subprocess.run(
        [sys.executable, "-m", "node", "check-config", "--config", str(path)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stdout + done.stderr
    if done.returncode != 0 and "durability" not in said:
        raise PeerError(f"the node refuses the bench's configuration: {said}")
    return done.returncode == 0


@cache
def program(name: str) -> str:
    """Find a program of the system; pynetdicom has scripts of dcmtk's names in its environment.

    Raises:
        PeerError: it is not installed.
    """
    own = {str(Path(sys.executable).parent), str(Path(sys.prefix) / "bin")}
    folders = [part for part in os.get_exec_path() if part not in own]
    found = shutil.which(name, path=os.pathsep.join([*SYSTEM_FOLDERS, *folders]))
    if found is None:
        raise PeerError(f"{name} is not installed (deploy/apt/test.txt)")
    return found


def version_of(name: str) -> str:
    """Return the version that a program tells."""
    done = subprocess.run([program(name), "--version"], capture_output=True, text=True, check=False)
    found = re.search(r"\d+\.\d+\.\d+", done.stdout + done.stderr)
    return found.group() if found else "unknown"


def listens(port: int) -> bool:
    """Say whether somebody accepts connections on a loopback port."""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0
