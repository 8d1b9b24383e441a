"""The parity gate: a runtime may be used for an engine once it gives what the reference gives.

The reference is ONNX Runtime on the CPU in float32, whose answer the golden case has checked. The
golden case runs on both; every output of the model, and what the task makes of them, must be
within the tolerances of the package (`[parity]`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from engines.base import Array, Arrays, Session, open_engine
from engines.errors import EngineError, InferenceError
from engines.manifest import EnginePackage, RungTable
from engines.verify import Verdict, difference, golden_arrays, verdict_of

REFERENCE: Final = RungTable(runtime="onnxruntime")


def release_rung(
    package: EnginePackage, rung: RungTable, *, threads: int = 1, plans: Path | None = None
) -> Verdict:
    """Hold a rung of an engine's ladder against the reference on this machine.

    What engines and runtimes raise becomes part of the verdict. The largest difference is that of
    the model's outputs, as `engines.verify.difference` has it.
    """
    started = time.monotonic()
    try:
        worst, reasons = _compare(package, rung, threads, plans)
    except EngineError as error:
        return verdict_of(started, float("nan"), f"{type(error).__name__}: {error}")
    return verdict_of(started, worst, "; ".join(reasons))


def _compare(
    package: EnginePackage, rung: RungTable, threads: int, plans: Path | None
) -> tuple[float, list[str]]:
    inputs = golden_arrays(package, package.manifest.golden.inputs)
    allowed = package.manifest.parity
    with open_engine(package, threads=threads, rung=rung, plans=plans) as candidate:
        with open_engine(package, threads=threads, rung=REFERENCE) as engine:
            recorder = _Recorder(engine.session)
            expected = engine.task.compute(package, recorder, inputs)
        compared = _Compared(candidate.session, iter(recorder.outputs))
        found = candidate.task.compute(package, compared, inputs)
    reasons = []
    worst, where = compared.worst
    if not worst <= allowed.max_error:
        reasons.append(
            f"the output {where} differs by {worst:.3g}, {allowed.max_error:g} is allowed"
        )
    return worst, reasons + candidate.task.disagreements(expected, found, allowed)


class _Recorder(Session):
    """Keeps what a session gave, run by run."""

    def __init__(self, session: Session, outputs: list[dict[str, Array]] | None = None) -> None:
        self._session = session
        self.outputs: list[dict[str, Array]] = [] if outputs is None else outputs

    def run(self, inputs: Arrays) -> Arrays:
        found = self._session.run(inputs)
        self.outputs.append(dict(found))
        return found

    def part(self, name: str) -> Session:
        return _Recorder(self._session.part(name), self.outputs)

    def close(self) -> None:
        self._session.close()


class _Compared(Session):
    """Holds what a session gives against what was kept, run by run."""

    def __init__(self, session: Session, expected: Iterator[dict[str, Array]]) -> None:
        self._session = session
        self._expected = expected
        self._parts: list[_Compared] = []
        self._worst = (0.0, "")

    @property
    def worst(self) -> tuple[float, str]:
        """The largest difference, in other models too, and the output that has it."""
        return max((self._worst, *(part.worst for part in self._parts)), key=lambda item: item[0])

    def part(self, name: str) -> Session:
        found = _Compared(self._session.part(name), self._expected)
        self._parts.append(found)
        return found

    def run(self, inputs: Arrays) -> Arrays:
        found = self._session.run(inputs)
        expected = next(self._expected, None)
        if expected is None:
            raise InferenceError("the model is run more often than on the reference")
        for name, wanted in expected.items():
            if name not in found:
                raise InferenceError(f"the model gives no {name}, as it does on the reference")
            gap = difference(found[name], wanted)
            if gap >= self._worst[0]:
                self._worst = gap, name
        return found

    def close(self) -> None:
        self._session.close()


__all__ = ["REFERENCE", "release_rung"]
