"""The nets of the benchmark in PyTorch, made of their ONNX: for comparison only, never to serve.

PyTorch opens no file here: the graph and the weights are read from ONNX.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

import onnx
import torch
from onnx import numpy_helper
from torch.nn import functional

Tensor: TypeAlias = torch.Tensor
Attributes: TypeAlias = Mapping[str, Any]
Operator: TypeAlias = Callable[..., Tensor]


class TorchNet(torch.nn.Module):
    """An ONNX graph whose nodes are run one after the other."""

    def __init__(self, model: bytes) -> None:
        super().__init__()
        graph = onnx.ModelProto.FromString(model).graph
        weights = {item.name: item for item in graph.initializer}
        for node in graph.node:
            if node.op_type == "Constant":
                weights[node.output[0]] = node.attribute[0].t
        for index, item in enumerate(weights.values()):
            self.register_buffer(f"w{index}", torch.tensor(numpy_helper.to_array(item)))
        self.names = {name: f"w{index}" for index, name in enumerate(weights)}
        self.takes = next(item.name for item in graph.input if item.name not in weights)
        self.gives = graph.output[0].name
        self.steps = [
            (OPERATORS[node.op_type], inputs_of(node), node.output[0], attributes(node))
            for node in needed(graph)
        ]

    def forward(self, value: Tensor) -> Tensor:
        """Run the graph."""
        values = {name: getattr(self, place) for name, place in self.names.items()}
        values[self.takes] = value
        for operator, inputs, output, how in self.steps:
            given = [values[name] if name else None for name in inputs]
            values[output] = operator(how, *given)
        found: Tensor = values[self.gives]
        return found


def inputs_of(node: onnx.NodeProto) -> list[str]:
    """Return what a node is given; a Reshape is made of these nets only to flatten images."""
    return list(node.input[:1] if node.op_type == "Reshape" else node.input)


def needed(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Return the nodes that the output hangs on, in order: the sums of shapes fall away."""
    wanted, found = {graph.output[0].name}, []
    for node in reversed(graph.node):
        if node.output[0] in wanted and node.op_type != "Constant":
            wanted |= set(inputs_of(node))
            found.append(node)
    return found[::-1]


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """Return the attributes of a node as plain values."""
    return {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}


def convolution(how: Attributes, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Convolve in two or three dimensions, padded alike on both sides."""
    axes = x.dim() - 2
    run = functional.conv3d if axes == 3 else functional.conv2d  # noqa: PLR2004 - dimensions
    return run(
        x,
        weight,
        bias,
        how.get("strides", [1] * axes),
        list(how.get("pads", [0] * axes))[:axes],
        how.get("dilations", [1] * axes),
        how.get("group", 1),
    )


def transposed(how: Attributes, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Convolve upwards in two dimensions."""
    return functional.conv_transpose2d(x, weight, bias, how["strides"])


def linear(how: Attributes, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Multiply and add."""
    return functional.linear(x, weight if how.get("transB") else weight.T, bias)


def normalised(how: Attributes, x: Tensor, scale: Tensor, bias: Tensor, *stats: Tensor) -> Tensor:
    """Normalise by what training saw."""
    mean, variance = stats
    return functional.batch_norm(x, mean, variance, scale, bias, eps=how["epsilon"])


OPERATORS: Final[Mapping[str, Operator]] = {
    "Add": lambda _, a, b: a + b,
    "AveragePool": lambda how, x: functional.avg_pool2d(x, how["kernel_shape"], how["strides"]),
    "BatchNormalization": normalised,
    "Clip": lambda _, x, low, high: x.clamp(low, high),
    "Concat": lambda how, *parts: torch.cat(parts, how["axis"]),
    "Conv": convolution,
    "ConvTranspose": transposed,
    "Div": lambda _, a, b: a / b,
    "Elu": lambda how, x: functional.elu(x, how.get("alpha", 1.0)),
    "Erf": lambda _, x: torch.erf(x),
    "Gemm": linear,
    "GlobalAveragePool": lambda _, x: x.mean((2, 3), keepdim=True),
    "InstanceNormalization": lambda how, x, scale, bias: functional.instance_norm(
        x, weight=scale, bias=bias, eps=how["epsilon"]
    ),
    "MaxPool": lambda how, x: functional.max_pool2d(x, how["kernel_shape"], how["strides"]),
    "Mul": lambda _, a, b: a * b,
    "Relu": lambda _, x: functional.relu(x),
    "Reshape": lambda _, x: x.flatten(1),
    "Sigmoid": lambda _, x: torch.sigmoid(x),
}
