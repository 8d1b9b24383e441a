"""Show that nothing grows with the number of instances in a series, or the size of an object.

`python deploy/bench/scale.py [--instances 50000] [--gibibytes 2]` runs a node, sends one series in
lots of equal size and one very large object, and prints what each lot cost: seconds, the node's CPU
and its memory. The last lot must cost what the first one did (R5, R10).
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

CODE: Final = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CODE))

from node.settings import load_settings  # noqa: E402 - after the path
from node.stores import Stores, open_stores  # noqa: E402
from storage.records import StudyRecord  # noqa: E402
from storage.states import StudyState  # noqa: E402
from tests.end_to_end.pdus import (  # noqa: E402
    CT_CONTEXT,
    c_store_rq,
    data_set,
    element,
    message,
    p_data,
    pdv,
)
from tests.end_to_end.requestor import associated  # noqa: E402

QUIET_SECONDS: Final = 2
PATIENCE_SECONDS: Final = 900.0
PIECE: Final = bytes(1 << 20)
LAST_DATA: Final = 2
SUCCESS: Final = 0
CONFIGURATION: Final = """
[node]
name = "SCALE"
data_dir = "data"
[listeners.dimse]
host = "127.0.0.1"
port = {port}
allow_any_peer = true
[storage]
reserve_mib = 64
resume_mib = 64
urgent_mib = 64
[completion]
quiet_seconds = {quiet}
[rules]
file = "rules.toml"
[admin]
enabled = false
"""
RULES: Final = """
[[rules]]
name = "none-of-these"
owner = "bench"
priority = "routine"
trigger = "series"
engines = ["ct-body-composition"]
destinations = []
conditions = {field = "Modality", op = "equals", value = "MG", level = "series"}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lot:
    """What some instances cost. Memory is the node's resident memory after them, in MiB."""

    instances: int
    seconds: float
    cpu_ms_an_instance: float
    resident_mib: float


class Node:
    """A node process, looked at through /proc."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, stores: Stores) -> None:
        self.process = process
        self.port = port
        self.stores = stores

    def cpu_seconds(self) -> float:
        """Return the CPU seconds of the node's own process so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory_mib(self, name: str) -> float:
        """Return VmRSS or VmHWM."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) / 1024
        raise SystemExit("the node has ended")


@contextmanager
def running_node(folder: Path) -> Iterator[Node]:
    """Run a node in a folder."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    (folder / "rules.toml").write_text(RULES.replace("destinations = []", 'destinations = ["out"]'))
    (folder / "wetread.toml").write_text(
        CONFIGURATION.format(port=port, quiet=QUIET_SECONDS)
        + f'[destinations.out]\nkind = "folder"\nfolder = "{folder}/out"\n'
    )
    (folder / "out").mkdir()
    with (folder / "node.log").open("wb") as log:
        process = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-m", "node", "run", "--config", str(folder / "wetread.toml")],
            cwd=CODE,
            env={**os.environ, "PYTHONPATH": str(CODE)},
            stdout=log,
            stderr=log,
        )
        try:
            _wait(lambda: b"engine.verified" in (folder / "node.log").read_bytes(), "the node")
            stores = open_stores(load_settings(folder / "wetread.toml"))
            yield Node(process, port, stores)
            stores.database.close()
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def send_series(node: Node, instances: int, lots: int) -> list[Lot]:
    """Send one series over one association, in lots of equal size."""
    found = []
    before = _indexed(node)
    with associated(node.port) as requestor:
        for lot in range(lots):
            began, spent = time.monotonic(), node.cpu_seconds()
            for number in range(instances // lots):
                uid = f"2.25.{10**20 + lot * 10**9 + number}"
                if requestor.store(uid, data_set(uid, pixels=bytes(512))) != SUCCESS:
                    raise SystemExit(f"instance {number} of lot {lot} was not taken")
            _wait(lambda: _indexed(node) >= before + (lot + 1) * (instances // lots), "the rows")  # noqa: B023
            count = instances // lots
            found.append(
                Lot(
                    instances=count,
                    seconds=round(time.monotonic() - began, 2),
                    cpu_ms_an_instance=round(1e3 * (node.cpu_seconds() - spent) / count, 3),
                    resident_mib=round(node.memory_mib("VmRSS"), 1),
                )
            )
    return found


def send_large(node: Node, size: int) -> Lot:
    """Send one object of a size, piece by piece."""
    began, spent, before = time.monotonic(), node.cpu_seconds(), node.memory_mib("VmHWM")
    head = data_set("2.25.99", series_instance_uid="2.25.98", study_instance_uid="2.25.97")
    head = head[: -len(element(0x7FE00010, "OW", b""))]
    head += element(0x7FE00010, "OW", b"", length=size)
    with associated(node.port) as requestor:
        requestor.send(p_data(*message(CT_CONTEXT.id, c_store_rq("2.25.99"), command=True)))
        requestor.send(p_data(pdv(CT_CONTEXT.id, 0, head)))
        part = p_data(pdv(CT_CONTEXT.id, 0, PIECE[:16_000]))
        whole, rest = divmod(size, 16_000)
        for _ in range(whole // 64):
            requestor.send(part * 64)
        requestor.send(part * (whole % 64) + p_data(pdv(CT_CONTEXT.id, LAST_DATA, PIECE[:rest])))
        answer = requestor.response()
    if answer is None or answer[1] != SUCCESS:
        raise SystemExit(f"the large object was answered {answer}")
    return Lot(
        instances=1,
        seconds=round(time.monotonic() - began, 2),
        cpu_ms_an_instance=round(1e3 * (node.cpu_seconds() - spent), 1),
        resident_mib=round(node.memory_mib("VmHWM") - before, 1),
    )


def time_to_route(node: Node, last: float) -> float:
    """Return the seconds from the last instance to the decision of the rules, quiet time aside."""
    _wait(lambda: _study(node).state is not StudyState.RECEIVING, "completion")
    _wait(lambda: _study(node).state is StudyState.UNMATCHED, "routing")
    return round(time.monotonic() - last - QUIET_SECONDS, 2)


def _study(node: Node) -> StudyRecord:
    return max(node.stores.studies.list(), key=lambda study: study.instances)


def _indexed(node: Node) -> int:
    return node.stores.studies.conservation().received


def _wait(holds: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < until:
        if holds():
            return
        time.sleep(0.05)
    raise SystemExit(f"not within {PATIENCE_SECONDS:g} s: {what}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--instances", type=int, default=50_000)
    parser.add_argument("--lots", type=int, default=5)
    parser.add_argument("--gibibytes", type=float, default=2.0)
    parser.add_argument("--root", type=Path, help="folder to work in (default: the system's)")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.root) as name, running_node(Path(name)) as node:
        large = send_large(node, int(options.gibibytes * (1 << 30)) // 2 * 2)
        print(
            f"one object of {options.gibibytes:g} GiB: {large.seconds} s, "
            f"peak +{large.resident_mib} MiB"
        )
        lots = send_series(node, options.instances, options.lots)
        print(f"{'instances':>10}{'seconds':>9}{'CPU ms each':>13}{'resident MiB':>14}")
        for lot in lots:
            print(
                f"{lot.instances:>10}{lot.seconds:>9}{lot.cpu_ms_an_instance:>13}"
                f"{lot.resident_mib:>14}"
            )
        ratio = lots[-1].cpu_ms_an_instance / lots[0].cpu_ms_an_instance
        routed = time_to_route(node, time.monotonic())
        print(f"last lot to first, CPU: {ratio:.2f}; completed and routed in {routed} s")
    if options.json:
        rows = {"large": asdict(large), "lots": [asdict(lot) for lot in lots], "routed": routed}
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
