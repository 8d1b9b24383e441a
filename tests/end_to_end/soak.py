"""Sends twice a large hospital's peak hour through a node, faster, and looks for growth.

    python -m tests.end_to_end.soak --minutes 10 --scale 0.25

Poisson arrivals of X-ray, ultrasound, CT and MR studies from several devices each; every tenth CT
is read by the reference engine and its results go to a stand-in PACS. The status is 1 when an
acknowledged instance is lost or changed, one is refused, or memory, threads, descriptors or queues
grow after the warm-up.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import queue
import random
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from node.log import configure_logging
from node.pacs import StandInPacs
from node.stores import Stores
from storage.records import StudyRecord
from storage.states import DeliveryState, JobState
from tests.end_to_end.audit import Audit, audit
from tests.end_to_end.load import Ledger
from tests.end_to_end.made_images import CT, DX, MR, MULTIFRAME_US, US, Kind, Prototype, Study
from tests.end_to_end.processes import wait_until
from tests.end_to_end.sampling import TOLERANCES, Growth, Sampler, growth, percentiles
from tests.end_to_end.store_scu import StoreAssociation
from tests.end_to_end.watched import TO_BE_READ, WatchedNode, unfinished

PEAKS: Final = 2.0
"""How many of the published peak hours are sent: studies an hour of each modality, times this."""
QUIET_SECONDS: Final = 2.0
SETTLING_SECONDS: Final = 300.0
WARM_UP: Final = 0.3  # of the time
SHORTEST_SECONDS: Final = 60.0
"""Of samples after the warm-up; in less than that nothing can be said of growth."""
STORAGE: Final = """
[storage]
reserve_mib = 64
urgent_mib = 0
resume_mib = 0
"""
"""The disk of a test machine may be small."""
SMALLEST: Final = 32  # pixels, rows and columns
NAMES: Final = {CT: "CT", MR: "MR", DX: "X-ray", US: "ultrasound", MULTIFRAME_US: "US multiframe"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """Devices of one modality: how many, and the studies that they send in the peak hour."""

    name: str
    devices: int
    an_hour: float


ROOMS: Final = (
    Room(name="XRAY", devices=6, an_hour=180.0),
    Room(name="ULTRASOUND", devices=4, an_hour=75.0),
    Room(name="CT", devices=4, an_hour=45.0),
    Room(name="MR", devices=3, an_hour=37.5),
)


class Catalogue:
    """What studies of each modality look like, with pixels scaled down."""

    def __init__(self, scale: float) -> None:
        def prototype(
            modality: str, sop_class: str, size: tuple[int, int], **more: str
        ) -> Prototype:
            rows, columns = (max(SMALLEST, round(side * scale)) for side in size)
            frames = int(more.pop("frames", "1"))
            return Prototype(
                Kind(
                    modality=modality,
                    sop_class_uid=sop_class,
                    rows=rows,
                    columns=columns,
                    frames=frames,
                    **more,
                )
            )

        self.ct = prototype("CT", CT, (512, 512))
        self.read_ct = prototype("CT", CT, (512, 512), description=TO_BE_READ)
        self.mr = prototype("MR", MR, (256, 256))
        self.dx = prototype("DX", DX, (2500, 2000))
        self.us = prototype("US", US, (600, 800))
        self.us_loop = prototype("US", MULTIFRAME_US, (480, 640), frames="30")

    def study(self, room: str, chance: random.Random) -> tuple[Study, list[int]]:
        """Return a study of a modality and how many images each of its series has."""
        if room == "XRAY":
            return Study(self.dx, chance), [2]
        if room == "MR":
            return Study(self.mr, chance), [30] * 4
        if room == "CT":
            read = chance.random() < 0.1
            return Study(self.read_ct if read else self.ct, chance), [chance.randint(100, 300)]
        if chance.random() < 0.5:
            return Study(self.us, chance), [20]
        return Study(self.us_loop, chance), [1]


class Traffic:
    """The modalities of a hospital: studies come up at random, and free devices send them."""

    def __init__(self, port: int, ledger: Ledger, catalogue: Catalogue, seed: int) -> None:
        self.studies = 0
        self.broken = 0
        self._port = port
        self._ledger = ledger
        self._catalogue = catalogue
        self._seed = seed
        self._waiting: dict[str, queue.Queue[bool]] = {room.name: queue.Queue() for room in ROOMS}
        self._threads: list[threading.Thread] = []

    def run(self, seconds: float, compress: float) -> None:
        """Let studies come up for some seconds, at so many times the speed of the peak hours."""
        until = time.monotonic() + seconds
        for room in ROOMS:
            for device in range(room.devices):
                self._begin(self._send, room, device)
            self._begin(self._come_up, room, room.an_hour * PEAKS * compress / 3600, until)
        for thread in self._threads:
            thread.join(seconds + SETTLING_SECONDS)

    def backlog(self) -> int:
        """Return how many studies wait for a free device."""
        return sum(waiting.qsize() for waiting in self._waiting.values())

    def _begin(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _come_up(self, room: Room, a_second: float, until: float) -> None:
        chance = random.Random(f"{self._seed}-{room.name}")  # noqa: S311 - arrival times
        waiting = self._waiting[room.name]
        waiting.put(True)  # at least one
        while (pause := chance.expovariate(a_second)) < until - time.monotonic():
            time.sleep(pause)
            waiting.put(True)
        for _ in range(room.devices):
            waiting.put(False)  # go home

    def _send(self, room: Room, device: int) -> None:
        chance = random.Random(f"{self._seed}-{room.name}-{device}")  # noqa: S311 - what is sent
        while self._waiting[room.name].get():
            self.studies += 1
            try:
                self._send_study(room, device, chance)
            except OSError:
                self.broken += 1

    def _send_study(self, room: Room, device: int, chance: random.Random) -> None:
        study, series = self._catalogue.study(room.name, chance)
        association = StoreAssociation(self._port, calling=f"{room.name}{device}")
        try:
            for images in series:
                for _ in range(images):
                    self._ledger.send(association, study.image(study.prototype.pixels))
                study.next_series()
            association.release()
        finally:
            association.close()


# ---------------------------------------------------------------- latencies


def latencies(stores: Stores) -> dict[str, list[float]]:
    """Return seconds behind the quiet time until a study was complete, routed, and delivered."""
    found: dict[str, list[float]] = {"complete": [], "routed": [], "results at the PACS": []}
    for study in studies_of(stores):
        quiet_over = study.last_received_at.timestamp() + QUIET_SECONDS
        at = {event.action: event.at.timestamp() for event in stores.events.timeline(study.id)}
        found["complete"].append(at["study.completed"] - quiet_over)
        routed = at.get("study.routed", at.get("study.unmatched"))
        if routed is not None:
            found["routed"].append(routed - quiet_over)
        ends = [
            item.finished_at.timestamp()
            for item in stores.deliveries.list(study_id=study.id)
            if item.state is DeliveryState.SENT and item.finished_at is not None
        ]
        if ends:
            found["results at the PACS"].append(max(ends) - quiet_over)
    return found


def studies_of(stores: Stores) -> Iterator[StudyRecord]:
    """Yield every study."""
    offset = 0
    while page := stores.studies.list(limit=500, offset=offset):
        yield from page
        offset += len(page)


# ---------------------------------------------------------------- the program


@dataclass(slots=True, kw_only=True)
class Soaked:
    """What came of it."""

    studies: int
    seconds: float
    must_be_zero: dict[str, int]
    seconds_to: dict[str, dict[str, float]]  # percentiles
    growths: dict[str, Growth]
    found: Audit


def soak(asked: argparse.Namespace, seed: int, work: Path) -> Soaked:
    """Run the traffic through a node in a folder."""
    ledger, pacs = Ledger(), StandInPacs(work / "pacs", ae_title="PACS", host="127.0.0.1", port=0)
    with contextlib.ExitStack() as stack:
        pacs.start()
        stack.callback(pacs.stop)
        node = WatchedNode(folder=work / "node", pacs_port=pacs.port, quiet_seconds=QUIET_SECONDS)
        stack.enter_context(node)
        traffic = Traffic(node.port, ledger, Catalogue(asked.scale), seed)
        sampler = Sampler(node)
        sampler.start()
        began = time.monotonic()
        traffic.run(asked.minutes * 60, asked.compress or 60 / asked.minutes)
        seconds = time.monotonic() - began
        sampler.stop()
        stores = node.stores()
        stack.callback(stores.database.close)
        with contextlib.suppress(AssertionError):  # what is not settled is counted
            wait_until(lambda: not unfinished(stores), "all is settled", SETTLING_SECONDS)
        unsettled = unfinished(stores)
        status = node.stop()
        return _judged(traffic, ledger, stores, sampler, seconds, status or unsettled)


def _judged(  # noqa: PLR0917 - all that came of it
    traffic: Traffic,
    ledger: Ledger,
    stores: Stores,
    sampler: Sampler,
    seconds: float,
    unclean: int,
) -> Soaked:
    found = audit(stores, ledger)
    jobs = stores.jobs.counts()
    seconds_to = {
        f"C-STORE response, {NAMES[sop_class]}": values
        for sop_class, values in sorted(ledger.seconds.items())
    }
    return Soaked(
        studies=traffic.studies,
        seconds=seconds,
        must_be_zero=found.complaints()
        | {
            "refused": ledger.refused.total(),
            "associations broken": traffic.broken,
            "studies that were opened again": sum(s.revision > 1 for s in studies_of(stores)),
            "jobs that did not succeed": sum(jobs.values()) - jobs.get(JobState.SUCCEEDED, 0),
            "not settled, or no clean end": unclean,
        },
        seconds_to={
            name: percentiles(values) for name, values in (seconds_to | latencies(stores)).items()
        },
        growths=growths(sampler.samples, seconds),
        found=found,
    )


def growths(samples: Mapping[str, list[float]], seconds: float) -> dict[str, Growth]:
    """Judge each figure after the warm-up; nothing of a run that is too short."""
    rest = seconds * (1 - WARM_UP)
    if rest < SHORTEST_SECONDS:
        return {}
    return {
        name: growth(values[round(len(values) * WARM_UP) :], rest, TOLERANCES[name])
        for name, values in samples.items()
    }


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def report(done: Soaked) -> dict[str, object]:
    """Print the figures; return them."""
    found = done.found
    say(f"{done.studies} studies, {found.acknowledged} instances in {done.seconds:.0f} s")
    say(f"\n{'seconds':34}{'p50':>9}{'p95':>9}{'p99':>9}{'max':>9}")
    for name, values in done.seconds_to.items():
        say(f"{name:34}" + "".join(f"{value:9.4f}" for value in values.values()))
    say(f"\n{'after the warm-up':34}{'median':>9}{'highest':>9}{'/minute':>9}{'grew':>9}{'may':>9}")
    for name, item in done.growths.items():
        figures = (item.median, item.highest, item.slope, item.grew, item.allowed)
        mark = "   <-- GROWS" if item.too_much else ""
        say(f"{name:34}" + "".join(f"{value:9.2f}" for value in figures) + mark)
    if not done.growths:
        say("too short to say whether anything grows")
    say("")
    for name, count in done.must_be_zero.items():
        say(f"{name:34}{count:9}{'   <-- must be 0' if count else ''}")
    holds = not any(done.must_be_zero.values()) and found.acknowledged > 0
    holds &= not any(item.too_much for item in done.growths.values())
    say("all holds" if holds else "SOMETHING DOES NOT HOLD")
    return {
        "studies": done.studies,
        "instances": found.acknowledged,
        "seconds": done.seconds,
        "latencies": done.seconds_to,
        "growth": {name: asdict(item) for name, item in done.growths.items()},
        **done.must_be_zero,
        "holds": holds,
    }


def main() -> int:
    """Run it; 0 if all holds, 1 if not."""
    parser = argparse.ArgumentParser(prog="soak", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="how long studies come up")
    parser.add_argument(
        "--compress", type=float, help="times the speed of the peak hour; default: all of it fits"
    )
    parser.add_argument("--scale", type=float, default=0.25, help="of rows and columns; 1: real")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    asked = parser.parse_args()
    configure_logging(level="error", style="json")
    work = Path(tempfile.mkdtemp(prefix="wetread-soak-"))
    figures = report(soak(asked, asked.seed, work))
    if asked.json:
        asked.json.write_text(json.dumps({**vars(asked), "json": "", **figures}, indent=1))
    if not figures["holds"]:
        say(f"the node's log is kept in {work / 'node'}")
        return 1
    shutil.rmtree(work)
    return 0


if __name__ == "__main__":
    sys.exit(main())
