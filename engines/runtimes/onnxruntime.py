"""ONNX models on the CPU, through ONNX Runtime."""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Final

from engines.base import Arrays, Availability, Runtime, Session
from engines.errors import EngineError, InferenceError, ModelInvalidError, OutOfMemoryError

if TYPE_CHECKING:
    import onnxruntime

EXTERNAL_DATA: Final = b"\x0a\x08location\x12"
"""A StringStringEntryProto with the key "location": weights that lie in another file."""
FATAL_ONLY: Final = 4
MEMORY_WORDS: Final = ("bad_alloc", "bad allocation", "failed to allocate", "out of memory")


class OnnxRuntime(Runtime):
    """Runs ONNX models on the CPU execution provider."""

    name: ClassVar[str] = "onnxruntime"
    requires: ClassVar[tuple[str, ...]] = ("onnxruntime",)

    def is_available(self) -> Availability:
        """Say whether ONNX Runtime is installed."""
        if importlib.util.find_spec("onnxruntime") is None:
            return Availability(available=False, reason="the package onnxruntime is not installed")
        return Availability(available=True)

    def load(self, model: bytes, *, threads: int) -> Session:
        """Load a model that holds all of its weights."""
        if not model:
            raise ModelInvalidError("the model is empty")
        if EXTERNAL_DATA in model:
            raise ModelInvalidError("the model keeps weights in another file")
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
                model, sess_options=options, providers=["CPUExecutionProvider"]
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
