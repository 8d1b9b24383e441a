from __future__ import annotations

import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from engines.base import Array, Session
from engines.errors import InferenceError, ModelInvalidError, OutOfMemoryError
from engines.runtimes.onnxruntime import OnnxRuntime


def model(nodes: list[onnx.NodeProto], **initializers: onnx.TensorProto) -> bytes:
    """Return a model with one float vector `x` in and one `y` out."""
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        list(initializers.values()),
    )
    made = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    data: bytes = made.SerializeToString()
    return data


def load(data: bytes) -> Session:
    return OnnxRuntime().load(data, threads=1)


def doubled() -> bytes:
    return model([helper.make_node("Add", ["x", "x"], ["y"])])


def test_named_arrays_go_in_and_come_out() -> None:
    session = load(doubled())
    outputs = session.run({"x": np.array([1.0, 2.5], np.float32)})
    assert list(outputs) == ["y"]
    assert outputs["y"].tolist() == [2.0, 5.0]


def test_onnx_runtime_is_available_here() -> None:
    assert OnnxRuntime().is_available().available


def test_importing_the_runtime_does_not_import_the_library() -> None:
    import subprocess

    code = "import engines.runtimes.onnxruntime, sys; sys.exit('onnxruntime' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("data", [b"", b"not a model", doubled()[:-20], bytes(100)])
def test_bytes_that_are_no_model_are_refused(data: bytes) -> None:
    with pytest.raises(ModelInvalidError):
        load(data)


def test_weights_in_another_file_are_refused() -> None:
    weights = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2])
    weights.data_location = TensorProto.EXTERNAL
    weights.external_data.add(key="location", value="../../../etc/passwd")
    data = model([helper.make_node("Add", ["x", "w"], ["y"])], w=weights)
    with pytest.raises(ModelInvalidError, match="another file"):
        load(data)


@pytest.mark.parametrize("names", [[], ["y"], ["x", "z"]])
def test_inputs_of_other_names_are_refused(names: list[str]) -> None:
    with pytest.raises(ModelInvalidError, match=r"takes \['x'\]"):
        load(doubled()).run({name: np.zeros(1, np.float32) for name in names})


@pytest.mark.parametrize("value", [np.zeros(2, np.float64), np.zeros((2, 2), np.float32)])
def test_inputs_of_another_type_or_shape_are_an_inference_error(value: Array) -> None:
    with pytest.raises(InferenceError, match="ONNX Runtime"):
        load(doubled()).run({"x": value})


def test_a_lack_of_memory_is_told_apart() -> None:
    huge = helper.make_tensor("size", TensorProto.INT64, [1], [1 << 60])
    data = model(
        [helper.make_node("Expand", ["x", "size"], ["y"])],
        size=huge,
    )
    with pytest.raises(OutOfMemoryError) as caught:
        load(data).run({"x": np.zeros(1, np.float32)})
    assert caught.value.kind == "out_of_memory"


def test_a_closed_session_does_not_run() -> None:
    session = load(doubled())
    session.close()
    session.close()
    with pytest.raises(InferenceError, match="closed"):
        session.run({"x": np.zeros(1, np.float32)})
