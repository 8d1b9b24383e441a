"""Where the CPU of taking an instance in goes: each part alone, in one process, by kind of image.

`python deploy/bench/parts.py` prints milliseconds of CPU an image: the digest, the walk over the
header, the write into a pack, the rows of the index, and the intake as the node does it. What the
socket costs is in `floor.py`, what remains is the protocol and pynetdicom's threads.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from objects import TRANSFER_SYNTAX, Template, instance_uid, make_template, new_token, put

CODE: Final = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CODE))

from node.clock import system_clock  # noqa: E402 - after the path
from node.headers import HeaderReader  # noqa: E402
from node.ingest import IngestLimits, OwnDevice, StudyIngest  # noqa: E402
from node.interfaces import Source  # noqa: E402
from node.quotas import Quotas, Watermarks  # noqa: E402
from storage.database import Database, migrate  # noqa: E402
from storage.digests import InstanceDigest  # noqa: E402
from storage.expectations import ExpectationStore  # noqa: E402
from storage.indexing import Indexer  # noqa: E402
from storage.pack_format import FIRST  # noqa: E402
from storage.packs import PackStore  # noqa: E402

PDU: Final = 131_066
"""Bytes of a data set in one P-DATA-TF PDU, as senders cut it for our maximum length."""
KINDS: Final = ("ct", "mr", "dx")


class Parts:
    """The parts of the ingest over stores in a folder."""

    def __init__(self, folder: Path, template: Template) -> None:
        url = f"sqlite:///{folder}/index.db"
        migrate(url)
        self.database = Database(url)
        self.packs = PackStore(folder / "packs", durable=False, pack_bytes=1 << 40)
        self.indexer = Indexer(self.database, system_clock)
        quotas = Quotas(
            Watermarks(reserve_bytes=1, resume_bytes=1, urgent_bytes=1),
            free_bytes=self.packs.free_bytes,
        )
        self.ingest = StudyIngest(
            packs=self.packs,
            indexer=self.indexer,
            expectations=ExpectationStore(self.database, system_clock),
            quiet_time=lambda _modality, _ae: 600.0,
            limits=IngestLimits(max_object_bytes=1 << 40),
            quotas=quotas,
            own_device=OwnDevice(manufacturer="wetread", model="wetread"),
            clock=system_clock,
        )
        self.template = template
        self._content = bytearray(template.path.read_bytes())

    def images(self, count: int) -> Iterator[tuple[str, list[memoryview]]]:
        """Yield UID and data set, in pieces as they come, of so many images."""
        token = new_token()
        view = memoryview(self._content)[self.template.data_set :]
        pieces = [view[at : at + PDU] for at in range(0, len(view), PDU)]
        for number in range(count):
            uid = instance_uid(token, 0, number)
            put(self._content, self.template.instance, uid)
            yield uid, pieces

    def digest(self, count: int) -> None:
        """Work out digests alone."""
        for _, pieces in self.images(count):
            digest = InstanceDigest()
            for piece in pieces:
                digest.update(piece)
            digest.digest()

    def header(self, count: int) -> None:
        """Read headers alone."""
        reader = HeaderReader()
        for _, pieces in self.images(count):
            head = bytes(pieces[0][: 16 << 10])
            reader.read(head, self.template.size, lambda *_: b"", TRANSFER_SYNTAX)

    def write(self, count: int) -> None:
        """Write records alone, into a pack whose pages are there already."""
        pack = self.packs.borrow()
        pack.end = FIRST
        for _, pieces in self.images(count):
            pack.begin(bytes(400))
            pack.finish(bytes(32), bytes(1200), pieces)
        self.packs.give_back(pack)

    def whole(self, count: int) -> None:
        """Take images in as an association does; the rows wait."""
        intake = self.ingest.open(Source(listener="bench", calling_ae="BENCH"))
        for uid, pieces in self.images(count):
            intake.begin(self.template.sop_class_uid, uid, TRANSFER_SYNTAX)
            intake.finish(pieces)
        intake.close(aborted=False)
        for pack in self.packs._idle:
            pack.end = FIRST

    def rows(self, count: int) -> None:
        """Write the rows of what `whole` took in."""
        items, self.indexer._items = list(self.indexer._items), type(self.indexer._items)()
        for start in range(0, len(items), 500):
            self.indexer._write(items[start : start + 500])
        if len(items) < count:
            raise SystemExit("there are no rows to write")


def cpu_ms(work: Callable[[int], None], count: int, repetitions: int) -> float:
    """Return the least CPU of some repetitions, in ms an image."""
    found = []
    for _ in range(repetitions):
        began = time.process_time()
        work(count)
        found.append(1e3 * (time.process_time() - began) / count)
    return min(found)


def measure(kind: str, count: int, repetitions: int, root: Path) -> dict[str, float]:
    """Return ms of CPU an image by part."""
    with tempfile.TemporaryDirectory(dir=root) as folder:
        parts = Parts(Path(folder), make_template(kind, Path(folder)))
        parts.write(count)  # touches the pages
        found = {
            "digest": cpu_ms(parts.digest, count, repetitions),
            "header": cpu_ms(parts.header, count, repetitions),
            "write": cpu_ms(parts.write, count, repetitions),
            "whole intake": cpu_ms(parts.whole, count, repetitions),
        }
        parts.rows(0)  # of the runs before
        parts.whole(count)
        found["rows"] = cpu_ms(parts.rows, count, 1)
        parts.database.close()
        return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--root", type=Path, default=Path("/dev/shm"))  # noqa: S108 - as told
    options = parser.parse_args()
    table = {
        kind: measure(
            kind, options.count if kind != "dx" else 10, options.repetitions, options.root
        )
        for kind in KINDS
    }
    print(f"{'CPU ms an image':18}" + "".join(f"{kind:>9}" for kind in KINDS))
    for part in table["ct"]:
        print(f"{part:18}" + "".join(f"{table[kind][part]:9.3f}" for kind in KINDS))


if __name__ == "__main__":
    main()
