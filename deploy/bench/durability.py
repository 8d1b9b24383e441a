"""What it costs to have an instance on the disk before it is acknowledged, by how it is kept.

`python deploy/bench/durability.py --root /a/folder/on/the/disk` writes the same bytes in each way,
alternating, with 1 and 4 writers, and prints instances a second and their ratio to one file each.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeAlias

Way: TypeAlias = Callable[[Path, bytes, int], None]
WRITERS: Final = (1, 4)


def file_each(folder: Path, content: bytes, count: int) -> None:
    """Write one file for each instance, synced; its name in the folder is synced too."""
    for number in range(count):
        descriptor = os.open(folder / f"{number}.part", os.O_WRONLY | os.O_CREAT)
        os.write(descriptor, content)
        os.fdatasync(descriptor)
        os.close(descriptor)
        (folder / f"{number}.part").rename(folder / f"{number}.dcm")
        sync_folder(folder)


def appended(folder: Path, content: bytes, count: int) -> None:
    """Append to one file, synced after each instance."""
    _into(os.open(folder / "pack", os.O_WRONLY | os.O_CREAT), content, count)


def reserved(folder: Path, content: bytes, count: int) -> None:
    """Append to one file whose space was reserved in advance (posix_fallocate)."""
    descriptor = os.open(folder / "pack", os.O_WRONLY | os.O_CREAT)
    os.posix_fallocate(descriptor, 0, len(content) * count)
    _into(descriptor, content, count)


def written_in_advance(folder: Path, content: bytes, count: int) -> None:
    """Write into one file that holds zeros already (prepared before the clock starts)."""
    _into(os.open(folder / "pack", os.O_WRONLY), content, count)


WAYS: Final[dict[str, Way]] = {
    "a file each": file_each,
    "appended to a pack": appended,
    "pack, space reserved": reserved,
    "pack, written in advance": written_in_advance,
}


def _into(descriptor: int, content: bytes, count: int) -> None:
    for _ in range(count):
        os.write(descriptor, content)
        os.fdatasync(descriptor)
    os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Sync the names in a folder."""
    descriptor = os.open(folder, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def measure(way: Way, root: Path, content: bytes, count: int, writers: int) -> float:
    """Return instances a second of some writers at once."""
    folders = [Path(tempfile.mkdtemp(dir=root)) for _ in range(writers)]
    if way is written_in_advance:
        for folder in folders:
            (folder / "pack").write_bytes(bytes(len(content) * count))
        os.sync()
    threads = [threading.Thread(target=way, args=(item, content, count)) for item in folders]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - began
    for folder in folders:
        shutil.rmtree(folder)
    return count * writers / seconds


def main() -> None:
    """Run the comparison and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, required=True, help="folder on the disk to measure")
    parser.add_argument("--count", type=int, default=60, help="instances of each writer")
    parser.add_argument("--size", type=int, default=530_000, help="bytes of an instance")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    content = os.urandom(options.size)
    rates: dict[tuple[str, int], list[float]] = {}
    for _ in range(options.repetitions):
        for name, way in WAYS.items():
            for writers in WRITERS:
                rate = measure(way, options.root, content, options.count, writers)
                rates.setdefault((name, writers), []).append(rate)
    print(f"{'':28}{'writers':>8}{'instances/s':>13}{'ratio':>8}")
    for (name, writers), found in rates.items():
        base = rates["a file each", writers]
        ratio = statistics.median(a / b for a, b in zip(found, base, strict=True))
        print(f"{name:28}{writers:>8}{statistics.median(found):>13.0f}{ratio:>8.1f}")
    if options.json:
        rows = [{"way": n, "writers": w, "rates": r} for (n, w), r in rates.items()]
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
