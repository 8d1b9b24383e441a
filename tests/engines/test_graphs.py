from __future__ import annotations

import hashlib

import onnx
import pytest
from onnx import TensorProto, helper

from engines.errors import ModelEmptyError, ModelInvalidError
from engines.graphs import TensorSpec, graphs_in, parse_model, read_graph
from tests.engines.nets import doubled, loop, model, small_net


def test_inputs_are_read_with_type_and_shape_and_weights_are_none_of_them() -> None:
    graph = read_graph(small_net())
    assert graph.inputs == (TensorSpec(name="x", type="FLOAT", shape=(None, 1, 8, 8)),)
    assert graph.outputs == ("y",)
    assert graph.sha256 == hashlib.sha256(small_net()).hexdigest()


@pytest.mark.parametrize("data", [b"", onnx.ModelProto().SerializeToString(), model([])])
def test_a_model_that_computes_nothing_is_empty(data: bytes) -> None:
    with pytest.raises(ModelEmptyError, match="the model is empty"):
        read_graph(data)


@pytest.mark.parametrize("data", [b"not a model", doubled()[:-5], bytes(100)])
def test_bytes_that_are_no_model_are_refused(data: bytes) -> None:
    with pytest.raises(ModelInvalidError):
        read_graph(data)


def test_weights_in_another_file_are_refused_wherever_they_stand() -> None:
    weights = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2])
    weights.data_location = TensorProto.EXTERNAL
    weights.external_data.add(key="location", value="../secret")
    constant = helper.make_node("Constant", [], ["w"], value=weights)
    add = helper.make_node("Add", ["x", "w"], ["y"])
    for data in (model([add], [weights]), model([constant, add])):
        with pytest.raises(ModelInvalidError, match="another file"):
            read_graph(data)


def test_graphs_within_nodes_are_found() -> None:
    assert len(list(graphs_in(parse_model(loop()).graph))) == 3
    assert len(list(graphs_in(parse_model(doubled()).graph))) == 1


def test_a_shape_may_be_open_in_part() -> None:
    data = model([helper.make_node("Relu", ["x"], ["y"])], takes=[1, "rows", 4])
    assert read_graph(data).inputs[0].shape == (1, None, 4)
