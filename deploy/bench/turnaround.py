"""From the last C-STORE response to the SEG at the PACS: each stage of one CT, by the node's rows.

`python deploy/bench/turnaround.py [--slices 300] [--repetitions 3]` runs a node with the reference
engine and dcmtk's storescp as the PACS, sends a synthetic CT, and prints seconds by stage. The
quiet time and the network's forward passes are told, and left out of the sum. The first study is
left out too: its sandbox has to start. Beside the median stands the least, which other work on the
machine lengthens least.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from pydicom import FileDataset, dcmread

CODE: Final = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CODE))

from loopback import enter_own_network  # noqa: E402 - beside this file; after the path
from peers import StoreScpFork, free_port  # noqa: E402

from node.delivery.dimse import DimseTarget, DimseTargetSettings  # noqa: E402
from node.inference import FORWARD  # noqa: E402
from node.interfaces import Outgoing, SendVerdict, Sent  # noqa: E402
from node.log import configure_logging  # noqa: E402
from node.settings import load_settings  # noqa: E402
from node.stores import Stores, open_stores  # noqa: E402
from storage.records import NotFoundError  # noqa: E402
from storage.states import DeliveryState  # noqa: E402
from tests.factories import make_ct_series  # noqa: E402

QUIET_SECONDS: Final = 1.0
PATIENCE_SECONDS: Final = 300.0
SEGMENTATION: Final = "1.2.840.10008.5.1.4.1.1.66.4"
LITTLE_ENDIAN: Final = "1.2.840.10008.1.2.1"
CT: Final = "1.2.840.10008.5.1.4.1.1.2"
GOAL_SECONDS: Final = 1.0
REACHED: Final = "without quiet time and forward"

CONFIGURATION: Final = """
[node]
name = "BENCH"
data_dir = "data"
[listeners.dimse]
host = "127.0.0.1"
port = {port}
allow_any_peer = true
[destinations.pacs]
kind = "dimse"
host = "127.0.0.1"
port = {pacs}
ae_title = "PACS"
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
name = "every-ct"
owner = "bench"
priority = "routine"
trigger = "series"
engines = ["ct-body-composition"]
destinations = ["pacs"]
conditions = {field = "Modality", op = "equals", value = "CT", level = "series"}
"""


@contextmanager
def running_node(folder: Path, pacs_port: int) -> Iterator[int]:
    """Run a node; yield its port."""
    port = free_port()
    (folder / "rules.toml").write_text(RULES)
    (folder / "wetread.toml").write_text(
        CONFIGURATION.format(port=port, pacs=pacs_port, quiet=QUIET_SECONDS)
    )
    with (folder / "node.log").open("wb") as log:
        process = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-m", "node", "run", "--config", str(folder / "wetread.toml")],
            cwd=CODE,
            env={**os.environ, "PYTHONPATH": str(CODE)},
            stdout=log,
            stderr=log,
        )
        try:
            _wait(lambda: b"engine.verified" in (folder / "node.log").read_bytes(), "the engine")
            yield port
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def send(files: Sequence[Path], port: int) -> datetime:
    """Send files over one association; return when the last was answered."""
    outgoing = [
        Outgoing(
            sop_class_uid=CT,
            sop_instance_uid=str(_header(file).SOPInstanceUID),
            transfer_syntax_uid=LITTLE_ENDIAN,
            path=file,
        )
        for file in files
    ]
    answered: list[datetime] = []

    def report(_: int, sent: Sent) -> None:
        if sent.verdict is not SendVerdict.ACCEPTED:
            raise SystemExit(f"an instance was not taken: {sent.message}")
        answered.append(datetime.now(UTC))

    settings = DimseTargetSettings(host="127.0.0.1", port=port, ae_title="WETREAD")
    DimseTarget(settings).send(outgoing, report)
    return answered[-1]


def stages(stores: Stores, study_instance_uid: str, last: datetime) -> dict[str, float]:
    """Return the seconds of each stage, from the rows of a study whose results are delivered."""
    study = stores.studies.get(study_instance_uid)
    (job,) = stores.jobs.list(study_id=study.id)
    events = {item.action: item.at for item in stores.events.timeline(study.id)}
    sent = [
        item.finished_at
        for item in stores.deliveries.list(study_id=study.id)
        if item.sop_class_uid == SEGMENTATION and item.finished_at is not None
    ]
    completed, routed = events["study.completed"], events["study.routed"]
    if job.started_at is None or job.finished_at is None:
        raise SystemExit("the job has not ended")
    ran = (job.finished_at - job.started_at).total_seconds()
    found = {
        "quiet time": QUIET_SECONDS,
        "complete": (completed - last).total_seconds() - QUIET_SECONDS,
        "route": (routed - completed).total_seconds(),
        "start": (job.started_at - routed).total_seconds(),
        **{f"job: {name}": seconds for name, seconds in job.timings.items()},
        "job: rest": ran - sum(job.timings.values()),
        "deliver SEG": (max(sent) - job.finished_at).total_seconds(),
        "whole": (max(sent) - last).total_seconds(),
    }
    forward = found.get(f"job: {FORWARD}", 0.0)
    found[REACHED] = found["whole"] - QUIET_SECONDS - forward
    return found


def _delivered(stores: Stores, study_instance_uid: str) -> bool:
    try:
        study = stores.studies.get(study_instance_uid)
    except NotFoundError:
        return False
    deliveries = stores.deliveries.list(study_id=study.id)
    return bool(deliveries) and all(item.state is DeliveryState.SENT for item in deliveries)


def measure(folder: Path, slices: int, repetitions: int) -> list[dict[str, float]]:
    """Run the way a number of times, each with a new study; the first warms up and is left out."""
    runs = []
    pacs = StoreScpFork(folder=folder / "pacs")
    pacs.start()
    try:
        with running_node(folder, pacs.port) as port:
            stores = open_stores(load_settings(folder / "wetread.toml"))
            for number in range(repetitions + 1):
                series = folder / f"ct{number}"
                files = make_ct_series(
                    series, slices=slices, rows=512, columns=512, seed=number + 1,
                    spacing=(1.5, 0.8, 0.8), slice_thickness=1.5, noise=8.0,
                )  # fmt: skip
                study = str(_header(files[0]).StudyInstanceUID)
                last = send(files, port)
                _wait(lambda study=study: _delivered(stores, study), "the results")  # type: ignore[misc]
                runs.append(stages(stores, study, last))
            stores.database.close()
    finally:
        pacs.stop()
    return runs[1:]


def _header(file: Path) -> FileDataset:
    return dcmread(file, stop_before_pixels=True)


def _wait(holds: object, what: str) -> None:
    until = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < until:
        if callable(holds) and holds():
            return
        time.sleep(0.05)
    raise SystemExit(f"not within {PATIENCE_SECONDS:g} s: {what}")


def main() -> None:
    """Measure and print."""
    configure_logging(level="error", style="console")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--root", type=Path, help="folder to work in (default: in memory)")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if not enter_own_network():
        print("no network of its own can be had here: storescp listens on all addresses")
    root = options.root or Path("/dev/shm")  # noqa: S108 - the bench says so
    with tempfile.TemporaryDirectory(dir=root) as folder:
        runs = measure(Path(folder), options.slices, options.repetitions)
    print(f"seconds of {len(runs)} runs: a CT of {options.slices} slices, one engine")
    print(f"  {'':36}{'median':>8}{'least':>8}")
    for name in runs[0]:
        values = [run.get(name, 0.0) for run in runs]
        print(f"  {name:36}{statistics.median(values):8.3f}{min(values):8.3f}")
    reached = statistics.median(run[REACHED] for run in runs)
    print(f"goal <= {GOAL_SECONDS:g} s: {'met' if reached <= GOAL_SECONDS else 'missed'}")
    if options.json:
        options.json.write_text(json.dumps(runs, indent=1))


if __name__ == "__main__":
    main()
