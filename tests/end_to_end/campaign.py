"""A node under load that is killed again and again, and whose disk and database break meanwhile."""

from __future__ import annotations

import contextlib
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from storage.errors import StorageError
from storage.states import JobState, StudyState
from tests.end_to_end.databases import Disturb
from tests.end_to_end.load import Ledger
from tests.end_to_end.process_tree import Descendants, all_stopped, go_on, stop
from tests.end_to_end.processes import wait_until
from tests.end_to_end.small_disk import SmallDisk
from tests.end_to_end.watched import WatchedNode, unfinished

NEED_POWER_SWITCH: Final = ("power cut", "failing disk")
EPISODES: Final = ("full disk", "read-only disk", "database away", *NEED_POWER_SWITCH)
RECOVERY_SECONDS: Final = 60.0
SETTLING_SECONDS: Final = 300.0
KILLS_PER_EPISODE: Final = 20  # of each kind
BAD_EVENTS: Final = {"pack.missing", "object.missing", "record.unread", "index.refused"}


@dataclass(slots=True, kw_only=True)
class Suffered:
    """What was done to the node, and what it did that it must not do."""

    kills: int = 0
    episodes: Counter[str] = field(default_factory=Counter)
    ended_by_itself: int = 0
    not_recovered: list[str] = field(default_factory=list)
    unsettled: int = 0
    left_processes: int = 0
    bad_events: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)  # told in the log, for information
    studies: Mapping[StudyState, int] = field(default_factory=dict)  # at the end
    jobs: Mapping[JobState, int] = field(default_factory=dict)
    tracebacks: int = 0

    def complaints(self) -> dict[str, int]:
        """Return the figures that must be zero."""
        return {
            "ends of the node by itself": self.ended_by_itself,
            "faults it did not recover from": len(self.not_recovered),
            "studies, jobs, deliveries unsettled": self.unsettled,
            "studies failed for good": self.studies.get(StudyState.FAILED, 0),
            "jobs failed for good": self.jobs.get(JobState.FAILED, 0),
            "processes left behind": self.left_processes,
            "records or packs missed at a start": self.bad_events.total(),
            "tracebacks in the log": self.tracebacks,
        }


class Campaign:
    """One node under load, and one fault after the other."""

    def __init__(
        self,
        node: WatchedNode,
        disk: SmallDisk,
        disturb_database: Disturb,
        ledger: Ledger,
        chance: random.Random,
        *,
        power_cuts: bool,
    ) -> None:
        """Have a node to break; without `power_cuts` its disk keeps what was not synced."""
        self.node = node
        self.suffered = Suffered()
        self._disk = disk
        self._disturb_database = disturb_database
        self._ledger = ledger
        self._chance = chance
        self._descendants = Descendants()
        self._faults: dict[str, Callable[[], None]] = {
            "kill": self._kill_running,
            "kill while starting": self._kill_starting,
            "full disk": self._full_disk,
            "read-only disk": self._read_only_disk,
            "database away": self._database_away,
            "power cut": self._power_cut,
            "failing disk": self._failing_disk,
        }
        self.cannot = () if disk.has_power_switch and power_cuts else NEED_POWER_SWITCH

    def plan(self, kills: int, only: Sequence[str] = ()) -> list[str]:
        """Return the faults to come, in random order: so many kills, and episodes among them."""
        starting = kills // 5
        plan = ["kill"] * (kills - starting) + ["kill while starting"] * starting
        for episode in only or EPISODES:
            if episode not in self.cannot:
                plan += [episode] * max(1, kills // KILLS_PER_EPISODE)
        self._chance.shuffle(plan)
        return plan

    def run(self, plan: Sequence[str], until: float, tell: Callable[[str], None]) -> int:
        """Let the faults come until the time is over; return how many there was no time for."""
        self._start()
        for number, fault in enumerate(plan):
            if time.monotonic() > until:
                return len(plan) - number
            tell(f"{number + 1}/{len(plan)} {fault}: {self._ledger.answers} acknowledged")
            self._faults[fault]()
            self.suffered.episodes[fault] += 1
        return 0

    def finish(self) -> None:
        """Kill once more, start cleanly, let the work come to its end, and stop in good order."""
        self._kill()
        self._start()
        try:
            wait_until(lambda: self._unfinished() == 0, "all is settled", SETTLING_SECONDS)
        except AssertionError:
            self.suffered.unsettled = self._unfinished()
        self._descendants.look(self.node.process)
        if self.node.stop() != 0:
            self.suffered.ended_by_itself += 1
        self.suffered.left_processes = self._descendants.left(15.0)
        self._read_log()

    # ------------------------------------------------------------ faults

    def _kill_running(self) -> None:
        time.sleep(min(self._chance.expovariate(0.8), 6.0))
        self._kill()
        self._start()

    def _kill_starting(self) -> None:
        self._kill()
        timer = threading.Timer(self._chance.uniform(0.1, 2.0), self.node.kill)
        timer.start()
        with contextlib.suppress(AssertionError):  # it ended: that was the intention
            self.node.start()
        timer.join()
        self.node.kill()
        self.suffered.kills += 1
        self._start()

    def _full_disk(self) -> None:
        self._disk.fill(leave=self._chance.choice((0, self._chance.randrange(1 << 20, 6 << 20))))
        try:
            self._bear()
        finally:
            self._disk.empty()
        self._recover("full disk")

    def _read_only_disk(self) -> None:
        self._disk.make_read_only()
        try:
            self._bear()
        finally:
            self._disk.make_writable()
        self._recover("read-only disk")

    def _database_away(self) -> None:
        self._disturb_database(self._chance.uniform(0.5, 4.0))
        self._recover("database away")

    def _power_cut(self) -> None:
        """End everything at one moment, also in the middle of a sync."""
        time.sleep(self._chance.uniform(0.1, 1.5))
        if self._found_dead():
            return
        stop(self.node.process)
        self._lose_disk()

    def _failing_disk(self) -> None:
        """Let everything that touches the disk fail for a while, as a dying one does.

        No sync may be under way when that begins: the kernel can then call it done (EXT4 shuts down
        behind a sync's own look at the journal), and no node could know better.
        """
        time.sleep(self._chance.uniform(0.1, 1.5))
        if self._found_dead():
            return
        stop(self.node.process)
        wait_until(lambda: all_stopped(self.node.process), "the node stops")
        self._disk.fail()
        go_on(self.node.process)
        time.sleep(self._chance.uniform(0.1, 1.5))
        self._lose_disk()

    def _lose_disk(self) -> None:
        self._disk.fail()
        self._kill()
        self._descendants.left(15.0)
        self._disk.restore()
        self._start()

    def _bear(self) -> None:
        """Let a fault last; now and then the node is killed and started while it lasts."""
        time.sleep(self._chance.uniform(0.5, 2.0))
        if self._chance.random() < 0.4:
            self._kill()
            with contextlib.suppress(AssertionError):  # it may refuse to start on such a disk
                self.node.start()
            time.sleep(self._chance.uniform(0.2, 1.5))
            if self.node.died():
                self._start_when_well = True

    # ------------------------------------------------------------ the node

    _start_when_well = False

    def _recover(self, fault: str) -> None:
        """Once the fault is over the node must take images again, and write their rows."""
        if self._start_when_well:
            self._start_when_well = False
            self._start()
        elif self._found_dead():
            return
        try:
            before = self._ledger.answers
            wait_until(lambda: self._ledger.answers > before, "an answer", RECOVERY_SECONDS)
            answered = self._ledger.answers
            wait_until(lambda: self._rows() >= answered, "rows", RECOVERY_SECONDS)
            wait_until(self.node.ready, "ready", RECOVERY_SECONDS)
        except AssertionError as error:
            self.suffered.not_recovered.append(f"{fault}: {error}")
            self._kill()
            self._start()

    def _rows(self) -> int:
        stores = self.node.stores()
        try:
            return stores.studies.conservation().received
        except StorageError:
            return 0
        finally:
            stores.database.close()

    def _found_dead(self) -> bool:
        if not self.node.died():
            return False
        self.suffered.ended_by_itself += 1
        self._start()
        return True

    def _kill(self) -> None:
        if self._found_dead():
            return
        self._descendants.look(self.node.process)
        self.node.kill()
        self.suffered.kills += 1

    def _start(self) -> None:
        """Start the node; nothing is wrong with its machine now, so it must."""
        try:
            self.node.start()
        except AssertionError:
            self.suffered.ended_by_itself += 1
            self.node.start()

    def _unfinished(self) -> int:
        stores = self.node.stores()
        try:
            return unfinished(stores)
        except StorageError:
            return -1
        finally:
            stores.database.close()

    def _read_log(self) -> None:
        for line in self.node.log().splitlines():
            self.suffered.tracebacks += line.startswith("Traceback")
            with contextlib.suppress(ValueError):
                entry = json.loads(line)
                if entry["event"] in BAD_EVENTS:
                    self.suffered.bad_events[entry["event"]] += 1
                elif entry["level"] in {"error", "critical"}:
                    self.suffered.errors[entry["event"]] += 1
