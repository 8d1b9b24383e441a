"""Quantised graphs as every runtime takes them: weights that stand for real numbers, as such.

Graphs with explicit quantisation keep biases as int32 behind a DequantizeLinear. TensorRT takes
int8 there and nothing wider, and nothing is won by keeping them: they are added in float32 anyhow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from engines.errors import ModelInvalidError
from engines.graphs import parse_model

if TYPE_CHECKING:
    import onnx

INT32: Final = 6
DEQUANTIZE: Final = "DequantizeLinear"


def with_plain_biases(data: bytes) -> bytes:
    """Fold int32 constants that go through DequantizeLinear into float32 constants.

    A model without any comes back as it is, byte for byte.

    Raises:
        ModelEmptyError, ModelInvalidError: the bytes are no model, or such a constant is not sound.
    """
    model = parse_model(data)
    constants = {item.name: item for item in model.graph.initializer}
    folded = {
        node.output[0]: _folded(node, constants)
        for node in model.graph.node
        if node.op_type == DEQUANTIZE and _is_int32(node.input[0], constants)
    }
    if not folded:
        return data
    kept = [node for node in model.graph.node if node.output[0] not in folded]
    used = {name for node in kept for name in node.input}
    weights = [item for item in model.graph.initializer if item.name in used]
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(kept)
    model.graph.initializer.extend([*weights, *folded.values()])
    _forget_inputs(model.graph, set(constants) - used)
    result: bytes = model.SerializeToString(deterministic=True)
    return result


def _is_int32(name: str, constants: dict[str, onnx.TensorProto]) -> bool:
    return name in constants and constants[name].data_type == INT32


def _folded(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> onnx.TensorProto:
    """Return (value - zero point) x scale as the operator defines it, float32."""
    import onnx

    if any(name not in constants for name in node.input if name):
        raise ModelInvalidError(f"{node.name or node.output[0]}: the scale is no constant")
    arrays = [onnx.numpy_helper.to_array(constants[name]) for name in node.input if name]
    values, scale, *zero = arrays
    shape = _scale_shape(node, values.ndim, scale.size)
    whole = values.astype(np.int64)
    if zero:
        whole = whole - zero[0].astype(np.int64).reshape(shape if zero[0].size > 1 else ())
    real = whole.astype(np.float32) * scale.astype(np.float32).reshape(shape)
    if not np.isfinite(real).all():
        raise ModelInvalidError(f"{node.name or node.output[0]}: a bias is not finite")
    made: onnx.TensorProto = onnx.numpy_helper.from_array(
        real.astype(np.float32).reshape(values.shape), node.output[0]
    )
    return made


def _scale_shape(node: onnx.NodeProto, axes: int, size: int) -> tuple[int, ...]:
    """Return the shape in which a scale lies over the values: one for all, or one along `axis`."""
    if size == 1:
        return ()
    axis = next((item.i for item in node.attribute if item.name == "axis"), 1)
    place = axis % axes if -axes <= axis < axes else 0
    return tuple(size if index == place else 1 for index in range(axes))


def _forget_inputs(graph: onnx.GraphProto, names: set[str]) -> None:
    """Drop weights that old graphs list as inputs too, and that are no longer there."""
    for index in reversed(range(len(graph.input))):
        if graph.input[index].name in names:
            del graph.input[index]
