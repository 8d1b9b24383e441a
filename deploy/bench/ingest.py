# ruff: noqa: S603 - a program, in no package; it starts senders
"""Measures C-STORE ingest: our node beside dcmtk, Orthanc and pynetdicom, the same bytes to each.

python deploy/bench/ingest.py [--quick] [--durability behind|sync] [--root DIR] [--json FILE] ...

Read the ratios; images/s and milliseconds belong to the machine. Inside a repetition each server
takes its turn, so that what disturbs one disturbs all. Goals are told, never enforced; an image
that was sent and did not arrive is an error (status 1).
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from floor import measure_floor
from goals import judge
from hygiene import MEMORY, RoomError, in_memory, need_room, warm_memory
from loopback import enter_own_network
from measuring import Part, Run, all_ratios
from objects import KINDS, Template, make_template, write_files
from peers import NO_DELAY, SERVERS, PeerError, Server, node_knows_durability, program
from process_tree import cpu_seconds, forget_peaks, peak_bytes, wait_idle
from report import as_json, goal_lines, machine, tables
from sender import CALLING_AE, SendError, send

AS_SHIPPED: Final = ("wetread", "storescp-fork", "orthanc")
AS_SHIPPED_COUNT, AS_SHIPPED_QUICK_COUNT = 100, 40
AS_SHIPPED_ASSOCIATIONS: Final = (1, 4)
SYNCED: Final = ("wetread", "orthanc")
WARM_UP: Final = 10
ARRIVAL_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be measured. `durability` None in `node_durability`: the node knows no choice."""

    root: Path
    durability: str
    node_durability: str | None
    servers: Sequence[str]
    kinds: Sequence[str]
    associations: Sequence[int]
    repetitions: int
    counts: dict[str, int]
    as_shipped_count: int
    floor: bool


@dataclass(slots=True, kw_only=True)
class Bench:
    """The servers, one turn after the other."""

    plan: Plan
    templates: dict[str, Template]
    runs: list[Run] = field(default_factory=list)

    def fast(self, kind: str, repetition: int) -> None:
        """Send one kind of image from the fast sender to each server, at each parallelism."""
        plan, template = self.plan, self.templates[kind]
        with self._started(plan.servers, f"{kind}-{repetition}", no_delay=True) as servers:
            for server in servers:
                _store(server, template, [min(WARM_UP, plan.counts[kind])])
            for associations in plan.associations:
                counts = shares(plan.counts[kind], associations)
                for server in servers:
                    _warm(template, counts)
                    run = _store(server, template, counts, repetition)
                    self.runs.append(run)
                    if server.sweeps and self._in_memory:
                        server.sweep()
                if plan.floor:
                    _warm(template, counts)
                    self.runs.append(self._floor(template, counts, repetition))

    def as_shipped(self, kind: str, repetition: int) -> None:
        """Send one kind of image from dcmtk's storescu, nothing set on either side."""
        plan, template = self.plan, self.templates[kind]
        names = [name for name in plan.servers if name in AS_SHIPPED]
        with self._started(names, f"shipped-{repetition}", no_delay=False) as servers:
            for associations in AS_SHIPPED_ASSOCIATIONS:
                if associations not in plan.associations:
                    continue
                folder = plan.root / f"files-{repetition}-{associations}"
                parts = [
                    write_files(template, folder / str(number), association=number, count=count)
                    for number, count in enumerate(shares(plan.as_shipped_count, associations))
                ]
                for server in servers:
                    self.runs.append(_store_files(server, kind, parts, repetition))

    @property
    def _in_memory(self) -> bool:
        return in_memory(self.plan.root)

    def need_room(self) -> None:
        """See that all that will be kept at a time has room; raises RoomError."""
        kept = [self.kept_bytes(kind) for kind in self.plan.kinds]
        need_room(
            self.plan.root, max(kept) if self._in_memory else sum(kept) * self.plan.repetitions
        )

    def kept_bytes(self, kind: str) -> int:
        """Return how many bytes the servers have written by the end of a repetition."""
        plan = self.plan
        swept = [name for name in plan.servers if SERVERS[name].sweeps and self._in_memory]
        turns = len(plan.associations) * (len(plan.servers) - len(swept)) + bool(swept)
        return turns * plan.counts[kind] * self.templates[kind].size

    def _floor(self, template: Template, counts: Sequence[int], repetition: int) -> Run:
        count, synced = sum(counts), self.plan.durability == "sync"
        took = measure_floor(template, counts, self.plan.root, synced=synced)
        return Run(
            part=Part.FAST,
            server="floor",
            kind=template.kind,
            associations=len(counts),
            repetition=repetition,
            count=count,
            acknowledged=count,
            arrived=count,
            seconds=took.seconds,
            cpu_seconds=took.cpu_seconds,
            peak_bytes=took.peak_bytes,
            rise_bytes=None,
        )

    @contextmanager
    def _started(
        self, names: Sequence[str], where: str, *, no_delay: bool
    ) -> Iterator[list[Server]]:
        folder = self.plan.root / where
        with ExitStack() as stack:
            if self._in_memory:
                stack.callback(shutil.rmtree, folder, ignore_errors=True)
            servers = []
            for name in names:
                server = SERVERS[name](
                    folder=folder / name,
                    no_delay=no_delay,
                    durability=self.plan.node_durability,
                )
                stack.callback(server.stop)
                server.start()
                servers.append(server)
            for server in servers:
                wait_idle(server.pid)
            yield servers


def shares(count: int, associations: int) -> list[int]:
    """Divide a number of images among associations; each has one at least."""
    return [
        max(1, count // associations + (number < count % associations))
        for number in range(associations)
    ]


def _warm(template: Template, counts: Sequence[int]) -> None:
    """Touch memory for a run, and some: the system need not hand out what was touched last."""
    warm_memory(4 * sum(counts) * template.size)


def _store(server: Server, template: Template, counts: Sequence[int], repetition: int = 0) -> Run:
    held = server.arrived()
    before = cpu_seconds(server.pid)
    forget_peaks(server.pid)
    at_rest = sum(peak_bytes(server.pid).values())
    sent = send(server.address, template, counts, lambda: peak_bytes(server.pid))
    processes = {number for part in sent for number in part.seen}
    peak = sum(max(part.seen.get(number, 0) for part in sent) for number in processes)
    cpu, arrived = _settled(server, held + sum(counts))
    return Run(
        part=Part.FAST,
        server=server.name,
        kind=template.kind,
        associations=len(counts),
        repetition=repetition,
        count=sum(counts),
        acknowledged=sum(part.acknowledged for part in sent),
        arrived=arrived - held,
        seconds=max(part.ended for part in sent) - min(part.started for part in sent),
        cpu_seconds=cpu - before,
        peak_bytes=peak,
        rise_bytes=peak - at_rest,
    )


def _store_files(
    server: Server, kind: str, parts: Sequence[Sequence[Path]], repetition: int
) -> Run:
    count = sum(len(files) for files in parts)
    held = server.arrived()
    before = cpu_seconds(server.pid)
    address = server.address
    command = [program("storescu"), "-aet", CALLING_AE, "-aec", address.called_ae]
    command += ["127.0.0.1", str(address.port)]
    environment = {name: value for name, value in os.environ.items() if name != NO_DELAY}
    started = time.monotonic()
    senders = [
        subprocess.Popen([*command, *(str(path) for path in files)], env=environment)
        for files in parts
    ]
    statuses = [sender.wait() for sender in senders]
    seconds = time.monotonic() - started
    if any(statuses):
        raise SendError(f"storescu to {server.name} ended with {statuses}")
    cpu, arrived = _settled(server, held + count)
    return Run(
        part=Part.AS_SHIPPED,
        server=server.name,
        kind=kind,
        associations=len(parts),
        repetition=repetition,
        count=count,
        acknowledged=count,
        arrived=arrived - held,
        seconds=seconds,
        cpu_seconds=cpu - before,
        peak_bytes=None,
        rise_bytes=None,
    )


def _settled(server: Server, wanted: int) -> tuple[float, int]:
    """Wait until a server is idle and holds what it was sent; return its CPU seconds and that.

    What it does behind its answers counts; the counting itself does not.
    """
    until = time.monotonic() + ARRIVAL_SECONDS
    while True:
        cpu = wait_idle(server.pid)
        arrived = server.arrived()
        if arrived >= wanted or time.monotonic() > until:
            return cpu, arrived


# ---------------------------------------------------------------- the command line


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Measure C-STORE ingest beside its peers.")
    parser.add_argument("--durability", choices=("behind", "sync"), default="behind")
    parser.add_argument("--quick", action="store_true", help="two repetitions of few images")
    parser.add_argument("--servers", type=_list_of(SERVERS), help=f"of {', '.join(SERVERS)}")
    parser.add_argument("--kinds", type=_list_of(KINDS), help=f"of {', '.join(KINDS)}")
    parser.add_argument("--associations", type=_numbers, help="such as 1,2,4,8")
    parser.add_argument("--repetitions", type=_positive)
    parser.add_argument("--count", type=_positive, help="images in a run, of every kind")
    parser.add_argument("--root", type=Path, help="folder to write in (default: in memory)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too")
    parser.add_argument("--floor", action="store_true", help="the physical floor beside them")
    parser.add_argument(
        "--as-shipped",
        action=argparse.BooleanOptionalAction,
        help="the part with stock storescu, nothing set (default: unless --durability sync)",
    )
    parser.add_argument(
        "--all-addresses",
        action="store_true",
        help="where no network namespace can be had: let storescp listen on all addresses",
    )
    return parser.parse_args()


def make_plan(chosen: argparse.Namespace, root: Path) -> Plan:
    """Fill in what was not chosen."""
    synced = chosen.durability == "sync"
    kinds = chosen.kinds or list(KINDS)
    count = AS_SHIPPED_QUICK_COUNT if chosen.quick else AS_SHIPPED_COUNT
    wanted = chosen.as_shipped if chosen.as_shipped is not None else not synced
    return Plan(
        root=root,
        durability=chosen.durability,
        node_durability=chosen.durability if node_knows_durability(root / "probe") else None,
        servers=chosen.servers or list(SYNCED if synced else SERVERS),
        kinds=kinds,
        associations=chosen.associations or ([1, 4] if chosen.quick else [1, 2, 4, 8]),
        repetitions=chosen.repetitions or (2 if chosen.quick else 5),
        counts={
            name: chosen.count or (KINDS[name].quick_count if chosen.quick else KINDS[name].count)
            for name in kinds
        },
        as_shipped_count=(chosen.count or count) if wanted else 0,
        floor=chosen.floor,
    )


def measure(plan: Plan) -> Bench:
    """Measure all that is planned; tell on standard error where it stands."""
    folder = plan.root / "templates"
    folder.mkdir()
    bench = Bench(plan=plan, templates={name: make_template(name, folder) for name in plan.kinds})
    bench.need_room()
    shipped = "ct" if "ct" in plan.kinds else plan.kinds[0]
    for kind in plan.kinds:
        for repetition in range(1, plan.repetitions + 1):
            _tell(f"{kind}, repetition {repetition} of {plan.repetitions}")
            bench.fast(kind, repetition)
    if plan.as_shipped_count:
        for repetition in range(1, plan.repetitions + 1):
            _tell(f"as shipped, repetition {repetition} of {plan.repetitions}")
            bench.as_shipped(shipped, repetition)
    return bench


def tell_results(bench: Bench, to: Path | None) -> int:
    """Print tables and goals, write JSON; return the exit status."""
    plan, runs = bench.plan, bench.runs
    ratios, verdicts = all_ratios(runs), judge(runs, plan.durability)
    settings = {
        "durability": plan.durability,
        "node_durability": plan.node_durability,
        "in_memory": in_memory(plan.root),
    }
    sizes = {name: template.size for name, template in bench.templates.items()}
    told = ", ".join(f"{name} {value}" for name, value in machine().items())
    titles = [f"{name}: {SERVERS[name].title}" for name in plan.servers]
    lines = [told, f"durability {plan.durability}", *titles, *tables(runs, ratios, sizes), ""]
    if plan.node_durability is None:
        lines.insert(2, "this node has no [storage] durability: it ran as it is")
    if plan.durability == "sync" and in_memory(plan.root):
        lines.insert(2, "a sync in memory costs nothing: give --root on a real disk")
    sys.stdout.write("\n".join([*lines, *goal_lines(verdicts)]) + "\n")
    if to is not None:
        to.write_text(as_json(settings, runs, ratios, verdicts) + "\n", encoding="utf-8")
    lost = [run for run in runs if run.lost]
    for run in lost:
        _tell(f"LOST {run.lost} of {run.count}: {run.server}, {run.kind}, {run.associations}")
    return 1 if lost else 0


def main() -> int:
    """Measure in a network of one's own and in a folder that is removed; return the status."""
    chosen = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if not enter_own_network() and not chosen.all_addresses:
        _tell(
            "no network namespace can be had here, and storescp listens on all addresses: run as "
            "root or where user namespaces are allowed, or accept it with --all-addresses"
        )
        return 2
    parent = chosen.root or (MEMORY if MEMORY.is_dir() else None)
    with tempfile.TemporaryDirectory(prefix="wetread-bench-", dir=parent) as folder:
        try:
            return tell_results(measure(make_plan(chosen, Path(folder))), chosen.json)
        except (PeerError, RoomError, SendError) as error:
            _tell(str(error))
            return 2


def _list_of(known: Collection[str]) -> Callable[[str], list[str]]:
    def read(text: str) -> list[str]:
        names = text.split(",")
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name}: none of {', '.join(known)}")
        return names

    return read


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number}: must be 1 or more")
    return number


def _numbers(text: str) -> list[int]:
    return [_positive(part) for part in text.split(",")]


def _tell(line: str) -> None:
    sys.stderr.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main())
