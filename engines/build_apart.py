"""Builds plans in a process of their own, so that what is built depends on nothing else.

TensorRT orders its work by addresses in places: in a process that did something before, the same
model gives other bytes. In a fresh one whose addresses are not random, it gives the same bytes.
Where the system does not allow that, plans are as good, but their digests differ.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Final

from pydantic import JsonValue

from engines import errors
from engines.build import BuildOrder, Built, build_plan
from engines.errors import EngineError, OutOfMemoryError, PlanBuildError
from engines.plan_key import InputProfile
from engines.tensorrt_api import Library

ORDER: Final = "order.json"
MODEL: Final = "model.onnx"
TIMING: Final = "timing"
PLAN: Final = "plan"
ANSWER: Final = "answer.json"
BEGIN: Final = Path(__file__).with_name("fixed_addresses.py")


def build_apart(order: BuildOrder, *, backend: str, module: str) -> Built:
    """Build a plan in a fresh process that runs `module`, which must call `main`.

    Raises:
        EngineError: what the build raised there; `PlanBuildError` where the process ended itself.
    """
    with tempfile.TemporaryDirectory(prefix="plan-") as name:
        folder = Path(name)
        _write_order(folder, order, backend)
        begun = [sys.executable, "-I", "-S", str(BEGIN), module]
        command = ["/usr/bin/env", "PYTHONHASHSEED=0", *begun]
        done = subprocess.run(  # noqa: S603 - our own program
            command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
        if not (folder / ANSWER).is_file():
            raise PlanBuildError(f"the build ended with status {done.returncode} and no answer")
        answer = json.loads((folder / ANSWER).read_text(encoding="utf-8"))
        if answer["error"]:
            raise _error(answer["error"], answer["message"])
        return Built(plan=(folder / PLAN).read_bytes(), timing=(folder / TIMING).read_bytes())


def main(find_library: Callable[[str], Library]) -> None:
    """Build what lies in the current folder, in the child."""
    folder = Path()
    try:
        order, backend = _read_order(folder)
        built = build_plan(find_library(backend), order)
        (folder / PLAN).write_bytes(built.plan)
        (folder / TIMING).write_bytes(built.timing)
    except EngineError as error:
        _answer(folder, type(error).__name__, str(error))
    except MemoryError:
        _answer(folder, OutOfMemoryError.__name__, "not enough memory to build a plan")
    else:
        _answer(folder, "", "")


def _write_order(folder: Path, order: BuildOrder, backend: str) -> None:
    table: dict[str, JsonValue] = {
        "backend": backend,
        "inputs": [asdict(item) for item in order.inputs],
        "precision": order.precision,
        "targets": list(order.targets),
        "workspace_mib": order.workspace_mib,
    }
    (folder / ORDER).write_text(json.dumps(table), encoding="utf-8")
    (folder / MODEL).write_bytes(order.model)
    (folder / TIMING).write_bytes(order.timing)


def _read_order(folder: Path) -> tuple[BuildOrder, str]:
    table = json.loads((folder / ORDER).read_text(encoding="utf-8"))
    inputs = [
        InputProfile(
            name=item["name"],
            type=item["type"],
            min=tuple(item["min"]),
            opt=tuple(item["opt"]),
            max=tuple(item["max"]),
        )
        for item in table["inputs"]
    ]
    order = BuildOrder(
        model=(folder / MODEL).read_bytes(),
        inputs=tuple(inputs),
        precision=table["precision"],
        targets=tuple(table["targets"]),
        workspace_mib=table["workspace_mib"],
        timing=(folder / TIMING).read_bytes(),
    )
    return order, table["backend"]


def _answer(folder: Path, error: str, message: str) -> None:
    text = json.dumps({"error": error, "message": message})
    (folder / ANSWER).write_text(text, encoding="utf-8")


def _error(name: str, message: str) -> EngineError:
    kind = getattr(errors, name, PlanBuildError)
    made: EngineError = kind(message)
    return made
