"""A node with a tight guard, and what it holds: memory, threads, descriptors, bytes on disk."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

from storage.index_records import InstanceRecord, QuarantineRecord
from storage.records import NotFoundError
from storage.states import AssociationState
from tests.end_to_end.pdus import data_set
from tests.end_to_end.processes import NodeProcess, wait_until
from tests.end_to_end.requestor import associated, echoes

GUARD: Final[Mapping[str, int | float]] = {
    "max_associations": 14,
    "max_associations_per_address": 12,
    "pdu_seconds": 2.0,
    "acse_seconds": 4.0,
    "network_seconds": 6.0,
    "dimse_seconds": 8.0,
    "max_pdu": 16384,
}
"""Settings of [listeners.dimse] that these tests need: deadlines short, few associations."""

MAX_OBJECT_MIB: Final = 32
LEEWAY: Final = 4
"""Threads or descriptors that may come and go by themselves; every attack makes ten or more."""

PREAMBLE: Final = bytes(128) + b"DICM"
MIB: Final = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """What a process holds: bytes of memory now and at most, threads, descriptors.

    Left out of the descriptors are those of SQLite, which a pool opens and closes as it likes, and
    those of packs, which are as many as there ever were associations at a time: they stand apart.
    """

    memory: int
    peak: int
    threads: int
    descriptors: int
    packs: int


@dataclass(kw_only=True)
class GuardedNode(NodeProcess):
    """A node that keeps what arrives and starts nothing with it."""

    pacs_port: int = 1
    quiet_seconds: float = 3600.0
    extra: str = (
        f"[storage]\nmax_object_mib = {MAX_OBJECT_MIB}\nreserve_mib = 64\nspare_packs = 0\n"
    )
    guard: Mapping[str, int | float] = field(default_factory=lambda: GUARD)
    peers: str = "allow_any_peer = true\n"

    @property
    def temporary(self) -> Path:
        """Where the node puts temporary files."""
        return self.folder / "temporary"

    def configuration(self) -> str:
        """Return the TOML text with the guard's settings in it."""
        settings = "".join(f"{name} = {value}\n" for name, value in self.guard.items())
        return super().configuration().replace("allow_any_peer = true\n", settings + self.peers)

    def start(self, kill_at: str | None = None) -> None:
        """Start the node with its own folder for temporary files."""
        self.temporary.mkdir(exist_ok=True)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TMPDIR", str(self.temporary))
            super().start(kill_at)

    def warm_up(self) -> None:
        """Let the node make once what it makes once: buffers, pools, files written ahead."""
        wait_until(lambda: "engine.verified" in self.log(), "the engine is verified")
        for number in range(3):
            with associated(self.port) as sender:
                assert sender.store(f"2.25.1{number}", data_set(f"2.25.1{number}")) == 0
                sender.release()

    # ------------------------------------------------------------ what it holds

    @property
    def pid(self) -> int:
        """The id of the process."""
        assert self.process is not None
        return self.process.pid

    def footprint(self) -> Footprint:
        """Read what the process holds now."""
        status = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        values = dict(line.split(":", 1) for line in status)
        paths = self.open_paths()
        return Footprint(
            memory=int(values["VmRSS"].split()[0]) * 1024,
            peak=int(values["VmHWM"].split()[0]) * 1024,
            threads=int(values["Threads"]),
            descriptors=sum("wetread.db" not in p and not p.endswith(".pack") for p in paths),
            packs=sum(p.endswith(".pack") for p in paths),
        )

    def open_paths(self) -> list[str]:
        """Return what each open descriptor of the process leads to."""
        found = []
        for link in Path(f"/proc/{self.pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # closed since
                found.append(str(link.readlink()))
        return found

    def base(self) -> Footprint:
        """Forget the peak of memory so far; return what the process holds now."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")  # proc(5): resets VmHWM
        return self.footprint()

    def is_back_at(self, base: Footprint) -> bool:
        """Say whether threads and descriptors are no more than they were."""
        now = self.footprint()
        return (
            now.threads <= base.threads + LEEWAY
            and now.descriptors <= base.descriptors + LEEWAY
            and now.packs <= self.guard["max_associations"] + LEEWAY
        )

    def wait_back_at(self, base: Footprint) -> None:
        """Wait for threads and descriptors to be no more than they were."""
        try:
            wait_until(
                lambda: self.is_back_at(base), f"threads and descriptors return to {base}", 30
            )
        except AssertionError as error:
            raise AssertionError(
                f"{error}, but are {self.footprint()}: {self.open_paths()}"
            ) from error

    def disk(self) -> int:
        """Return the bytes of disk in use under the node's folder, its log left out."""
        total = 0
        for path in self.files():
            with suppress(FileNotFoundError):  # gone since
                total += 0 if path.name == "node.log" else path.stat().st_blocks * 512
        return total

    def files(self) -> list[Path]:
        """Return every file under the node's folder."""
        found = []
        for folder, _, names in os.walk(self.folder):  # passes over a folder that goes meanwhile
            found += [Path(folder) / name for name in names]
        return found

    # ------------------------------------------------------------ what it kept

    def instances(self, study_instance_uid: str) -> Sequence[InstanceRecord]:
        """Return the rows of a study's instances; none when there is no such study."""
        stores = self.stores()
        try:
            study = stores.studies.get(study_instance_uid)
            return stores.studies.instances(study.id)
        except NotFoundError:
            return ()
        finally:
            stores.database.close()

    def has(self, study_instance_uid: str, sop_instance_uid: str) -> bool:
        """Say whether an instance has its row."""
        rows = self.instances(study_instance_uid)
        return any(row.sop_instance_uid == sop_instance_uid for row in rows)

    def quarantined(self) -> Sequence[QuarantineRecord]:
        """Return what was quarantined, newest first."""
        stores = self.stores()
        try:
            return stores.studies.quarantined(limit=1000)
        finally:
            stores.database.close()

    def kept(self, content: bytes) -> list[bytes]:
        """Return what lies before each copy of a data set: from its preamble to its first byte.

        Copies are looked for in every file of the data folder; the Part 10 file (PS3.10 7.1) that
        one is in may begin anywhere in that file.
        """
        found = []
        for path in self.files():
            if path.name.startswith("wetread.db") or not path.exists():
                continue
            whole = path.read_bytes()
            at = whole.find(content)
            while at >= 0:
                begin = max(whole.rfind(b"DICM", 0, at) - 128, 0)
                found.append(whole[begin:at])
                at = whole.find(content, at + 1)
        return found

    def open_associations(self) -> int:
        """Return how many of the last associations are recorded as still going on."""
        stores = self.stores()
        try:
            recent = stores.associations.recent(limit=100_000)
            return sum(item.state is AssociationState.OPEN for item in recent)
        finally:
            stores.database.close()

    def logged(self) -> int:
        """Return the length of the log in bytes."""
        return (self.folder / "node.log").stat().st_size

    def assert_log(self, since: int = 0) -> int:
        """Hold that nothing was logged but events, none of an error that nobody caught.

        Returns the length of the log in bytes, for the next look.
        """
        with (self.folder / "node.log").open("rb") as log:
            log.seek(since)
            new = log.read().decode()
        foreign = [line for line in new.splitlines() if line[:1] not in {"{", "l"}]
        assert not foreign, "no event of ours: " + "\n".join(foreign[:60])
        assert "instance.failed" not in new, new[-3000:]
        return since + len(new.encode())

    def assert_unharmed(self, *, since: int = 0) -> None:
        """Hold that the node answers, holds no association open, and logged as it should."""
        assert not self.died(), self.log()[-2000:]
        wait_until(lambda: self.open_associations() == 0, "every association has its end", 20)
        assert echoes(self.port)
        assert echoscu(self.port) == 0
        self.assert_log(since)


def echoscu(port: int) -> int:
    """Run dcmtk's echoscu; return its exit status."""
    command = ["echoscu", "-to", "10", "-ta", "10", "-aet", "SCANNER", "-aec", "WETREAD"]
    return subprocess.run(
        [*command, "127.0.0.1", str(port)],
        check=False,
        capture_output=True,
        timeout=60,
        env={**os.environ, "TCP_NODELAY": "1"},
    ).returncode


@contextmanager
def guarded(folder: Path, peers: str = "allow_any_peer = true\n") -> Iterator[GuardedNode]:
    """Run a warm node with a tight guard."""
    node = GuardedNode(folder=folder / "node", peers=peers)
    with node:
        node.warm_up()
        yield node
