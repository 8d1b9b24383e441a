"""ONNX models on the CPU, node by node, through the reference evaluator of the package onnx."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from engines.base import PLAINLY, Arrays, Availability, Loading, Runtime, Session
from engines.errors import InferenceError, ModelInvalidError
from engines.graphs import TensorSpec, read_graph
from engines.manifest import Device, Precision

if TYPE_CHECKING:
    from onnx.reference import ReferenceEvaluator


class PlainOnnx(Runtime):
    """Runs ONNX models slowly."""

    name: ClassVar[str] = "plain_onnx"
    requires: ClassVar[tuple[str, ...]] = ("onnx",)
    devices: ClassVar[tuple[Device, ...]] = ("cpu",)
    precisions: ClassVar[tuple[Precision, ...]] = ("float32",)

    def is_available(self, device: Device | None = None) -> Availability:  # noqa: ARG002 - it has one
        """Say whether onnx is installed."""
        if importlib.util.find_spec("onnx") is None:
            return Availability(available=False, reason="the package onnx is not installed")
        return Availability(available=True)

    def load(self, model: bytes, *, threads: int, how: Loading = PLAINLY) -> Session:  # noqa: ARG002 - one way only
        """Load a model that holds all of its weights."""
        graph = read_graph(model)
        from onnx.reference import ReferenceEvaluator

        try:
            return PlainSession(ReferenceEvaluator(model), graph.inputs)
        except (RuntimeError, ValueError, TypeError) as error:
            raise ModelInvalidError(f"onnx: {error}") from error


class PlainSession(Session):
    """A model held by the reference evaluator."""

    def __init__(self, evaluator: ReferenceEvaluator, inputs: tuple[TensorSpec, ...]) -> None:
        self._evaluator: ReferenceEvaluator | None = evaluator
        self._inputs = {item.name: item for item in inputs}

    def run(self, inputs: Arrays) -> Arrays:
        """Run the model once."""
        if self._evaluator is None:
            raise InferenceError("the session is closed")
        if set(inputs) != set(self._inputs):
            raise ModelInvalidError(f"the model takes {sorted(self._inputs)}, not {sorted(inputs)}")
        for name, array in inputs.items():
            wanted = self._inputs[name]
            if array.dtype != np.float32 or array.ndim != len(wanted.shape):
                raise InferenceError(f"{name}: {array.dtype} {array.shape} is not {wanted}")
        try:
            with np.errstate(all="ignore"):
                found = self._evaluator.run(None, dict(inputs))
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            raise InferenceError(f"onnx: {error}") from error
        return dict(zip(self._evaluator.output_names, found, strict=True))

    def close(self) -> None:
        """Drop the model."""
        self._evaluator = None
