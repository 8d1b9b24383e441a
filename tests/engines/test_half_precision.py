from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from engines.errors import ModelEmptyError, ModelInvalidError
from engines.half_precision import HALF, in_half_precision
from tests.engines.nets import loop, model, small_net

Floats = npt.NDArray[np.float32]


def run(data: bytes, x: Floats) -> Floats:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    found: Floats = session.run(None, {"x": x})[0]
    return found


def pixels(seed: int = 3) -> Floats:
    return np.random.default_rng(seed).standard_normal((2, 1, 8, 8)).astype(np.float32)


def kinds(data: bytes) -> list[str]:
    return [node.op_type for node in onnx.ModelProto.FromString(data).graph.node]


def test_a_net_in_half_precision_gives_nearly_the_same() -> None:
    whole, half = small_net(), in_half_precision(small_net())
    expected, found = run(whole, pixels()), run(half, pixels())
    assert found.dtype == np.float32
    assert 0 < np.abs(found - expected).max() < 1e-3


def test_casts_stand_only_where_the_precision_changes() -> None:
    assert kinds(in_half_precision(small_net())) == [
        "Cast", "Conv", "Relu", "Conv", "Cast", "Softmax",
    ]  # fmt: skip


def test_weights_are_kept_once_and_in_half_the_bytes() -> None:
    made = onnx.ModelProto.FromString(in_half_precision(small_net()))
    assert {item.data_type for item in made.graph.initializer} == {TensorProto.FLOAT16}
    assert len(made.graph.initializer) == 3


def test_the_same_model_gives_the_same_bytes() -> None:
    assert in_half_precision(small_net()) == in_half_precision(small_net())


def test_what_the_model_takes_and_gives_keeps_its_name_and_type() -> None:
    made = onnx.ModelProto.FromString(in_half_precision(small_net()))
    for item, name in ((made.graph.input[0], "x"), (made.graph.output[0], "y")):
        assert item.name == name
        assert item.type.tensor_type.elem_type == TensorProto.FLOAT
    onnx.checker.check_model(made, full_check=True)


def test_an_output_that_is_used_within_as_well_comes_out_in_full() -> None:
    data = model(
        [
            helper.make_node("Relu", ["x"], ["a"]),
            helper.make_node("Add", ["a", "a"], ["y"]),
            helper.make_node("Exp", ["y"], ["unused"]),
        ]
    )
    assert kinds(in_half_precision(data)) == ["Cast", "Relu", "Add", "Cast", "Exp"]
    assert np.abs(run(in_half_precision(data), pixels()) - run(data, pixels())).max() < 1e-2


def test_weights_beyond_the_range_of_float16_keep_their_node_in_float32() -> None:
    data = model(
        [helper.make_node("Mul", ["x", "w"], ["y"])],
        [numpy_helper.from_array(np.array([1e6], np.float32), "w")],
    )
    half = in_half_precision(data)
    assert kinds(half) == ["Mul"]
    assert (run(half, pixels()) == run(data, pixels())).all()


def test_whole_numbers_are_left_alone() -> None:
    shape = numpy_helper.from_array(np.array([2, 64], np.int64), "shape")
    data = model([helper.make_node("Reshape", ["x", "shape"], ["y"])], [shape])
    assert run(in_half_precision(data), pixels()).shape == (2, 64)


@pytest.mark.parametrize("operator", ["Exp", "ReduceMean", "Softmax", "InstanceNormalization"])
def test_what_loses_too_much_is_not_in_the_list(operator: str) -> None:
    assert operator not in HALF


def test_graphs_within_nodes_and_models_that_are_none_are_refused() -> None:
    with pytest.raises(ModelInvalidError, match="graphs within its nodes"):
        in_half_precision(loop())
    with pytest.raises(ModelEmptyError):
        in_half_precision(b"")


def test_types_that_contradict_each_other_are_refused() -> None:
    whole = numpy_helper.from_array(np.array([1], np.int64), "w")
    with pytest.raises(ModelInvalidError, match="types of the graph"):
        in_half_precision(model([helper.make_node("Add", ["x", "w"], ["y"])], [whole]))
