"""What tests of imported formats share: a small net, a CT series, and coded answers."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engines.base import open_engine
from engines.findings import Analysis
from engines.package import EnginePackage
from tests.factories import instance_files, make_ct_series

ANSWERS = """
name = "foreign"
version = "1.0.0"
title = "Foreign net"
intended_use = "Labels a phantom to compare with another library."
clinical_use = "Not for clinical use: a test."
task = "segmentation"
runtime = "onnxruntime"
{more}
[model]
file = "model.onnx"
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
[segmentation]
[[segmentation.segments]]
key = "dense"
value = 1
label = "Dense"
category = {{value = "91723000", scheme = "SCT", meaning = "Anatomical Structure"}}
type = {{value = "272673000", scheme = "SCT", meaning = "Bone"}}
colour = [200, 200, 200]
"""


def answers(path: Path, *, parameters: str = "", segment: str = "") -> Path:
    """Write the answers; `segment` is added to the one segment."""
    more = f"[parameters]\n{parameters}\n" if parameters else ""
    path.write_text(ANSWERS.format(more=more) + segment)
    return path


def small_net(seed: int) -> Any:  # noqa: ANN401 - torch is imported by those tests alone
    """Return a net with weights of chance: one channel in, two classes out."""
    import torch

    torch.manual_seed(seed)
    last = torch.nn.Conv3d(6, 2, 3, padding=1)
    net = torch.nn.Sequential(
        torch.nn.InstanceNorm3d(1), torch.nn.Conv3d(1, 6, 3, padding=1), torch.nn.ReLU(), last
    )
    return balanced(net, last, (20, 20, 20))


def balanced(net: Any, last: Any, size: tuple[int, int, int]) -> Any:  # noqa: ANN401 - as above
    """Shift the last layer so that either class is found about as often; return the net."""
    import torch

    with torch.no_grad():
        scores = net.eval()(torch.linspace(-1, 1, size[2]).expand(1, 1, *size))[0]
        last.get_parameter("bias")[1] += (scores[0] - scores[1]).median()
    return net


def exported(net: Any, path: Path) -> Path:  # noqa: ANN401 - as above
    """Write a net as ONNX with free sizes."""
    import torch

    path.parent.mkdir(parents=True, exist_ok=True)
    axes = {2: "x", 3: "y", 4: "z"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net, (torch.zeros(1, 1, 16, 16, 16),), path, dynamo=False, opset_version=17,
            input_names=["image"], output_names=["pred"],
            dynamic_axes={"image": axes, "pred": axes},
        )  # fmt: skip
    return path


def ct(folder: Path) -> list[Path]:
    """Write a noisy phantom of 24 slices, 60 x 52 pixels of 3.1 x 2.9 mm."""
    return make_ct_series(
        folder, slices=24, rows=60, columns=52, spacing=(4.0, 3.1, 2.9), noise=60.0,
        slice_thickness=4.0,
    )  # fmt: skip


def labelled(package: EnginePackage, files: list[Path]) -> npt.NDArray[np.bool_]:
    """Return where the engine finds its one segment, bool [slice, row, column]."""
    with open_engine(package, threads=2) as engine:
        outcome = engine.run(instance_files(files))
    assert isinstance(outcome, Analysis), outcome
    (segment,) = outcome.findings
    return segment.mask
