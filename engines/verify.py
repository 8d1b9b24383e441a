"""Golden cases: an engine may take jobs only after it gives the known answer on this machine."""

from __future__ import annotations

import io
import time
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from engines.base import Array, open_engine
from engines.errors import EngineError
from engines.package import EnginePackage, PackageError

MAX_GOLDEN_BYTES: Final = 256 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What came of a golden case.

    `max_difference` is the largest difference of any expected array: for integers the share of
    elements that differ, for others the largest relative difference; NaN where nothing could be
    compared. `reason` says why it did not pass.
    """

    passed: bool
    max_difference: float
    reason: str
    seconds: float


def verify_package(package: EnginePackage, *, threads: int = 1) -> Verdict:
    """Run the golden case of a package on the last rung of its ladder.

    What the engine raises becomes part of the verdict.
    """
    started = time.monotonic()
    try:
        differences = _run(package, threads)
    except EngineError as error:
        return verdict_of(started, float("nan"), f"{type(error).__name__}: {error}")
    worst = max(differences, key=lambda name: differences[name])
    difference = differences[worst]
    tolerance = package.manifest.golden.tolerance
    if not difference <= tolerance:
        reason = f"{worst} differs by {difference:.3g}, {tolerance:g} is allowed"
        return verdict_of(started, difference, reason)
    return verdict_of(started, difference, "")


def verdict_of(started: float, difference: float, reason: str) -> Verdict:
    """Return a verdict on what `started` at that time of the monotonic clock; no reason: passed."""
    return Verdict(
        passed=not reason,
        max_difference=difference,
        reason=reason,
        seconds=time.monotonic() - started,
    )


def _run(package: EnginePackage, threads: int) -> dict[str, float]:
    golden = package.manifest.golden
    inputs = golden_arrays(package, golden.inputs)
    expected = golden_arrays(package, golden.expected)
    with open_engine(package, threads=threads) as engine:
        found = engine.task.compute(package, engine.session, inputs)
    missing = sorted(set(expected) - set(found))
    if missing or not expected:
        raise PackageError(f"{golden.expected}: {missing or 'nothing'} is not what the task gives")
    return {name: difference(found[name], expected[name]) for name in expected}


def golden_arrays(package: EnginePackage, name: str) -> Mapping[str, Array]:
    """Read an .npz of a package without pickles, and no larger than a golden case may be.

    Raises:
        PackageError: it is none, or too large.
    """
    data = package.read_file(name)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            size = sum(item.file_size for item in archive.infolist())
        if size > MAX_GOLDEN_BYTES:
            raise PackageError(f"{name}: inflates to {size >> 20} MiB")
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return {key: arrays[key] for key in arrays.files}
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise PackageError(f"{name}: is no .npz of plain arrays: {error}") from error


def difference(found: Array, expected: Array) -> float:
    """Say how far two arrays are apart.

    Integers: the share of elements that differ. Others: the largest difference, relative to the
    largest expected magnitude. Infinite where shapes differ or a value is not finite.
    """
    if found.shape != expected.shape:
        return float("inf")
    if expected.size == 0:
        return 0.0
    if expected.dtype.kind in "iub":
        return float(np.mean(found != expected))
    gap = np.abs(found.astype(np.float64) - expected.astype(np.float64))
    scale = float(np.abs(expected.astype(np.float64)).max()) or 1.0
    worst = float(gap.max()) / scale
    return worst if np.isfinite(worst) else float("inf")
