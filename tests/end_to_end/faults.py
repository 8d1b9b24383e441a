"""Kills a node again and again under load, and breaks its disk and its database meanwhile.

    python -m tests.end_to_end.faults --kills 200 --seconds 1800 --database sqlite

Senders write down what was acknowledged. At the end every acknowledged instance must be there byte
for byte, no half one visible, and every acknowledgement accounted for; otherwise the status is 1.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from node.log import configure_logging
from node.pacs import StandInPacs
from node.settings import load_settings
from node.stores import move_schema
from tests.end_to_end.audit import Audit, audit
from tests.end_to_end.campaign import EPISODES, Campaign, Suffered
from tests.end_to_end.databases import DATABASES
from tests.end_to_end.load import Ledger, RestlessSender
from tests.end_to_end.made_images import CT, DX, MR, Kind, Prototype
from tests.end_to_end.small_disk import NoSmallDiskError, SmallDisk, enter_own_mounts
from tests.end_to_end.watched import TO_BE_READ, WatchedNode

MIX: Final = (
    (4, Kind(modality="CT", sop_class_uid=CT, rows=64, columns=64)),
    (4, Kind(modality="MR", sop_class_uid=MR, rows=48, columns=48)),
    (3, Kind(modality="DX", sop_class_uid=DX, rows=400, columns=400)),
    (1, Kind(modality="CT", sop_class_uid=CT, rows=64, columns=64, description=TO_BE_READ)),
)
"""Parts of the studies, and what they are; much smaller than real ones, so that many come."""
STORAGE: Final = """
[storage]
reserve_mib = 1
resume_mib = 3
urgent_mib = 0
pack_mib = 8
spare_packs = 3
"""
SHOWN: Final = 5  # UIDs, of a long list


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="faults", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--kills", type=int, default=200, help="kill -9 of the node, at least")
    parser.add_argument("--seconds", type=float, default=1800, help="most time for all faults")
    parser.add_argument("--senders", type=int, default=8)
    parser.add_argument("--database", choices=sorted(DATABASES), default="sqlite")
    parser.add_argument(
        "--only", nargs="+", choices=EPISODES, default=EPISODES, help="beside kills"
    )
    parser.add_argument("--processes", type=int, default=1, help="that listen; postgresql only")
    parser.add_argument("--durability", choices=("sync", "behind"), default="sync")
    parser.add_argument("--disk-mib", type=int, default=4096, help="size of the disk, sparse")
    parser.add_argument("--seed", type=int, default=None, help="printed, when it is not given")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    asked = parser.parse_args()
    if asked.processes > 1 and asked.database == "sqlite":
        parser.error("--processes needs --database postgresql")
    return asked


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def play(asked: argparse.Namespace, seed: int, work: Path) -> tuple[Suffered, Audit, Ledger, int]:
    """Run the campaign in a folder; return what was done, found, told, and left out."""
    ledger, folder = Ledger(), work / "node"
    chance = random.Random(seed)  # noqa: S311 - it chooses what goes wrong
    prototypes = [item for parts, kind in MIX for item in [Prototype(kind)] * parts]
    pacs = StandInPacs(work / "pacs", ae_title="PACS", host="127.0.0.1", port=0)
    with contextlib.ExitStack() as stack:
        pacs.start()
        stack.callback(pacs.stop)
        disk = stack.enter_context(SmallDisk(folder / "data", work / "disk", asked.disk_mib))
        extra, disturb = stack.enter_context(DATABASES[asked.database](folder))
        node = WatchedNode(
            folder=folder,
            pacs_port=pacs.port,
            quiet_seconds=1.0,
            max_attempts=1000,
            listener=f"processes = {asked.processes}\n",
            extra=f'{extra}{STORAGE}durability = "{asked.durability}"',
        )
        node.write()
        move_schema(load_settings(node.config), "head", down=False)
        power_cuts = asked.durability == "sync"  # the other one loses by design
        campaign = Campaign(node, disk, disturb, ledger, chance, power_cuts=power_cuts)
        without = f", without {' and '.join(campaign.cannot)}" if campaign.cannot else ""
        say(f"disk: {disk.name}{without}; database: {asked.database}; seed: {seed}")
        senders = [
            RestlessSender(index, node.port, ledger, prototypes, seed)
            for index in range(asked.senders)
        ]
        stack.callback(node.kill)
        left_out = _under_load(campaign, senders, asked)
        campaign.finish()
        stores = node.stores()
        stack.callback(stores.database.close)
        campaign.suffered.studies = stores.studies.counts()
        campaign.suffered.jobs = stores.jobs.counts()
        return campaign.suffered, audit(stores, ledger), ledger, left_out


def _under_load(
    campaign: Campaign, senders: Sequence[RestlessSender], asked: argparse.Namespace
) -> int:
    """Run what was planned while everybody sends; return how much there was no time for."""
    for sender in senders:
        sender.start()
    plan = campaign.plan(asked.kills, asked.only)
    left_out = campaign.run(plan, time.monotonic() + asked.seconds, say)
    for sender in senders:
        sender.stop()
    for sender in senders:
        sender.join(90)
    return left_out


def report(suffered: Suffered, found: Audit, ledger: Ledger, left_out: int) -> dict[str, object]:
    """Print the figures; return them."""
    figures: dict[str, object] = {
        "kills": suffered.kills,
        "faults": dict(suffered.episodes),
        "attempts": ledger.attempts.total(),
        "acknowledged": found.acknowledged,
        "refused, by status": {f"{key:#06x}": count for key, count in ledger.refused.items()},
        "associations rejected": {str(key): count for key, count in ledger.rejected.items()},
        "connections broken": ledger.broken,
        "instances in the index": found.instances,
        "kept, and the answer was lost": found.durable_unanswered,
        "studies, by state": {str(key): count for key, count in suffered.studies.items()},
        "jobs, by state": {str(key): count for key, count in suffered.jobs.items()},
        "errors logged": dict(suffered.errors),
        "not recovered": suffered.not_recovered,
        "lost": found.lost[:SHOWN],
        "changed or half": (found.changed + found.half)[:SHOWN],
        "missed at a start": dict(suffered.bad_events),
    }
    must_be_zero = {"faults there was no time for": left_out}
    must_be_zero |= found.complaints() | suffered.complaints()
    for name, value in {**figures, **must_be_zero}.items():
        say(f"{name:38}{value!s:>8}{'   <-- must be 0' if must_be_zero.get(name) else ''}")
    holds = not any(must_be_zero.values()) and found.acknowledged > 0
    say("all holds" if holds else "SOMETHING DOES NOT HOLD")
    return {**figures, **must_be_zero, "holds": holds}


def main() -> int:
    """Run a campaign; 0 if all holds, 1 if not, 2 if faults of a disk cannot be made here."""
    asked = options()
    enter_own_mounts()
    configure_logging(level="error", style="json")
    seed = random.randrange(10**6) if asked.seed is None else asked.seed  # noqa: S311
    work = Path(tempfile.mkdtemp(prefix="wetread-faults-"))
    try:
        figures = report(*play(asked, seed, work))
    except NoSmallDiskError as error:
        say(f"cannot be run here: {error}")
        return 2
    if asked.json:
        asked.json.write_text(json.dumps({"seed": seed, **figures}, indent=1))
    if not figures["holds"]:
        say(f"the node's log is kept in {work / 'node'}; --seed {seed}")
        return 1
    shutil.rmtree(work)
    return 0


if __name__ == "__main__":
    sys.exit(main())
