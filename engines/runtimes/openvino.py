"""ONNX models on the CPU, through OpenVINO, in float32."""

from __future__ import annotations

import importlib.util
import sys
from typing import TYPE_CHECKING, ClassVar, Final

import numpy as np

from engines.base import PLAINLY, Arrays, Availability, Loading, Runtime, Session
from engines.errors import EngineError, InferenceError, ModelInvalidError, OutOfMemoryError
from engines.graphs import check_bytes
from engines.manifest import Device, Precision

if TYPE_CHECKING:
    import openvino

MEMORY_WORDS: Final = ("bad_alloc", "bad allocation", "failed to allocate", "out of memory")


class OpenVino(Runtime):
    """Runs ONNX models on OpenVINO's CPU plugin."""

    name: ClassVar[str] = "openvino"
    requires: ClassVar[tuple[str, ...]] = ("openvino",)
    devices: ClassVar[tuple[Device, ...]] = ("cpu",)
    precisions: ClassVar[tuple[Precision, ...]] = ("float32",)

    def is_available(self, device: Device | None = None) -> Availability:  # noqa: ARG002 - it has one
        """Say whether OpenVINO is installed."""
        if importlib.util.find_spec("openvino") is None:
            return Availability(available=False, reason="the package openvino is not installed")
        return Availability(available=True)

    def load(self, model: bytes, *, threads: int, how: Loading = PLAINLY) -> Session:  # noqa: ARG002 - one way only
        """Load a model that holds all of its weights."""
        check_bytes(model)
        _without_telemetry()
        import openvino

        try:
            core = openvino.Core()
            read = core.read_model(model=model, weights=b"")
            compiled = core.compile_model(
                read,
                "CPU",
                {
                    "INFERENCE_NUM_THREADS": threads,
                    "INFERENCE_PRECISION_HINT": "f32",
                    "NUM_STREAMS": 1,
                },
            )
        except (RuntimeError, ValueError, TypeError, MemoryError) as error:
            raise _translated(error, ModelInvalidError) from error
        return OpenVinoSession(compiled)


class OpenVinoSession(Session):
    """A model held by OpenVINO."""

    def __init__(self, compiled: openvino.CompiledModel) -> None:
        self._compiled: openvino.CompiledModel | None = compiled
        self._types = {
            item.any_name: np.dtype(item.element_type.to_dtype()) for item in compiled.inputs
        }
        self._outputs = tuple(item.any_name for item in compiled.outputs)

    def run(self, inputs: Arrays) -> Arrays:
        """Run the model once; element types must be the model's, which OpenVINO would convert."""
        if self._compiled is None:
            raise InferenceError("the session is closed")
        if set(inputs) != set(self._types):
            raise ModelInvalidError(f"the model takes {sorted(self._types)}, not {sorted(inputs)}")
        for name, array in inputs.items():
            if array.dtype != self._types[name]:
                raise InferenceError(
                    f"OpenVINO: {name} is {array.dtype}, the model takes {self._types[name]}"
                )
        try:
            found = self._compiled(dict(inputs))
            return {name: np.array(found[name]) for name in self._outputs}
        except (RuntimeError, ValueError, TypeError, MemoryError) as error:
            raise _translated(error, InferenceError) from error

    def close(self) -> None:
        """Drop the model."""
        self._compiled = None


def _without_telemetry() -> None:
    """See to it that OpenVINO's reporting to its maker is never loaded: it has a stub for that."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # as Python has it


def _translated(error: Exception, otherwise: type[EngineError]) -> EngineError:
    """Make the library's error one of ours. Its words name nodes of the graph, never a patient."""
    words = " ".join(str(error).split())[:300]
    if isinstance(error, MemoryError) or any(word in words.lower() for word in MEMORY_WORDS):
        return OutOfMemoryError(f"OpenVINO: {words}")
    return otherwise(f"OpenVINO: {words}")
