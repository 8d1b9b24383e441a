"""What a window and a study cost on each runtime that is here, side by side in one run.

`python deploy/bench/engines.py [--models FOLDER] [--nets lungs,radiograph,brain] [--rounds 7]`
imports published nets as engine packages and runs them on ONNX Runtime, OpenVINO, TensorRT (with a
device), and as PyTorch runs the same graph: eager, compiled, on a device also as CUDA graph. Every
way has a process of its own that stays; in each round all are asked in turn, in an order that
turns, first for one run of the net, then for a whole study without reading and encoding. Ratios are
to PyTorch eager of the same round, or to ONNX Runtime where PyTorch is not installed
(`pip install torch==2.13.0`).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np

CODE: Final = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CODE))

from measuring import Spread, spread  # noqa: E402 - after the path

from engines.base import (  # noqa: E402
    Array,
    Arrays,
    Runtime,
    Session,
    discover,
    find_task,
    open_engine,
    rung_availability,
)
from engines.importing import import_model  # noqa: E402
from engines.manifest import EnginePackage, read_rung  # noqa: E402
from engines.package import load_package  # noqa: E402
from engines.probe import probe  # noqa: E402

if TYPE_CHECKING:
    import torch

Costs: TypeAlias = dict[str, float]
EAGER: Final = "torch eager"
REFERENCE: Final = "onnxruntime cpu float32"
ON_THE_CPU: Final = (EAGER, "torch compile")
ON_THE_DEVICE: Final = ("torch cuda eager", "torch cuda compile", "torch cuda graph")


@dataclass(frozen=True, slots=True, kw_only=True)
class Net:
    """A published net: model, answers, the shape of a window, how often a study is repeated."""

    model: str
    answers: str
    window: tuple[int, ...]
    times: tuple[int, int, int]


NETS: Final[Mapping[str, Net]] = {
    "lungs": Net(
        model="lung_unet_ct/lung_unet.onnx",
        answers="lung_unet_ct",
        window=(4, 1, 256, 256),
        times=(1, 4, 4),
    ),
    "radiograph": Net(
        model="cxr_nih_mobilenetv3/cxr_mobilenetv3_fp32.onnx",
        answers="cxr_nih_mobilenetv3",
        window=(1, 1, 224, 224),
        times=(1, 4, 4),
    ),
    "brain": Net(
        model="brain_meshnet_gwm/gwm_light_5ch.onnx",
        answers="brain_meshnet_gwm_light",
        window=(1, 1, 64, 96, 96),
        times=(1, 1, 1),
    ),
}


# ------------------------------------------------------------------ one way, in its own process


class TorchSession(Session):
    """A net in PyTorch as a session."""

    def __init__(self, model: bytes, way: str, name: str, output: str) -> None:
        import torch
        from torch_nets import TorchNet

        self._name, self._output = name, output
        self._device = "cuda" if "cuda" in way else "cpu"
        net = TorchNet(model).eval().to(self._device)
        self._run: Callable[[Any], Any] = torch.compile(net) if "compile" in way else net
        self._graphs: dict[tuple[int, ...], tuple[Any, Any, Any]] = {}
        self._captures = way.endswith("graph")

    def run(self, inputs: Arrays) -> Arrays:
        """Run the net; arrays go to the device and come back."""
        import torch

        with torch.inference_mode():
            value = torch.from_numpy(inputs[self._name]).to(self._device)
            found = self._replayed(value) if self._captures else self._run(value)
            return {self._output: found.cpu().numpy()}

    def _replayed(self, value: torch.Tensor) -> torch.Tensor:
        import torch

        key = tuple(value.shape)
        if key not in self._graphs:
            kept = value.clone()
            self._run(kept)
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                found = self._run(kept)
            self._graphs[key] = (graph, kept, found)
        graph, kept, found = self._graphs[key]
        kept.copy_(value)
        graph.replay()
        return found

    def close(self) -> None:
        """Nothing is held but memory."""


class Timed(Session):
    """Counts runs of the net, and the seconds in them."""

    def __init__(self, session: Session) -> None:
        self._session, self.seconds, self.runs = session, 0.0, 0

    def run(self, inputs: Arrays) -> Arrays:
        """Run and count."""
        since = time.perf_counter()
        found = self._session.run(inputs)
        self.seconds += time.perf_counter() - since
        self.runs += 1
        return found

    def close(self) -> None:
        """Close what is within."""
        self._session.close()


def serve(way: str, net: Net, folder: Path, threads: int) -> None:
    """Load the net, say so, then answer each line: `window` or `study`."""
    package = load_package(folder)
    session = opened(way, package, threads, folder.parent / "plans")
    name, output = names_of(package)
    window = {name: np.random.default_rng(1).random(net.window, np.float32)}
    study = study_of(package, net)
    found = session.run(window)[output]
    find_task(package.task).compute(package, session, study)
    np.save(folder.parent / f"{way}.npy", found)
    print("ready", flush=True)
    for line in sys.stdin:
        timed = Timed(session)
        wall, cpu = time.perf_counter(), time.process_time()
        if line.strip() == "window":
            timed.run(window)
        else:
            find_task(package.task).compute(package, timed, study)
        costs = {
            "wall_ms": (time.perf_counter() - wall) * 1e3,
            "cpu_ms": (time.process_time() - cpu) * 1e3,
            "inside_ms": timed.seconds * 1e3,
            "runs": float(timed.runs),
        }
        print(json.dumps(costs), flush=True)


def opened(way: str, package: EnginePackage, threads: int, plans: Path) -> Session:
    """Open a session of one way."""
    if way not in (*ON_THE_CPU, *ON_THE_DEVICE):
        rung = read_rung(way)
        return open_engine(package, threads=threads, rung=rung, plans=plans).session
    import torch

    torch.set_num_threads(threads)
    return TorchSession(package.read_file(package.manifest.model.file), way, *names_of(package))


def names_of(package: EnginePackage) -> tuple[str, str]:
    """Return the input and the output of a package's net, wherever its task keeps them."""
    table = package.settings.model_dump()
    inference = (table.get("recipe") or table)["inference"]
    return inference["input"], inference["output"]


def study_of(package: EnginePackage, net: Net) -> dict[str, Array]:
    """Return what golden cases of imports are made of, its pixels repeated."""
    arrays = dict(find_task(package.task).golden_inputs())
    for axis, times in enumerate(net.times):
        arrays["voxels"] = np.repeat(arrays["voxels"], times, axis)
    arrays["spacing"] = arrays["spacing"] / np.array(net.times)
    return arrays


# ------------------------------------------------------------------ all ways, side by side


class Way:
    """A process that runs a net in one way."""

    def __init__(self, name: str, net: str, folder: Path, threads: int) -> None:
        """Start it; threads that wait must not spin, or they would slow the other ways down."""
        self.name = name
        self.costs: dict[str, list[Costs]] = {"window": [], "study": []}
        command = [sys.executable, __file__, "--way", name, "--net", net, "--folder", str(folder),
                   "--threads", str(threads)]  # fmt: skip
        environment = os.environ | {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": str(threads)}
        self._process = subprocess.Popen(  # noqa: S603 - ourselves
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        since = time.perf_counter()
        self._line()
        self.start_seconds = time.perf_counter() - since

    def ask(self, what: str) -> None:
        """Run once and keep what it cost."""
        if self._process.stdin is None:
            raise RuntimeError(self.name)
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()
        self.costs[what].append(json.loads(self._line()))

    def close(self) -> None:
        """End the process."""
        self._process.communicate()

    def _line(self) -> str:
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            raise SystemExit(f"{self.name} ended with status {self._process.wait()}")
        return line


def rungs() -> list[str]:
    """Return every way that a runtime can run a model in, those on the CPU first."""
    found = [
        f"{name} {device} {precision}"
        for name, runtime in discover("runtimes", Runtime).items()
        for device in runtime.devices
        for precision in runtime.precisions
    ]
    return sorted(found, key=lambda rung: " cpu " not in rung)


def ways_here() -> tuple[list[str], dict[str, str]]:
    """Return the ways that can be measured here, and why others cannot."""
    found, missing = [], {}
    if importlib.util.find_spec("torch") is None:
        missing["torch"] = "the package torch is not installed"
    else:
        import torch

        found += [*ON_THE_CPU, *(ON_THE_DEVICE if torch.cuda.is_available() else ())]
    for rung in rungs():
        availability = rung_availability(read_rung(rung))
        if availability.available:
            found.append(rung)
        else:
            missing[rung] = availability.reason
    return found, missing


def compare(name: str, options: argparse.Namespace, ways: list[str], folder: Path) -> list[Way]:
    """Measure one net in every way."""
    net = NETS[name]
    answers = CODE / "config" / "engines" / net.answers / "engine.toml"
    folder.mkdir()
    import_model(options.models / net.model, answers, folder / "package")
    started = [Way(way, name, folder / "package", options.threads) for way in ways]
    for number in range(options.rounds):
        turn = number % len(started)
        for what in ("window", "study"):
            for way in started[turn:] + started[:turn]:
                way.ask(what)
    for way in started:
        way.close()
    return started


def line_of(way: Way, base: Way, folder: Path) -> dict[str, Any]:
    """Return what is told of a way: medians, ratios of the same round, and its largest error."""
    window, study = way.costs["window"], way.costs["study"]
    expected, found = (np.load(folder / f"{n}.npy") for n in (REFERENCE, way.name))
    outside = [1 - cost["inside_ms"] / cost["wall_ms"] for cost in study]
    return {
        "way": way.name,
        "window_ms": statistics.median(cost["wall_ms"] for cost in window),
        "window_cpu_ms": statistics.median(cost["cpu_ms"] for cost in window),
        "window_ratio": ratio(window, base.costs["window"], "wall_ms"),
        "window_cpu_ratio": ratio(window, base.costs["window"], "cpu_ms"),
        "study_ms": statistics.median(cost["wall_ms"] for cost in study),
        "study_runs": study[0]["runs"],
        "outside": statistics.median(outside),
        "start_seconds": way.start_seconds,
        "error": float(np.abs(found - expected).max() / np.abs(expected).max()),
        "costs": way.costs,
    }


def ratio(ours: list[Costs], theirs: list[Costs], key: str) -> Spread | None:
    """Divide round by round."""
    return spread([a[key] / b[key] for a, b in zip(ours, theirs, strict=True) if b[key]])


def show(name: str, lines: list[dict[str, Any]], base: str) -> None:
    """Print a table."""
    runs = int(lines[0]["study_runs"])
    print(f"\n{name}: a window of {NETS[name].window}; a study of {runs} runs of the net")
    print(f"{'':26}{'window ms':>10}{'CPU ms':>9}  {'wall / ' + base:28}{'CPU':22}"
          f"{'study ms':>9}{'outside':>9}{'error':>9}{'start s':>9}")  # fmt: skip
    for line in lines:
        print(
            f"{line['way']:26}{line['window_ms']:10.1f}{line['window_cpu_ms']:9.1f}"
            f"  {line['window_ratio']!s:28}{line['window_cpu_ratio']!s:22}{line['study_ms']:9.0f}"
            f"{100 * line['outside']:8.0f}%{line['error']:9.1e}{line['start_seconds']:9.1f}"
        )


def as_json(results: Mapping[str, list[dict[str, Any]]], missing: Mapping[str, str]) -> str:
    """Return everything that was measured."""
    machine = {"processors": os.cpu_count(), "versions": dict(probe().versions)}

    def plain(value: object) -> object:
        return {key: getattr(value, key) for key in Spread.__dataclass_fields__}

    whole = {"machine": machine, "not here": missing, "nets": results}
    return json.dumps(whole, indent=1, default=plain)


def main() -> None:
    """Run the comparison and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, default=CODE.parent / "shared" / "models")
    parser.add_argument("--nets", default=",".join(NETS))
    parser.add_argument("--without", default="", help="ways to leave out, by commas")
    parser.add_argument("--rounds", type=int, default=7, help="at least 2")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("--net", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        serve(options.way, NETS[options.net], options.folder, options.threads)
        return
    ways, missing = ways_here()
    ways = [way for way in ways if way not in options.without.split(",")]
    for way, reason in missing.items():
        print(f"not here: {way}: {reason}")
    results = {}
    with tempfile.TemporaryDirectory() as name:
        for net in options.nets.split(","):
            measured = compare(net, options, ways, Path(name) / net)
            base = next((way for way in measured if way.name == EAGER), measured[0])
            results[net] = [line_of(way, base, Path(name) / net) for way in measured]
            show(net, results[net], base.name)
    if options.json:
        options.json.write_text(as_json(results, missing), encoding="utf-8")


if __name__ == "__main__":
    main()
