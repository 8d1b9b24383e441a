"""Runs the golden cases of engines whose answers ship without their models (`config/engines`)."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from engines.errors import EngineError
from engines.shipped_answers import find_answers, find_weights, import_shipped, model_files
from node.catalogue import run_golden_case
from node.sandbox import Sandbox


class Result(StrEnum):
    """What came of a golden case; NOT_RUN is no pass."""

    PASSED = "passed"
    FAILED = "FAILED"
    NOT_RUN = "NOT RUN"


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenCase:
    """One engine's golden case; `reason` says why it did not pass."""

    engine: str
    result: Result
    reason: str = ""
    seconds: float = 0.0


def run_shipped(
    answers: Path, models: Path, *, sandbox: Sandbox, threads: int
) -> Iterator[GoldenCase]:
    """Import every engine of the folder `answers` in turn, and run its golden case in the sandbox.

    An engine whose weights are not under `models` is named as not run. Nothing stays installed.

    Raises:
        PackageError: there are no answers.
    """
    for path in find_answers(answers):
        with tempfile.TemporaryDirectory(prefix="engine-") as folder:
            yield _run(path, models, Path(folder) / "package", sandbox, threads)


def _run(answers: Path, models: Path, target: Path, sandbox: Sandbox, threads: int) -> GoldenCase:
    started, name = time.monotonic(), answers.parent.name
    try:
        weights = find_weights(answers, models)
        if weights is None:
            wanted = ", ".join(model_files(answers))
            reason = f"no folder under {models} holds {wanted}"
            return GoldenCase(engine=name, result=Result.NOT_RUN, reason=reason)
        package = import_shipped(answers, weights, target)
        name = f"{package.name} {package.version}"
        passed, reason = run_golden_case(sandbox, target, threads)
    except EngineError as error:
        passed, reason = False, f"{type(error).__name__}: {error}"
    return GoldenCase(
        engine=name,
        result=Result.PASSED if passed else Result.FAILED,
        reason=reason,
        seconds=time.monotonic() - started,
    )
