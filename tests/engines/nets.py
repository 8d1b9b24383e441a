"""Small nets as ONNX, made here."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Axes = Sequence[int | str]


def model(
    nodes: Sequence[onnx.NodeProto],
    weights: Sequence[onnx.TensorProto] = (),
    *,
    takes: Axes = ("n", 1, 8, 8),
    gives: Axes | None = None,
    opset: int = 17,
) -> bytes:
    """Return a net with one float32 input `x` and one float32 output `y`."""
    graph = helper.make_graph(
        list(nodes),
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, takes)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, gives)],
        list(weights),
    )
    made = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", opset)])
    data: bytes = made.SerializeToString()
    return data


def doubled() -> bytes:
    """Return a net that adds what it is given to itself."""
    return model([helper.make_node("Add", ["x", "x"], ["y"])], takes=["n"])


def typed() -> bytes:
    """Return a net with outputs of three types: `whole` int64, `above` bool, `square` float32."""
    outputs = (("whole", TensorProto.INT64), ("above", TensorProto.BOOL))
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["x"], ["whole"], to=TensorProto.INT64),
            helper.make_node("Greater", ["x", "zero"], ["above"]),
            helper.make_node("Mul", ["x", "x"], ["squares"]),
            helper.make_node("Unsqueeze", ["squares", "first"], ["square"]),
        ],
        "typed",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])],
        [
            *(helper.make_tensor_value_info(name, kind, ["n"]) for name, kind in outputs),
            helper.make_tensor_value_info("square", TensorProto.FLOAT, [1, "n"]),
        ],
        [
            numpy_helper.from_array(np.array(0, np.float32), "zero"),
            numpy_helper.from_array(np.array([0], np.int64), "first"),
        ],
    )
    made = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    data: bytes = made.SerializeToString()
    return data


def small_net(scale: float = 0.2) -> bytes:
    """Return convolution, rectifier, convolution, softmax: two classes for every pixel."""
    generator = np.random.default_rng(7)
    first = (generator.standard_normal((4, 1, 3, 3)) * scale).astype(np.float32)
    second = (generator.standard_normal((2, 4, 1, 1)) * scale).astype(np.float32)
    bias = np.array([0.1, -0.1], np.float32)
    return model(
        [
            helper.make_node("Conv", ["x", "w1"], ["a"], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["a"], ["b"]),
            helper.make_node("Conv", ["b", "w2", "b2"], ["c"]),
            helper.make_node("Softmax", ["c"], ["y"], axis=1),
        ],
        [
            numpy_helper.from_array(first, "w1"),
            numpy_helper.from_array(second, "w2"),
            numpy_helper.from_array(bias, "b2"),
        ],
        gives=("n", 2, 8, 8),
    )


def quantised(zero: int = 0, bias_zero: int = 0) -> bytes:
    """Return a convolution with int8 activations and weights, and an int32 bias per channel."""
    generator = np.random.default_rng(5)
    weights = generator.integers(-127, 128, (3, 1, 3, 3)).astype(np.int8)
    bias = np.array([1000, -2000, 77], np.int32)
    constants = {
        "x_scale": np.float32(0.05),
        "x_zero": np.int8(zero),
        "w": weights,
        "w_scale": np.array([0.01, 0.02, 0.005], np.float32),
        "w_zero": np.zeros(3, np.int8),
        "bias": bias,
        "bias_scale": np.array([0.0005, 0.001, 0.00025], np.float32),
        "bias_zero": np.full(3, bias_zero, np.int32),
    }
    return model(
        [
            helper.make_node("QuantizeLinear", ["x", "x_scale", "x_zero"], ["xq"]),
            helper.make_node("DequantizeLinear", ["xq", "x_scale", "x_zero"], ["xr"]),
            helper.make_node("DequantizeLinear", ["w", "w_scale", "w_zero"], ["wr"], axis=0),
            helper.make_node(
                "DequantizeLinear", ["bias", "bias_scale", "bias_zero"], ["br"], axis=0
            ),
            helper.make_node("Conv", ["xr", "wr", "br"], ["y"], pads=[1, 1, 1, 1]),
        ],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )


def loop() -> bytes:
    """Return a net with a graph within one of its nodes."""
    branch = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["minus"])],
        "branch",
        [],
        [helper.make_tensor_value_info("minus", TensorProto.FLOAT, None)],
    )
    yes = numpy_helper.from_array(np.array(True), "yes")
    node = helper.make_node("If", ["yes"], ["y"], then_branch=branch, else_branch=branch)
    return model([node], [yes])
