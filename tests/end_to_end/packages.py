"""Engine packages that tests make from the shipped one: renamed, hanging or greedy."""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from engines.package import find_packages, load_package, shipped_folder

FOR_EVER = 1 << 60
MORE_THAN_THERE_IS = 1 << 44


def shipped_package(name: str) -> Path:
    """Return the folder of a shipped engine."""
    for folder in find_packages([shipped_folder()]):
        if load_package(folder).name == name:
            return folder
    raise AssertionError(f"{name} does not ship")


def copy_package(target: Path, *, name: str, hard_deadline_seconds: float = 120.0) -> Path:
    """Copy ct-body-composition under another name; nothing else knows of it."""
    shutil.copytree(shipped_package("ct-body-composition"), target)
    manifest = target / "engine.toml"
    text = manifest.read_text()
    text = re.sub(r'(?m)^name = ".*"', f'name = "{name}"', text, count=1)
    text = re.sub(
        r"(?m)^soft_deadline_seconds = .*",
        f"soft_deadline_seconds = {hard_deadline_seconds / 2}",
        text,
    )
    text = re.sub(
        r"(?m)^hard_deadline_seconds = .*", f"hard_deadline_seconds = {hard_deadline_seconds}", text
    )
    manifest.write_text(text)
    return target


def make_it_hang(package: Path, *, above: float, steps: int = FOR_EVER) -> None:
    """Rewrite the model: it loops so often on input with a value above a limit, else as before.

    The golden case stays below the limit, so the engine becomes active all the same.
    """
    loop = helper.make_node(
        "Loop", ["test_much", "test_true", "test_zero"], ["test_done"], body=_going_on()
    )
    _change_model(package, above, steps, [loop])


def make_it_greedy(package: Path, *, above: float) -> None:
    """Rewrite the model: on such input it asks for more memory than any machine has."""
    shape = helper.make_node("Reshape", ["test_much", "test_one"], ["test_shape"])
    array = helper.make_node("ConstantOfShape", ["test_shape"], ["test_array"])
    done = helper.make_node("ReduceSum", ["test_array"], ["test_done"], keepdims=0)
    _change_model(package, above, MORE_THAN_THERE_IS, [shape, array, done])


def _change_model(package: Path, above: float, amount: int, nodes: list[onnx.NodeProto]) -> None:
    """Add nodes that make the float `done`, which is 0, of the integer `much`.

    That is `amount` where the input has a value above the limit, and else 0.
    """
    (path,) = package.glob("*.onnx")
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    model = onnx.load(path)
    graph = model.graph
    source, result = graph.input[0].name, graph.output[0].name
    for node in graph.node:
        node.output[:] = ["kept" if name == result else name for name in node.output]
    output_type = graph.output[0].type.tensor_type.elem_type
    graph.initializer.extend(
        [
            helper.make_tensor("test_limit", TensorProto.FLOAT, [], [above]),
            helper.make_tensor("test_amount", TensorProto.INT64, [], [amount]),
            helper.make_tensor("test_true", TensorProto.BOOL, [], [True]),
            helper.make_tensor("test_zero", TensorProto.FLOAT, [], [0.0]),
            helper.make_tensor("test_one", TensorProto.INT64, [1], [1]),
        ]
    )
    graph.node.extend(
        [
            helper.make_node("Cast", [source], ["test_as_float"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMax", ["test_as_float"], ["test_highest"], keepdims=0),
            helper.make_node("Greater", ["test_highest", "test_limit"], ["test_now"]),
            helper.make_node("Cast", ["test_now"], ["test_factor"], to=TensorProto.INT64),
            helper.make_node("Mul", ["test_factor", "test_amount"], ["test_much"]),
            *nodes,
            helper.make_node("Cast", ["test_done"], ["test_nothing"], to=output_type),
            helper.make_node("Add", ["kept", "test_nothing"], [result]),
        ]
    )
    onnx.checker.check_model(model)
    onnx.save(model, path)
    after = hashlib.sha256(path.read_bytes()).hexdigest()
    manifest = package / "engine.toml"
    manifest.write_text(manifest.read_text().replace(before, after))


def _going_on() -> onnx.GraphProto:
    """Return a loop body that changes nothing and goes on."""
    return helper.make_graph(
        [
            helper.make_node("Identity", ["going"], ["going_on"]),
            helper.make_node("Identity", ["carried"], ["carried_on"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("step", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("carried", TensorProto.FLOAT, []),
        ],
        [
            helper.make_tensor_value_info("going_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("carried_on", TensorProto.FLOAT, []),
        ],
    )
