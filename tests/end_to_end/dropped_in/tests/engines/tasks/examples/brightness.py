"""A net that takes the mean, and a CT series that is brighter than black."""

from __future__ import annotations

from pathlib import Path

from onnx import helper

from engines.importing import import_model
from tests.engines.nets import model
from tests.engines.tasks.example import Example
from tests.factories import make_ct_series

ANSWERS = """
name = "bright"
version = "1.0.0"
title = "Bright images"
intended_use = "Says which images are bright, to show how a task is added."
clinical_use = "Not for clinical use: a test."
task = "brightness"
runtime = "{runtime}"
[model]
file = "mean.onnx"
[golden]
inputs = "golden/inputs.npz"
expected = "golden/expected.npz"
tolerance = 0.001
[resources]
soft_deadline_seconds = 60.0
hard_deadline_seconds = 120.0
memory_mib = 2048
pixel_mib = 256
[suitability]
modalities = ["CT"]
sop_classes = ["1.2.840.10008.5.1.4.1.1.2"]
max_slices = 200
max_slice_distance = 10.0
max_pixel_size = 5.0
[brightness]
input = "x"
output = "y"
above = 1.0
concept = {{value = "BRIGHT", scheme = "99WETREAD", meaning = "Bright image"}}
measure = {{value = "MEAN", scheme = "99WETREAD", meaning = "Mean brightness"}}
"""


def write_parts(folder: Path, runtime: str) -> tuple[Path, Path]:
    """Write the model and the answers of an engine package."""
    net, answers = folder / "net.onnx", folder / "answers.toml"
    mean = helper.make_node("ReduceMean", ["x"], ["y"], axes=[1, 2, 3], keepdims=0)
    net.write_bytes(model([mean], takes=("n", 1, "h", "w"), gives=("n",)))
    answers.write_text(ANSWERS.format(runtime=runtime))
    return net, answers


def example(folder: Path) -> Example:
    package = import_model(*write_parts(folder, "onnxruntime"), folder / "package")
    return Example(package=package, files=tuple(make_ct_series(folder / "series", slices=2)))
