"""Engine packages that tests make from the shipped one: renamed, or with a model that hangs."""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from engines.package import find_packages, load_package, shipped_folder

FOR_EVER = 1 << 60


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


def make_it_hang(package: Path, *, above: float) -> None:
    """Rewrite the model: it loops for ever on input with a value above a limit, else as before.

    The golden case stays below the limit, so the engine becomes active all the same.
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
            helper.make_tensor("hang_limit", TensorProto.FLOAT, [], [above]),
            helper.make_tensor("hang_steps", TensorProto.INT64, [], [FOR_EVER]),
            helper.make_tensor("hang_true", TensorProto.BOOL, [], [True]),
            helper.make_tensor("hang_zero", TensorProto.FLOAT, [], [0.0]),
        ]
    )
    graph.node.extend(
        [
            helper.make_node("Cast", [source], ["hang_input"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMax", ["hang_input"], ["hang_max"], keepdims=0),
            helper.make_node("Greater", ["hang_max", "hang_limit"], ["hang_now"]),
            helper.make_node("Cast", ["hang_now"], ["hang_factor"], to=TensorProto.INT64),
            helper.make_node("Mul", ["hang_factor", "hang_steps"], ["hang_count"]),
            helper.make_node(
                "Loop", ["hang_count", "hang_true", "hang_zero"], ["hang_done"], body=_going_on()
            ),
            helper.make_node("Cast", ["hang_done"], ["hang_none"], to=output_type),
            helper.make_node("Add", ["kept", "hang_none"], [result]),
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
