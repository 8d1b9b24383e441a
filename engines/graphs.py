"""Reads what an ONNX graph takes and gives, and refuses one that is none, before a runtime sees it.

Nothing is run, and no file but the bytes at hand is read: weights that lie elsewhere are refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from engines.errors import ModelEmptyError, ModelInvalidError

if TYPE_CHECKING:
    import onnx

EXTERNAL_KEY: Final = b"\x0a\x08location\x12"
"""A StringStringEntryProto with the key "location": weights that lie in another file."""
EXTERNAL: Final = 1
"""TensorProto.DataLocation EXTERNAL."""
Shape: TypeAlias = tuple[int | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """One input: its name, its ONNX element type such as `FLOAT`, and its shape; None: any size."""

    name: str
    type: str
    shape: Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """What was read of a model; `sha256` (hex) is of its bytes."""

    sha256: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[str, ...]


def check_bytes(data: bytes) -> None:
    """Refuse a model without parsing it, for runtimes that parse it themselves.

    Raises:
        ModelEmptyError: there are no bytes.
        ModelInvalidError: it keeps weights in another file.
    """
    if not data:
        raise ModelEmptyError("the model is empty: it has no bytes")
    if EXTERNAL_KEY in data:
        raise ModelInvalidError("the model keeps weights in another file")


def parse_model(data: bytes) -> onnx.ModelProto:
    """Parse a model that holds all of its weights and computes something.

    Raises:
        ModelEmptyError: there are no bytes, or no graph that computes anything.
        ModelInvalidError: the bytes are no ONNX, or weights lie in another file.
    """
    import onnx
    from google.protobuf.message import DecodeError

    check_bytes(data)
    try:
        model: onnx.ModelProto = onnx.ModelProto.FromString(data)
    except DecodeError as error:
        raise ModelInvalidError(f"the model is no ONNX: {error}") from error
    if not model.graph.node or not model.graph.output:
        raise ModelEmptyError("the model is empty: its graph has no node or no output")
    for tensor in _tensors(model.graph):
        if tensor.data_location == EXTERNAL or tensor.external_data:
            raise ModelInvalidError("the model keeps weights in another file")
    return model


def read_graph(data: bytes) -> Graph:
    """Return what a model takes and gives; raises as `parse_model` does."""
    import onnx

    model = parse_model(data)
    weights = {tensor.name for tensor in model.graph.initializer}
    return Graph(
        sha256=hashlib.sha256(data).hexdigest(),
        inputs=tuple(
            TensorSpec(
                name=item.name,
                type=onnx.TensorProto.DataType.Name(item.type.tensor_type.elem_type),
                shape=_shape(item),
            )
            for item in model.graph.input
            if item.name not in weights
        ),
        outputs=tuple(item.name for item in model.graph.output),
    )


def graphs_in(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yield a graph and every graph within its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*attribute.graphs, attribute.g):
                if inner.node:
                    yield from graphs_in(inner)


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    for part in graphs_in(graph):
        yield from part.initializer
        for node in part.node:
            for attribute in node.attribute:
                yield attribute.t
                yield from attribute.tensors


def _shape(item: onnx.ValueInfoProto) -> Shape:
    return tuple(
        axis.dim_value if axis.HasField("dim_value") else None
        for axis in item.type.tensor_type.shape.dim
    )
