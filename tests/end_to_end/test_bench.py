"""Benches, run small: every server takes what it is sent, and the figures add up."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any, Final

import pytest

from engines.base import Runtime, discover
from tests.engines.test_importing import threshold_model
from tests.places import ROOT

BENCH: Final = ROOT / "deploy" / "bench" / "ingest.py"
SERVERS: Final = {
    "wetread",
    "storescp-fork",
    "storescp-128k",
    "orthanc",
    "orthanc-fastest",
    "pynetdicom",
}
COUNT: Final = 4


def run_bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(BENCH), "--all-addresses", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Any]:
    """Run every server once or twice with a handful of images; return the figures."""
    folder = tmp_path_factory.mktemp("bench")
    figures = folder / "figures.json"
    size = ["--count", str(COUNT), "--repetitions", "1", "--associations", "1,2", "--kinds", "mr"]
    done = run_bench(*size, "--floor", "--root", str(folder), "--json", str(figures))
    assert done.returncode == 0, done.stdout + done.stderr
    assert [path.name for path in folder.iterdir()] == ["figures.json"]
    found: Mapping[str, Any] = json.loads(figures.read_text(encoding="utf-8"))
    return found


def runs_of(measured: Mapping[str, Any], part: str) -> list[Mapping[str, Any]]:
    return [run for run in measured["runs"] if run["part"] == part]


def test_every_server_received_every_image(measured: Mapping[str, Any]) -> None:
    runs = runs_of(measured, "fast-sender")
    turns = sorted((run["server"], run["associations"]) for run in runs)
    assert turns == sorted((name, n) for name in (*SERVERS, "floor") for n in (1, 2))
    for run in runs_of(measured, "fast-sender") + runs_of(measured, "as-shipped"):
        assert (run["count"], run["acknowledged"], run["arrived"]) == (COUNT, COUNT, COUNT), run
    assert measured["lost"] == 0


def test_servers_as_shipped_took_what_storescu_sends(measured: Mapping[str, Any]) -> None:
    runs = runs_of(measured, "as-shipped")
    assert {run["server"] for run in runs} == {"wetread", "storescp-fork", "orthanc"}


def test_ratios_are_those_of_the_runs_beside_each_other(measured: Mapping[str, Any]) -> None:
    runs = runs_of(measured, "fast-sender")
    rate = {(run["server"], run["associations"]): COUNT / run["seconds"] for run in runs}
    expected = statistics.median(
        rate["wetread", associations] / rate["orthanc", associations] for associations in (1, 2)
    )
    (pooled,) = [
        ratio
        for ratio in measured["ratios"]
        if (ratio["part"], ratio["peer"]) == ("fast-sender", "orthanc")
        and (ratio["measure"], ratio["associations"]) == ("images/s", None)
    ]
    assert pooled["spread"]["median"] == pytest.approx(expected)
    assert pooled["spread"]["pairs"] == 2


def test_goals_are_told_with_their_verdict(measured: Mapping[str, Any]) -> None:
    (rate,) = [goal for goal in measured["goals"] if goal["goal"].endswith("4 x orthanc")]
    assert rate["met"] == (rate["measured"]["median"] >= 4.0)


def test_wrong_names_are_refused_before_anything_starts() -> None:
    done = run_bench("--servers", "wetread,storescpp")
    assert done.returncode == 2
    assert "storescpp" in done.stderr


def test_the_bench_of_results_tells_what_both_writers_cost(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    bench = ROOT / "deploy" / "bench" / "results.py"
    size = ["--segments", "3", "--slices", "6", "--rounds", "1", "--json", str(figures)]
    done = subprocess.run(
        [sys.executable, str(bench), *size], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(figures.read_text(encoding="utf-8"))
    assert [part["kind"] for part in found] == ["BINARY", "LABELMAP"]
    for part in found:
        ours, theirs = part["ours"][0], part["highdicom"][0]
        assert ours["frames"] == theirs["frames"] > 0
        assert ours["cpu"] > 0
    assert "ours / highdicom" in done.stdout


def test_the_bench_of_engines_tells_every_runtime_here_and_its_figures_add_up(
    tmp_path: Path,
) -> None:
    """With a net of the tests; torch.compile is left out for its seconds."""
    figures, bench = tmp_path / "figures.json", BENCH.parent / "engines.py"
    (tmp_path / "lung_unet_ct").mkdir()
    threshold_model(tmp_path / "lung_unet_ct" / "lung_unet.onnx")
    size = ["--nets", "lungs", "--rounds", "2", "--without", "torch compile,torch cuda compile"]
    done = subprocess.run(
        [sys.executable, str(bench), "--models", str(tmp_path), *size, "--json", str(figures)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(figures.read_text(encoding="utf-8"))
    lines = {line["way"]: line for line in found["nets"]["lungs"]}
    assert {"torch eager", "onnxruntime cpu float32", "openvino cpu float32"} <= set(lines)
    rungs = {way: found["not here"].get(way, "") for way in every_rung()}
    assert {way for way, reason in rungs.items() if not reason} == set(rungs) & set(lines)
    for way, line in lines.items():
        check_sums(line)
        assert line["error"] < 1e-3 or " cuda " in way
        assert way in done.stdout


def every_rung() -> Iterator[str]:
    """Yield every way that a runtime in `engines/runtimes/` can run a model in."""
    for name, runtime in discover("runtimes", Runtime).items():  # type: ignore[type-abstract]
        for device, precision in product(runtime.devices, runtime.precisions):
            yield f"{name} {device} {precision}"


def check_sums(line: Mapping[str, Any]) -> None:
    """Hold one way's medians against what each round cost, and parts against their whole."""
    rounds = line["costs"]
    for cost in rounds["window"] + rounds["study"]:
        assert 0 < cost["inside_ms"] <= cost["wall_ms"], line["way"]
    assert [cost["runs"] for cost in rounds["window"]] == [1, 1]
    assert [cost["runs"] for cost in rounds["study"]] == [line["study_runs"]] * 2
    shares = [cost["inside_ms"] / cost["wall_ms"] for cost in rounds["study"]]
    assert line["outside"] == pytest.approx(1 - statistics.median(shares))
    for what in ("window", "study"):
        walls = [cost["wall_ms"] for cost in rounds[what]]
        assert line[f"{what}_ms"] == pytest.approx(statistics.median(walls))


@pytest.mark.parametrize(
    "name",
    ["delivery", "durability", "engines", "parts", "reading", "results", "scale", "turnaround"],
)
def test_every_bench_starts(name: str, tmp_path: Path) -> None:
    """From wherever it is called; a file of this folder has the name of one of our packages."""
    command = [sys.executable, str(BENCH.parent / f"{name}.py"), "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout
