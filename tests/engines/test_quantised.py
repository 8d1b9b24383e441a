from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from engines.errors import ModelEmptyError, ModelInvalidError
from engines.quantised import with_plain_biases
from tests.engines.nets import model, quantised, small_net

Floats = npt.NDArray[np.float32]


def run(data: bytes, name: str, values: Floats) -> Floats:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    found: Floats = session.run(None, {name: values})[0]
    return found


def wide_constants(data: bytes) -> list[str]:
    graph = onnx.ModelProto.FromString(data).graph
    names = {item.name for item in graph.initializer if item.data_type == TensorProto.INT32}
    return [n.name for n in graph.node if n.op_type == "DequantizeLinear" and n.input[0] in names]


@pytest.mark.parametrize(("zero", "bias_zero"), [(0, 0), (-128, 0), (0, 12)])
def test_folded_biases_give_the_same_numbers(zero: int, bias_zero: int) -> None:
    data = quantised(zero, bias_zero)
    values = np.random.default_rng(1).standard_normal((2, 1, 8, 8)).astype(np.float32)
    folded = with_plain_biases(data)
    assert np.array_equal(run(folded, "x", values), run(data, "x", values))


def test_only_the_biases_are_folded() -> None:
    folded = onnx.ModelProto.FromString(with_plain_biases(quantised())).graph
    kinds = [node.op_type for node in folded.node]
    assert kinds == ["QuantizeLinear", "DequantizeLinear", "DequantizeLinear", "Conv"]
    types = {item.name: item.data_type for item in folded.initializer}
    assert types["br"] == TensorProto.FLOAT
    assert types["w"] == TensorProto.INT8
    assert "bias" not in types


def test_a_model_without_such_biases_comes_back_byte_for_byte() -> None:
    assert with_plain_biases(small_net()) == small_net()
    folded = with_plain_biases(quantised())
    assert with_plain_biases(folded) == folded


def test_a_scale_that_is_computed_is_refused() -> None:
    data = model(
        [
            helper.make_node("ReduceMax", ["x"], ["scale"], keepdims=0),
            helper.make_node("DequantizeLinear", ["bias", "scale"], ["y"], name="bias step"),
        ],
        [numpy_helper.from_array(np.array([3], np.int32), "bias")],
    )
    with pytest.raises(ModelInvalidError, match="bias step: the scale is no constant"):
        with_plain_biases(data)


def test_a_bias_that_is_not_finite_is_refused() -> None:
    data = model(
        [helper.make_node("DequantizeLinear", ["bias", "scale"], ["y"], name="bias step")],
        [
            numpy_helper.from_array(np.array([3], np.int32), "bias"),
            numpy_helper.from_array(np.array(np.inf, np.float32), "scale"),
        ],
    )
    with pytest.raises(ModelInvalidError, match="bias step: a bias is not finite"):
        with_plain_biases(data)


def test_an_empty_model_is_refused() -> None:
    with pytest.raises(ModelEmptyError):
        with_plain_biases(b"")


def test_a_published_quantised_net_gives_the_same_numbers(shared: Callable[[str], Path]) -> None:
    data = shared("models/cxr_nih_mobilenetv3/model_int8.onnx").read_bytes()
    assert len(wide_constants(data)) == 57
    folded = with_plain_biases(data)
    assert wide_constants(folded) == []
    values = np.random.default_rng(2).standard_normal((2, 1, 224, 224)).astype(np.float32)
    assert np.array_equal(run(folded, "input", values), run(data, "input", values))
