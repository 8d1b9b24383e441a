# ruff: noqa: S603 - it starts programs of its own choice
"""Times the delivery of objects by C-STORE: ours, pynetdicom's send_c_store, dcmtk's storescu.

python deploy/bench/delivery.py [--rounds N] [--json FILE] [--folder /dev/shm]

The receiver is dcmtk's storescp, bit preserving: first with 128 KiB PDUs and TCP_NODELAY=1, then
as shipped, with Nagle's algorithm on. In each round every sender sends the same files, in an order
that turns by one each time; ratios are of the same round. A time is what an object more costs:
(all of them - one of them) / (number - 1), so that neither the start of a process nor the
association is in it. CPU is that of the sender, user and system. pynetdicom reads each file with
dcmread first, as a sender that has files must; now and then it does not see an answer that has
come, and such a run is done again and counted.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    generate_uid,
)
from pynetdicom import AE, _config

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # before this folder's engines.py

from node.delivery.dimse import DimseTarget, DimseTargetSettings
from node.interfaces import Outgoing, SendVerdict, Sent

STORESCP: Final = "/usr/bin/storescp"  # pynetdicom brings commands of the same names
STORESCU: Final = "/usr/bin/storescu"
CALLED: Final = "PACS"
OURS, PYNETDICOM, DCMTK = "ours", "pynetdicom", "storescu"
SENDERS: Final = (OURS, PYNETDICOM, DCMTK)
GOALS: Final = (("cpu_ms", PYNETDICOM, 0.25), ("wall_ms", DCMTK, 1.1))
PATIENCE_SECONDS: Final = 10.0
NOT_ACCEPTED: Final = 3  # exit status of a sender
MOST_FAILURES: Final = 3


class NotAcceptedError(Exception):
    """A sender saw no success for one of its objects."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of object. `count` are sent at a time, `shipped` to a storescp as shipped."""

    name: str
    sop_class_uid: str
    rows: int
    columns: int
    count: int
    shipped: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one object more costs a sender, and its memory.

    `peak_mib` is the peak of its process, `rise_mib` how much of it sending added to a Python
    process that has imported everything.
    """

    wall_ms: float
    cpu_ms: float
    peak_mib: float
    rise_mib: float | None


KINDS: Final = (
    Kind(name="CT", sop_class_uid=CTImageStorage, rows=512, columns=512, count=200, shipped=40),
    Kind(
        name="DX",
        sop_class_uid=DigitalXRayImageStorageForPresentation,
        rows=2500,
        columns=2048,
        count=30,
        shipped=10,
    ),
)
SHIPPED, NODELAY = "as shipped", "128 KiB PDUs, TCP_NODELAY=1"


def make_objects(folder: Path, kind: Kind) -> list[Path]:
    """Write objects of noise."""
    folder.mkdir()
    noise = np.random.default_rng(1).integers(0, 4096, (kind.rows, kind.columns), np.uint16)
    files = []
    study, series = generate_uid(), generate_uid()
    for number in range(kind.count):
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.SOPClassUID, dataset.SOPInstanceUID = kind.sop_class_uid, generate_uid()
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, series
        dataset.PatientName, dataset.PatientID, dataset.Modality = "Bench^Mark", "BENCH", kind.name
        dataset.Rows, dataset.Columns, dataset.InstanceNumber = kind.rows, kind.columns, number
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
        dataset.PixelRepresentation = 0
        dataset.PixelData = np.roll(noise, number).tobytes()
        files.append(folder / f"{number:04}.dcm")
        dataset.save_as(files[-1], enforce_file_format=True)
    return files


@contextmanager
def storescp(folder: Path, setting: str) -> Iterator[int]:
    """Run dcmtk's storescp into a folder; yield its port."""
    folder.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    options = ["-pdu", "131072"] if setting == NODELAY else []
    with subprocess.Popen(
        [STORESCP, "+B", *options, "-aet", CALLED, "-od", str(folder), str(port)],
        env=_environment(setting),
    ) as process:
        try:
            _wait_for(port)
            yield port
        finally:
            process.terminate()


def _environment(setting: str) -> dict[str, str]:
    without = {key: value for key, value in os.environ.items() if key != "TCP_NODELAY"}
    return {**without, "TCP_NODELAY": "1"} if setting == NODELAY else without


def _wait_for(port: int) -> None:
    until = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < until:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise SystemExit("storescp does not listen")


def send_ours(port: int, files: Sequence[Path]) -> None:
    """Send by the target that the node uses."""
    settings = DimseTargetSettings(host="127.0.0.1", port=port, ae_title=CALLED)
    answers: list[Sent] = []
    DimseTarget(settings).send(_outgoing(files), lambda _, sent: answers.append(sent))
    if {sent.verdict for sent in answers} != {SendVerdict.ACCEPTED}:
        sys.stderr.write(f"not all were accepted: {answers[-1]}\n")
        raise SystemExit(NOT_ACCEPTED)


def send_pynetdicom(port: int, files: Sequence[Path]) -> None:
    """Send by dcmread and send_c_store."""
    _config.LOG_HANDLER_LEVEL = "none"
    ae = AE(ae_title="WETREAD")
    ae.maximum_pdu_size, ae.dimse_timeout = 0, PATIENCE_SECONDS
    ae.add_requested_context(dcmread(files[0]).SOPClassUID, ExplicitVRLittleEndian)
    association = ae.associate("127.0.0.1", port, ae_title=CALLED)
    if not association.is_established:
        raise SystemExit("no association")
    for file in files:
        if association.send_c_store(dcmread(file)).get("Status") != 0:
            raise SystemExit(NOT_ACCEPTED)
    association.release()


IN_PYTHON: Final[Mapping[str, Callable[[int, Sequence[Path]], None]]] = {
    OURS: send_ours,
    PYNETDICOM: send_pynetdicom,
}


def _outgoing(files: Sequence[Path]) -> list[Outgoing]:
    """Name objects as the outbox does: it knows the UIDs without a look into the file."""
    known = json.loads((files[0].parent / "uids.json").read_text())
    return [
        Outgoing(
            sop_class_uid=known["sop_class_uid"],
            sop_instance_uid=known[file.name],
            transfer_syntax_uid=ExplicitVRLittleEndian,
            path=file,
        )
        for file in files
    ]


def write_uids(files: Sequence[Path], kind: Kind) -> None:
    """Write what the outbox would know of the files."""
    known = {
        file.name: str(dcmread(file, stop_before_pixels=True).SOPInstanceUID) for file in files
    }
    known["sop_class_uid"] = kind.sop_class_uid
    (files[0].parent / "uids.json").write_text(json.dumps(known))


def be_sender(name: str, port: int, folder: Path, count: int) -> None:
    """Send one file, then so many; write the cost to standard output. Runs as its own process."""
    files = sorted(folder.glob("*.dcm"))[:count]
    before = _peak_kib(os.getpid())
    one = _spent(lambda: IN_PYTHON[name](port, files[:1]))
    every = _spent(lambda: IN_PYTHON[name](port, files))
    peak = _peak_kib(os.getpid())
    sys.stdout.write(json.dumps([one, every, peak, peak - before]))


def _spent(work: Callable[[], None], who: int = resource.RUSAGE_SELF) -> tuple[float, float]:
    """Return wall and CPU seconds."""
    began, before = time.perf_counter(), resource.getrusage(who)
    work()
    ended, after = time.perf_counter(), resource.getrusage(who)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return ended - began, cpu


def _peak_kib(process: int) -> int:
    """Return the peak of a process's memory since its program began, 0 where it has ended."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0
    found = re.search(r"VmHWM:\s+(\d+)", status)
    return int(found[1]) if found else 0


def measure(name: str, port: int, files: Sequence[Path], setting: str) -> Cost:
    """Let a sender send, in a process of its own; return what an object costs.

    Raises:
        NotAcceptedError: an answer was no success, or none.
    """
    if name == DCMTK:
        command = [STORESCU, "-aec", CALLED, "127.0.0.1", str(port)]

        peaks: list[int] = [0]

        def run(some: Sequence[Path], *, watched: bool = False) -> None:
            process = subprocess.Popen(
                [*command, *map(str, some)],
                env=_environment(setting),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            while watched and process.poll() is None:
                peaks.append(_peak_kib(process.pid))
                time.sleep(0.002)
            if process.wait():
                raise SystemExit("storescu failed")

        one = _spent(lambda: run(files[:1]), resource.RUSAGE_CHILDREN)
        every = _spent(lambda: run(files), resource.RUSAGE_CHILDREN)
        run(files, watched=True)
        peak, rise = max(peaks), None
    else:
        arguments = ["--sender", name, str(port), str(files[0].parent), str(len(files))]
        done = subprocess.run(
            [sys.executable, __file__, *arguments], check=False, stdout=subprocess.PIPE, text=True
        )
        if done.returncode == NOT_ACCEPTED:
            raise NotAcceptedError
        done.check_returncode()
        one, every, peak, rise = json.loads(done.stdout)
    more = len(files) - 1
    return Cost(
        wall_ms=(every[0] - one[0]) / more * 1e3,
        cpu_ms=(every[1] - one[1]) / more * 1e3,
        peak_mib=peak / 1024,
        rise_mib=None if rise is None else rise / 1024,
    )


def persist(name: str, port: int, files: Sequence[Path], setting: str) -> Cost:
    """Measure, again where a run fails; say so."""
    for attempt in range(MOST_FAILURES):
        try:
            return measure(name, port, files, setting)
        except NotAcceptedError:
            sys.stdout.write(f"\n{name}: run {attempt + 1} had an object without success; again\n")
    raise SystemExit(f"{name}: fails")


def compare(folder: Path, kind: Kind, setting: str, rounds: int) -> dict[str, list[Cost]]:
    """Let every sender send the same files in each round, in an order that turns."""
    count = kind.count if setting == NODELAY else kind.shipped
    files = sorted((folder / kind.name).glob("*.dcm"))[:count]
    kept, costs = folder / "kept", {name: list[Cost]() for name in SENDERS}
    with storescp(kept, setting) as port:
        for turn in range(rounds):
            for step in range(len(SENDERS)):
                name = SENDERS[(turn + step) % len(SENDERS)]
                costs[name].append(persist(name, port, files, setting))
                if len(list(kept.iterdir())) != count:
                    raise SystemExit(f"{name}: not all objects arrived")
                for file in kept.iterdir():
                    file.unlink()
    shutil.rmtree(kept)
    return costs


def ratios(costs: Mapping[str, Sequence[Cost]], what: str, other: str) -> tuple[float, ...]:
    """Return ours / other of the same rounds: lower quartile, median, upper quartile."""
    pairs = zip(costs[OURS], costs[other], strict=True)
    found = [getattr(ours, what) / getattr(theirs, what) for ours, theirs in pairs]
    low, middle, high = statistics.quantiles(found, n=4, method="inclusive")
    return low, middle, high


def report(kind: Kind, setting: str, costs: Mapping[str, Sequence[Cost]]) -> dict[str, object]:
    """Print one comparison; return it as data."""
    size = 2 * kind.rows * kind.columns / 1e6
    write = sys.stdout.write
    write(f"\n{kind.name}, {size:.1f} MB, to storescp +B, {setting}; medians of an object\n")
    write(
        f"  {'sender':12}{'wall ms':>10}{'CPU ms':>10}{'peak MiB':>10}{'of it for sending':>20}\n"
    )
    for name in SENDERS:
        middle = {
            what: statistics.median(getattr(cost, what) for cost in costs[name])
            for what in ("wall_ms", "cpu_ms", "peak_mib")
        }
        rises = [cost.rise_mib for cost in costs[name] if cost.rise_mib is not None]
        rise = f"{max(rises):.1f}" if rises else "-"
        write(f"  {name:12}{middle['wall_ms']:10.2f}{middle['cpu_ms']:10.2f}")
        write(f"{middle['peak_mib']:10.0f}{rise:>20}\n")
    found: dict[str, dict[str, tuple[float, ...]]] = {}
    for other in (PYNETDICOM, DCMTK):
        for what in ("wall_ms", "cpu_ms"):
            low, middle_ratio, high = ratios(costs, what, other)
            found.setdefault(other, {})[what] = (low, middle_ratio, high)
            goal = "".join(
                f"   goal <= {most:g}: {'met' if middle_ratio <= most else 'NOT met'}"
                for of, against, most in GOALS
                if setting == NODELAY and (of, against) == (what, other)
            )
            write(f"  {what[:-3]:4} ours / {other:12}{middle_ratio:7.3f}")
            write(f"  ({low:.3f} .. {high:.3f}){goal}\n")
    return {
        "kind": kind.name,
        "bytes": 2 * kind.rows * kind.columns,
        "receiver": f"storescp +B, {setting}",
        "rounds": {name: [asdict(cost) for cost in costs[name]] for name in SENDERS},
        "ratios": found,
    }


def main() -> None:
    """Make the objects, let all send, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each comparison (5)")
    parser.add_argument("--json", type=Path, help="write every figure to this file")
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm"), help="where to work")  # noqa: S108
    parser.add_argument("--sender", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.sender:
        name, port, folder, count = options.sender
        be_sender(name, int(port), Path(folder), int(count))
        return
    with tempfile.TemporaryDirectory(prefix="wetread-bench-", dir=options.folder) as made:
        work, found = Path(made), []
        for kind in KINDS:
            write_uids(make_objects(work / kind.name, kind), kind)
        for setting, rounds in ((NODELAY, options.rounds), (SHIPPED, max(2, options.rounds // 2))):
            for kind in KINDS:
                found.append(report(kind, setting, compare(work, kind, setting, rounds)))  # noqa: PERF401
    if options.json:
        machine = {
            "python": platform.python_version(),
            "processors": os.cpu_count(),
            "system": platform.platform(),
            "pydicom": version("pydicom"),
            "pynetdicom": version("pynetdicom"),
        }
        options.json.write_text(json.dumps({"machine": machine, "comparisons": found}, indent=1))


if __name__ == "__main__":
    main()
