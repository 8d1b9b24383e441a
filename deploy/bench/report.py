"""The figures as tables for people and as JSON for programs."""

from __future__ import annotations

import json
import os
import platform
import statistics
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import Final

from goals import Verdict
from measuring import OURS, Measure, Part, Ratio, Run, unique
from peers import ROOT, version_of

SENDERS: Final[Mapping[Part, str]] = {
    Part.FAST: "from the fast sender, TCP_NODELAY=1 for dcmtk and Orthanc",
    Part.AS_SHIPPED: "from stock storescu (its start included), servers as shipped",
}
HEAD: Final = (
    f"{'associations':>12}  {'server':16} {'images/s':>9} {'CPU ms/image':>13} "
    f"{'peak MB':>8} {'rise':>5} {'lost':>5}  {'wetread / it: images/s':24} CPU/image"
)


def machine() -> dict[str, object]:
    """Return what the figures depend on: processors, system, versions."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {
        "processors": os.cpu_count(),
        "architecture": platform.machine(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "wetread": project["version"],
        "pynetdicom": version("pynetdicom"),
        "pydicom": version("pydicom"),
        "dcmtk": version_of("storescp"),
        "orthanc": version_of("Orthanc"),
    }


def as_json(
    settings: Mapping[str, object],
    runs: Sequence[Run],
    ratios: Sequence[Ratio],
    verdicts: Sequence[Verdict],
) -> str:
    """Return everything that was measured."""
    return json.dumps(
        {
            "settings": settings,
            "machine": machine(),
            "lost": sum(run.lost for run in runs),
            "runs": [asdict(run) for run in runs],
            "ratios": [asdict(ratio) for ratio in ratios],
            "goals": [asdict(verdict) for verdict in verdicts],
        },
        indent=1,
    )


def tables(runs: Sequence[Run], ratios: Sequence[Ratio], sizes: Mapping[str, int]) -> Iterator[str]:
    """Yield the lines of a table for every kind of image; sizes are in bytes."""
    for part, kind in unique((run.part, run.kind) for run in runs):
        here = [run for run in runs if (run.part, run.kind) == (part, kind)]
        repetitions = len({run.repetition for run in here})
        counts = "/".join(str(count) for count in unique(run.count for run in here))
        yield ""
        yield (
            f"{kind.upper()}, {sizes[kind] / 1e6:.2f} MB, {counts} images a run, medians of "
            f"{repetitions}, {SENDERS[part]}"
        )
        yield HEAD
        for associations in (*unique(run.associations for run in here), None):
            for server in unique(run.server for run in here):
                of = [
                    run
                    for run in here
                    if run.server == server and associations in {None, run.associations}
                ]
                quotients = [
                    _quotient(ratios, part, kind, associations, server, measure)
                    for measure in Measure
                ]
                if of and (associations or any(quotients)):
                    yield _line(associations, server, of, quotients)


def goal_lines(verdicts: Sequence[Verdict]) -> Iterator[str]:
    """Yield a line for every goal that was measured."""
    for verdict in verdicts:
        met = "met" if verdict.met else "MISSED"
        yield f"{met:7} {verdict.goal:72} {verdict.measured}, {verdict.measured.pairs} pairs"


def _line(
    associations: int | None, server: str, runs: Sequence[Run], quotients: Sequence[str]
) -> str:
    lost = sum(run.lost for run in runs)
    rate = cpu = peak = rise = ""
    if associations is not None:
        rate = f"{statistics.median(run.value(Measure.RATE) for run in runs):.1f}"
        cpu = f"{1e3 * statistics.median(run.value(Measure.CPU) for run in runs):.2f}"
        peaks = [run.peak_bytes for run in runs if run.peak_bytes is not None]
        peak = f"{statistics.median(peaks) / 1e6:.0f}" if peaks else ""
        rises = [run.rise_bytes for run in runs if run.rise_bytes is not None]
        rise = f"{statistics.median(rises) / 1e6:.0f}" if rises else ""
    return (
        f"{associations or 'all':>12}  {server:16} {rate:>9} {cpu:>13} "
        f"{peak:>8} {rise:>5} {lost:>5}  {quotients[0]:24} {quotients[1]}"
    ).rstrip()


def _quotient(  # noqa: PLR0917 - what tells a ratio from the others
    ratios: Sequence[Ratio],
    part: Part,
    kind: str,
    associations: int | None,
    peer: str,
    measure: Measure,
) -> str:
    wanted = (part, kind, associations, peer, measure)
    found = [
        str(ratio.spread)
        for ratio in ratios
        if wanted == (ratio.part, ratio.kind, ratio.associations, ratio.peer, ratio.measure)
    ]
    return found[0] if found and peer != OURS else ""
