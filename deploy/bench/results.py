"""What it costs to write a segmentation: ours beside highdicom alone, in one run.

`python deploy/bench/results.py [--segments 1,10,104] [--rounds 3] [--slices 300] [--json FILE]`

Each run is a process of its own that has written a small object before. It labels a volume of
512 x 512 pixels with as many ellipsoids as there are segments, and makes a Segmentation of them
without empty frames: BINARY, or LABELMAP in RLE Lossless. CPU is that of making and saving it to a
folder in memory, memory is what the process's peak rose by above the volume and all that was there
before. Ours is checked afterwards, as the node does before it sends: that is told apart. Ratios are
of the same round.
"""

from __future__ import annotations

import argparse
import gc
import json
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import process_time
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
from pydicom import dcmread
from pydicom.dataset import Dataset

CODE: Final = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CODE))

from highdicom import AlgorithmIdentificationSequence  # noqa: E402 - after the path
from highdicom.seg import Segmentation, SegmentDescription  # noqa: E402
from pydicom.sr.codedict import codes  # noqa: E402
from pydicom.uid import ExplicitVRLittleEndian, RLELossless, generate_uid  # noqa: E402

from engines.findings import Analysis, Segment  # noqa: E402
from engines.measuring import tally  # noqa: E402
from node.interfaces import ResultContext  # noqa: E402
from node.results.label_map import LabelMapWriter  # noqa: E402
from node.results.segmentation import SegmentationWriter  # noqa: E402
from tests.factories import make_ct_series  # noqa: E402
from tests.node.results.building import LUNG, STRUCTURE, context, frames_of, grid_of  # noqa: E402

OURS: Final = "ours"
HIGHDICOM: Final = "highdicom"
MIB: Final = 1 << 20
BINARY: Final = "BINARY"
LABELMAP: Final = "LABELMAP"
GOAL_SEGMENTS: Final = 104
GOALS: Final = {BINARY: (1.5, 400.0), LABELMAP: (1.0, 400.0)}
"""CPU in seconds and memory in MiB that the object of so many segments has to stay below."""

Labels: TypeAlias = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one object cost: CPU in seconds, memory and size in MiB."""

    cpu: float
    check: float
    memory: float
    frames: int
    size: float


def labelled(slices: int, segments: int) -> Labels:
    """Label a volume [slice, 512, 512] with ellipsoids; later ones lie over earlier ones."""
    random = np.random.default_rng(segments)
    labels = np.zeros((slices, 512, 512), np.uint8)
    for value in range(1, segments + 1):
        middle = random.uniform((0.1 * slices, 120, 100), (0.9 * slices, 390, 410))
        half = random.uniform((0.05 * slices, 12, 12), (0.2 * slices, 45, 45))
        low = np.maximum(0, middle - half).astype(int)
        high = np.minimum(labels.shape, middle + half + 1).astype(int)
        part = labels[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
        places = np.ogrid[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
        away = [((at - m) / h) ** 2 for at, m, h in zip(places, middle, half, strict=True)]
        part[sum(away) < 1] = value
    return labels


def outcome_of(headers: tuple[Dataset, ...], labels: Labels, segments: int) -> Analysis:
    """Make what an engine hands over: it has counted voxels by slice when it measured."""
    counted = tally(labels.astype(np.int16), labels)
    return Analysis(
        grid=grid_of(headers),
        sources=frames_of(headers),
        findings=tuple(
            Segment(
                key=f"segment-{value}", label=f"Segment {value}", category=STRUCTURE, type=LUNG,
                colour=(200, value, 50), labels=labels, value=value,
                counted=counted[value].by_slice,
            )
            for value in range(1, segments + 1)
        ),
        sought=(),
    )  # fmt: skip


def by_highdicom(made: ResultContext, kind: str, labels: Labels, segments: int) -> Segmentation:
    """Let the library make the object of the labels."""
    algorithm = AlgorithmIdentificationSequence(
        name="bench", version="1", family=codes.DCM.ArtificialIntelligence
    )
    return Segmentation(
        source_images=made.sources,
        pixel_array=labels,
        segmentation_type=kind,
        segment_descriptions=[
            SegmentDescription(
                segment_number=value,
                segment_label=f"Segment {value}",
                segmented_property_category=codes.SCT.AnatomicalStructure,
                segmented_property_type=codes.SCT.Lung,
                algorithm_type="AUTOMATIC",
                algorithm_identification=algorithm,
                tracking_id=f"segment {value}",
                tracking_uid=generate_uid(),
            )
            for value in range(1, segments + 1)
        ],
        series_instance_uid=generate_uid(),
        series_number=1,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="bench",
        manufacturer_model_name="bench",
        software_versions="1",
        device_serial_number="1",
        omit_empty_frames=True,
        transfer_syntax_uid=RLELossless if kind == LABELMAP else ExplicitVRLittleEndian,
    )


def run(writer: str, kind: str, folder: Path, slices: int, segments: int) -> Cost:
    """Write one object, after a small one that loads all that is needed."""
    series = make_ct_series(folder / "ct", slices=slices, rows=512, columns=512)
    headers = tuple(dcmread(path, stop_before_pixels=True) for path in series)
    _measured((writer, kind), headers[:2], labelled(2, 1), 1, folder)
    return _measured((writer, kind), headers, labelled(slices, segments), segments, folder)


def _measured(
    what: tuple[str, str], headers: tuple[Dataset, ...], labels: Labels, segments: int, folder: Path
) -> Cost:
    writer, kind = what
    made = context(headers, outcome_of(headers, labels, segments))
    file = folder / "seg.dcm"
    ours = LabelMapWriter() if kind == LABELMAP else SegmentationWriter()
    make: Callable[[], Dataset]
    if writer == OURS:
        make = lambda: ours.write(made)[0]  # noqa: E731
    else:
        make = lambda: by_highdicom(made, kind, labels, segments)  # noqa: E731
    gc.collect()
    _forget_peak()
    before, since = _resident_peak(), process_time()
    dataset = make()
    dataset.save_as(file, enforce_file_format=True)
    cpu, peak = process_time() - since, _resident_peak()
    frames = int(dataset.NumberOfFrames)
    del dataset
    check = 0.0
    if writer == OURS:
        since = process_time()
        ours.check(file, made)
        check = process_time() - since
    size = file.stat().st_size / MIB
    return Cost(cpu=cpu, check=check, memory=peak - before, frames=frames, size=size)


def _forget_peak() -> None:
    """Let the peak begin anew from what is resident (proc(5), clear_refs)."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _resident_peak() -> float:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(writer: str, kind: str, slices: int, segments: int) -> Cost:
    """Run one writer in a process of its own."""
    one = [writer, kind, "--segments", str(segments), "--slices", str(slices)]
    done = subprocess.run(  # noqa: S603 - this program
        [sys.executable, __file__, "--one", *one], stdout=subprocess.PIPE, check=True
    )
    return Cost(**json.loads(done.stdout))


def _told(name: str, costs: Sequence[Cost]) -> str:
    cpu, check, memory = (
        statistics.median(getattr(cost, field) for cost in costs)
        for field in ("cpu", "check", "memory")
    )
    checked = f"{check:8.2f}" if name == OURS else f"{'':8}"
    return f"  {name:10}{cpu:8.2f}{checked}{memory:8.0f}{costs[0].frames:8}{costs[0].size:8.1f}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--segments", default="1,10,104")
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    counts = [int(count) for count in options.segments.split(",")]
    if options.one:
        with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
            cost = run(*options.one, Path(folder), options.slices, counts[0])
        print(json.dumps(asdict(cost)))
        return
    print(f"{options.slices} slices of 512 x 512, medians of {options.rounds} rounds")
    print(f"  {'':10}{'CPU s':>8}{'check s':>8}{'MiB':>8}{'frames':>8}{'size MiB':>9}")
    found = []
    for kind in (BINARY, LABELMAP):
        for count in counts:
            costs = compared(kind, count, options.slices, options.rounds)
            each = {writer: [asdict(cost) for cost in runs] for writer, runs in costs.items()}
            found.append({"kind": kind, "segments": count, **each})
    if options.json:
        options.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


def compared(kind: str, segments: int, slices: int, rounds: int) -> dict[str, list[Cost]]:
    """Measure both writers in turn, and print."""
    costs: dict[str, list[Cost]] = {OURS: [], HIGHDICOM: []}
    for number in range(rounds):
        for writer in (OURS, HIGHDICOM) if number % 2 else (HIGHDICOM, OURS):
            costs[writer].append(measure(writer, kind, slices, segments))
    pairs = zip(costs[OURS], costs[HIGHDICOM], strict=True)
    ratio = statistics.median(ours.cpu / theirs.cpu for ours, theirs in pairs)
    print(f"{kind}, {segments} segments: CPU ours / highdicom {ratio:.2f}")
    for writer, each in costs.items():
        print(_told(writer, each))
    if segments == GOAL_SEGMENTS:
        cpu = statistics.median(cost.cpu for cost in costs[OURS])
        memory = statistics.median(cost.memory for cost in costs[OURS])
        most_cpu, most_memory = GOALS[kind]
        met = "met" if cpu < most_cpu and memory < most_memory else "missed"
        print(f"  goal < {most_cpu:g} s of CPU and < {most_memory:g} MiB: {met}")
    return costs


if __name__ == "__main__":
    main()
