"""Makes a float32 ONNX graph one that computes in float16 where that is safe.

TensorRT builds what the graph says and chooses no precision by itself, so the casts are put into
the graph: nodes of `HALF` take and give float16, all others stay as they are; what the graph takes
and gives stays float32. Whether the result is near enough to the original is for the parity gate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from engines.errors import ModelInvalidError
from engines.graphs import graphs_in, parse_model

if TYPE_CHECKING:
    import onnx

RECIPE: Final = "float16 casts 1"
"""Named in the key of a plan: raise the number with every change that can change a graph."""
FLOAT: Final = 1
FLOAT16: Final = 10
LARGEST: Final = 65504.0
HALF: Final = frozenset(
    {
        "Add",
        "AveragePool",
        "Clip",
        "Concat",
        "Conv",
        "ConvTranspose",
        "Elu",
        "Flatten",
        "Gemm",
        "HardSigmoid",
        "HardSwish",
        "LeakyRelu",
        "MatMul",
        "MaxPool",
        "Mul",
        "PRelu",
        "Relu",
        "Reshape",
        "Sigmoid",
        "Slice",
        "Squeeze",
        "Sub",
        "Tanh",
        "Transpose",
        "Unsqueeze",
    }
)
"""Operators whose float16 keeps enough; sums over long axes, exponentials, norms and resampling
stay in float32."""


def in_half_precision(data: bytes) -> bytes:
    """Return the model with casts; the same bytes every time.

    Raises:
        ModelEmptyError, ModelInvalidError: the bytes are no model, its types cannot be told, or it
            has graphs within nodes.
    """
    import onnx

    model = parse_model(data)
    if sum(1 for _ in graphs_in(model.graph)) > 1:
        raise ModelInvalidError("float16: the graph has graphs within its nodes")
    try:
        typed = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    except (onnx.shape_inference.InferenceError, RuntimeError) as error:
        raise ModelInvalidError(f"float16: the types of the graph: {error}") from error
    casts = _Casts(model.graph, _float_names(typed.graph))
    nodes = casts.rewritten()
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(casts.weights)
    _drop_unused(model.graph)
    del model.graph.value_info[:]
    halved: bytes = model.SerializeToString(deterministic=True)
    return halved


def _float_names(graph: onnx.GraphProto) -> set[str]:
    values = (*graph.input, *graph.output, *graph.value_info)
    names = {item.name for item in values if item.type.tensor_type.elem_type == FLOAT}
    return names | {item.name for item in graph.initializer if item.data_type == FLOAT}


class _Casts:
    """Keeps for each tensor its float32 and its float16 form, and makes one of the other once."""

    def __init__(self, graph: onnx.GraphProto, floats: set[str]) -> None:
        self._graph = graph
        self._floats = floats
        self._constants = {item.name: item for item in graph.initializer}
        self._halves: dict[str, str] = {}
        self._only_half: set[str] = set()
        self._nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def rewritten(self) -> list[onnx.NodeProto]:
        """Return the nodes of the graph with casts between them, in order."""
        for node in self._graph.node:
            if self._fits(node):
                self._halved(node)
            else:
                self._kept(node)
        for item in self._graph.output:
            self._full(item.name)
        return self._nodes

    def _fits(self, node: onnx.NodeProto) -> bool:
        """Say whether a node is computed in float16: its weights must be within its range."""
        if node.op_type not in HALF or node.domain not in {"", "ai.onnx"}:
            return False
        if not any(name in self._floats for name in node.output):
            return False
        weights = (self._constants[name] for name in node.input if name in self._constants)
        return all(_in_range(item) for item in weights if item.data_type == FLOAT)

    def _halved(self, node: onnx.NodeProto) -> None:
        import onnx

        changed = onnx.NodeProto()
        changed.CopyFrom(node)
        for index, name in enumerate(node.input):
            if name in self._floats:
                changed.input[index] = self._half(name)
        for index, name in enumerate(node.output):
            if name in self._floats:
                self._halves[name] = changed.output[index] = f"{name}/float16"
                self._only_half.add(name)
        self._nodes.append(changed)

    def _kept(self, node: onnx.NodeProto) -> None:
        for name in node.input:
            self._full(name)
        self._nodes.append(node)

    def _half(self, name: str) -> str:
        """Return the float16 form of a tensor, made now if it is not there."""
        if name not in self._halves:
            self._halves[name] = f"{name}/float16"
            if name in self._constants:
                self.weights.append(_half_weights(self._constants[name], self._halves[name]))
            else:
                self._cast(name, self._halves[name], FLOAT16)
        return self._halves[name]

    def _full(self, name: str) -> None:
        """See to it that the float32 form of a tensor is there."""
        if name in self._only_half:
            self._only_half.remove(name)
            self._cast(self._halves[name], name, FLOAT)

    def _cast(self, source: str, target: str, to: int) -> None:
        import onnx

        name = f"{target}/cast"
        self._nodes.append(onnx.helper.make_node("Cast", [source], [target], name=name, to=to))


def _in_range(tensor: onnx.TensorProto) -> bool:
    import onnx

    values = onnx.numpy_helper.to_array(tensor)
    return not values.size or bool(np.abs(values).max() <= LARGEST)


def _half_weights(tensor: onnx.TensorProto, name: str) -> onnx.TensorProto:
    import onnx

    values = onnx.numpy_helper.to_array(tensor).astype(np.float16)
    made: onnx.TensorProto = onnx.numpy_helper.from_array(values, name)
    return made


def _drop_unused(graph: onnx.GraphProto) -> None:
    """Drop weights that only their float16 form is used of."""
    used = {name for node in graph.node for name in node.input}
    used |= {item.name for item in graph.output}
    for index in reversed(range(len(graph.initializer))):
        if graph.initializer[index].name not in used:
            del graph.initializer[index]
