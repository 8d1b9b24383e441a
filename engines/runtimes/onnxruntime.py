"""ONNX models on the CPU or on an NVIDIA device, through ONNX Runtime, in float32.

On the CPU it is the reference that other runtimes are held against.
"""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Final

from engines.base import PLAINLY, Arrays, Availability, Loading, Runtime, Session
from engines.devices import find_devices
from engines.errors import (
    DeviceMissingError,
    EngineError,
    InferenceError,
    ModelInvalidError,
    OutOfMemoryError,
)
from engines.graphs import check_bytes
from engines.manifest import Device, Precision

if TYPE_CHECKING:
    import onnxruntime

FATAL_ONLY: Final = 4
CPU: Final = "CPUExecutionProvider"
CUDA: Final = "CUDAExecutionProvider"
MEMORY_WORDS: Final = ("bad_alloc", "bad allocation", "failed to allocate", "out of memory")


class OnnxRuntime(Runtime):
    """Runs ONNX models on the CPU or CUDA execution provider."""

    name: ClassVar[str] = "onnxruntime"
    requires: ClassVar[tuple[str, ...]] = ("onnxruntime",)
    devices: ClassVar[tuple[Device, ...]] = ("cpu", "cuda")
    precisions: ClassVar[tuple[Precision, ...]] = ("float32",)

    def is_available(self, device: Device | None = None) -> Availability:
        """Say whether ONNX Runtime is installed, with the provider and the device it needs."""
        if importlib.util.find_spec("onnxruntime") is None:
            return Availability(available=False, reason="the package onnxruntime is not installed")
        return _cuda() if device == "cuda" else Availability(available=True)

    def load(self, model: bytes, *, threads: int, how: Loading = PLAINLY) -> Session:
        """Load a model that holds all of its weights."""
        check_bytes(model)
        if how.device == "cuda" and not (cuda := _cuda()).available:
            raise DeviceMissingError(cuda.reason)
        import onnxruntime

        errors = _library_errors()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = False
        options.log_severity_level = FATAL_ONLY
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            loaded = onnxruntime.InferenceSession(
                model, sess_options=options, providers=_providers(how.device)
            )
        except errors as error:
            raise _translated(error, ModelInvalidError) from error
        return OnnxSession(loaded)


class OnnxSession(Session):
    """A model held by ONNX Runtime."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self._session: onnxruntime.InferenceSession | None = session
        self._inputs = frozenset(item.name for item in session.get_inputs())
        self._outputs = tuple(item.name for item in session.get_outputs())

    def run(self, inputs: Arrays) -> Arrays:
        """Run the model once."""
        if self._session is None:
            raise InferenceError("the session is closed")
        if frozenset(inputs) != self._inputs:
            raise ModelInvalidError(f"the model takes {sorted(self._inputs)}, not {sorted(inputs)}")
        try:
            values = self._session.run(list(self._outputs), dict(inputs))
        except _library_errors() as error:
            raise _translated(error, InferenceError) from error
        outputs: Mapping[str, object] = dict(zip(self._outputs, values, strict=True))
        return outputs  # type: ignore[return-value]  # arrays, but the library is untyped

    def close(self) -> None:
        """Drop the model."""
        self._session = None


def _cuda() -> Availability:
    """Say whether the CUDA execution provider can be used."""
    import onnxruntime

    if CUDA not in onnxruntime.get_available_providers():
        reason = f"this ONNX Runtime has no {CUDA}: the package onnxruntime-gpu has it"
        return Availability(available=False, reason=reason)
    reason = find_devices().reason
    return Availability(available=not reason, reason=reason, device_missing=bool(reason))


def _providers(device: Device) -> list[str | tuple[str, dict[str, str]]]:
    """Return the providers of a device; on CUDA without TF32, which is no float32."""
    return [(CUDA, {"use_tf32": "0"}), CPU] if device == "cuda" else [CPU]


def _library_errors() -> tuple[type[Exception], ...]:
    """Return what ONNX Runtime raises: its own classes have no common base but Exception."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    own = [
        member
        for _, member in inspect.getmembers(state, inspect.isclass)
        if issubclass(member, Exception)
    ]
    return (*own, RuntimeError, ValueError, TypeError, MemoryError)


def _translated(error: Exception, otherwise: type[EngineError]) -> EngineError:
    """Make the library's error one of ours. Its words name nodes of the graph, never a patient."""
    words = str(error).replace("\n", " ")[:300]
    if isinstance(error, MemoryError) or any(word in words.lower() for word in MEMORY_WORDS):
        return OutOfMemoryError(f"ONNX Runtime: {words}")
    return otherwise(f"ONNX Runtime: {words}")
