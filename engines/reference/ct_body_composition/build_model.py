"""Make model.onnx and the golden case of this package, and write their digests into engine.toml.

Run as `python -m engines.reference.ct_body_composition.build_model [FOLDER]`; needs `onnx`. The
same bytes come out every time.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from engines.base import Array, find_task, open_engine
from engines.images import VoxelArray
from engines.package import load_package

if TYPE_CHECKING:
    import onnx

HERE: Final = Path(__file__).parent
FIRST_HU: Final = (-190.0, -29.0, 151.0)
"""The lowest whole HU of fat, soft tissue and bone; below the first is air."""
AIR_NEIGHBOUR_HU: Final = -250.0
KERNEL: Final = (1.0, 2.0, 1.0)
OPSET: Final = 17
IR_VERSION: Final = 8
FILES: Final = ("golden/expected.npz", "golden/inputs.npz", "model.onnx")
EPOCH: Final = (1980, 1, 1, 0, 0, 0)


class Ellipse(NamedTuple):
    """A part of the phantom, in units of the body; later parts lie over earlier ones."""

    hu: float
    x: float
    y: float
    half_width: float
    half_depth: float


PHANTOM: Final = (
    Ellipse(hu=-100, x=0.0, y=0.0, half_width=1.0, half_depth=1.0),
    Ellipse(hu=45, x=0.0, y=0.0, half_width=0.77, half_depth=0.77),
    Ellipse(hu=-840, x=-0.38, y=0.0, half_width=0.22, half_depth=0.45),
    Ellipse(hu=-840, x=0.38, y=0.0, half_width=0.22, half_depth=0.45),
    Ellipse(hu=420, x=0.0, y=0.52, half_width=0.15, half_depth=0.15),
    Ellipse(hu=90, x=0.0, y=1.32, half_width=0.95, half_depth=0.08),  # the table
)


def build_model() -> bytes:
    """Return the model: smooth in plane without mixing in padding, round to whole HU, classify.

    Where air meets soft tissue, voxels that hold some of both have the HU of fat. So what looks
    like fat and has air for a neighbour counts as soft tissue: the skin, or the wall of a lung.

    Inputs `image` and `valid`: float32 [slice, 1, row, column]. Output `labels`: uint8 of the same
    shape, 0 padding, 1 air, 2 fat, 3 soft tissue, 4 bone.
    """
    from onnx import TensorProto, checker, helper, numpy_helper

    kernel = np.outer(KERNEL, KERNEL).astype(np.float32)[None, None]
    constants = [
        numpy_helper.from_array(kernel / kernel.sum(), "kernel"),
        numpy_helper.from_array(np.array(1e-6, np.float32), "tiny"),
        numpy_helper.from_array(np.array(1.0, np.float32), "one"),
        numpy_helper.from_array(np.array(2.0, np.float32), "fat"),
        numpy_helper.from_array(np.array(-AIR_NEIGHBOUR_HU, np.float32), "air_neighbour"),
        *(
            numpy_helper.from_array(np.array(value, np.float32), f"first_{index}")
            for index, value in enumerate(FIRST_HU)
        ),
    ]
    shape: list[str | int | None] = ["slices", 1, "rows", "columns"]
    graph = helper.make_graph(
        _nodes(),
        "ct_body_composition",
        [
            helper.make_tensor_value_info("image", TensorProto.FLOAT, shape),
            helper.make_tensor_value_info("valid", TensorProto.FLOAT, shape),
        ],
        [helper.make_tensor_value_info("labels", TensorProto.UINT8, shape)],
        constants,
    )
    model = helper.make_model(
        graph,
        producer_name="wetread",
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid("", OPSET)],
    )
    checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _nodes() -> list[onnx.NodeProto]:
    from onnx import TensorProto, helper

    def node(
        kind: str, inputs: list[str], output: str, **attributes: list[int] | int
    ) -> onnx.NodeProto:
        made = helper.make_node(kind, inputs, [output], name=output)
        made.attribute.extend(helper.make_attribute(*item) for item in sorted(attributes.items()))
        return made

    pads = [1, 1, 1, 1]
    nodes = [
        node("Mul", ["image", "valid"], "known"),
        node("Conv", ["known", "kernel"], "weighted", pads=pads),
        node("Conv", ["valid", "kernel"], "weights", pads=pads),
        node("Max", ["weights", "tiny"], "divisor"),
        node("Div", ["weighted", "divisor"], "smooth"),
        node("Round", ["smooth"], "whole"),
        node("Neg", ["known"], "thinness"),
        node("MaxPool", ["thinness"], "thinnest", kernel_shape=[3, 3], pads=pads),
        node("Greater", ["thinnest", "air_neighbour"], "beside_air"),
    ]
    sum_name = "one"
    for index in range(len(FIRST_HU)):
        nodes += [
            node("GreaterOrEqual", ["whole", f"first_{index}"], f"reaches_{index}"),
            node("Cast", [f"reaches_{index}"], f"step_{index}", to=TensorProto.FLOAT),
            node("Add", [sum_name, f"step_{index}"], f"class_{index}"),
        ]
        sum_name = f"class_{index}"
    return [
        *nodes,
        node("Equal", [sum_name, "fat"], "looks_like_fat"),
        node("And", ["looks_like_fat", "beside_air"], "mixed"),
        node("Cast", ["mixed"], "correction", to=TensorProto.FLOAT),
        node("Add", [sum_name, "correction"], "tissue"),
        node("Mul", ["tissue", "valid"], "class"),
        node("Cast", ["class"], "labels", to=TensorProto.UINT8),
    ]


def golden_inputs() -> dict[str, Array]:
    """Return a phantom: a body with all tissues and some noise, a table, and room air."""
    z, y, x = np.mgrid[0:6, 0:64, 0:80].astype(np.float64)
    x, y = (x - 39.5) / 30, (y - 28.0) / 20  # the body is the unit circle
    voxels = np.full(x.shape, -1000.0)
    for tissue in PHANTOM:
        away = ((x - tissue.x) / tissue.half_width) ** 2 + ((y - tissue.y) / tissue.half_depth) ** 2
        voxels[away < 1.0] = tissue.hu
    noise = np.random.default_rng(20240301).integers(-15, 16, voxels.shape)
    values: VoxelArray = (voxels + noise + 2 * z).astype(np.int16)
    return {"voxels": values, "spacing": np.array([5.0, 5.0, 5.0])}


def write_arrays(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write an .npz whose bytes depend on the arrays alone, not on the time of day."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(arrays):
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, arrays[name], version=(1, 0), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", EPOCH), buffer.getvalue())


def write_digests(folder: Path) -> None:
    """Write the digests of the files into `[files]`, the last table of engine.toml."""
    manifest = folder / "engine.toml"
    head, mark, _ = manifest.read_text(encoding="utf-8").partition("[files]\n")
    lines = [
        f'"{name}" = "{hashlib.sha256((folder / name).read_bytes()).hexdigest()}"\n'
        for name in FILES
    ]
    manifest.write_text(head + mark + "".join(lines), encoding="utf-8")


def build(folder: Path) -> None:
    """Make all files of the package in a folder that holds engine.toml or is still empty."""
    (folder / "golden").mkdir(parents=True, exist_ok=True)
    if not (folder / "engine.toml").exists():
        shutil.copy(HERE / "engine.toml", folder / "engine.toml")
    (folder / "model.onnx").write_bytes(build_model())
    inputs = golden_inputs()
    write_arrays(folder / "golden/inputs.npz", inputs)
    write_arrays(folder / "golden/expected.npz", {"labels": np.zeros(1, np.uint8)})
    write_digests(folder)
    package = load_package(folder)
    with open_engine(package) as engine:
        expected = find_task(package.task).compute(package, engine.session, inputs)
    write_arrays(folder / "golden/expected.npz", expected)
    write_digests(folder)


def main() -> None:
    """Build into the folder of this script, or into the one that is named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=HERE)
    build(parser.parse_args().folder)


if __name__ == "__main__":
    main()
