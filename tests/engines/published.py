"""What tests of published models share: plain readers of series, and engines that were imported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
from pydicom import dcmread
from pydicom.dataset import Dataset

from engines.base import open_engine
from engines.findings import Analysis
from engines.images import InstanceFile
from engines.shipped_answers import import_shipped
from tests.factories import instance_files

Find = Callable[[str], Path]
Floats = npt.NDArray[np.float64]
ANSWERS = Path(__file__).parents[2] / "config" / "engines"


@dataclass(frozen=True)
class Stack:
    """A series as pydicom reads it: values [slice, row, column], index to LPS float64 [4, 4]."""

    values: Floats
    affine: Floats


def slices_in(folder: Path, *, pixels: bool = True) -> list[Dataset]:
    """Return the images of a series, ascending along their normal."""
    slices = [
        dcmread(path, stop_before_pixels=not pixels) for path in sorted(folder.rglob("*.dcm"))
    ]
    normal = np.cross(*directions(slices[0]))
    return sorted(slices, key=lambda item: float(np.dot(normal, item.ImagePositionPatient)))


def directions(image: Dataset) -> tuple[Floats, Floats]:
    """Return where rows and columns of an image point (LPS)."""
    across, down = np.reshape(image.ImageOrientationPatient, (2, 3)).astype(float)
    return across, down


def stacked(folder: Path) -> Stack:
    slices = slices_in(folder)
    across, down = directions(slices[0])
    first, last = (np.array(slices[i].ImagePositionPatient, float) for i in (0, -1))
    rows, columns = map(float, slices[0].PixelSpacing)
    affine = np.eye(4)
    affine[:3, :3] = np.stack(
        [(last - first) / (len(slices) - 1), down * rows, across * columns], axis=1
    )
    affine[:3, 3] = first
    values = np.stack(
        [
            item.pixel_array * float(item.get("RescaleSlope", 1))
            + float(item.get("RescaleIntercept", 0))
            for item in slices
        ]
    )
    return Stack(values, affine)


def session(model: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def dice(a: npt.NDArray[np.bool_], b: npt.NDArray[np.bool_]) -> float:
    return 2 * float((a & b).sum()) / float(a.sum() + b.sum())


def imported(model: Path, answers: str, tmp_path: Path, files: list[InstanceFile]) -> Analysis:
    """Run the imported engine on real DICOM; its golden case is run by `engines verify --all`."""
    package = import_shipped(ANSWERS / answers / "engine.toml", model, tmp_path / answers)
    with open_engine(package, threads=2) as engine:
        outcome = engine.run(files)
    assert isinstance(outcome, Analysis), outcome
    return outcome


def volume(outcome: Analysis, key: str) -> float:
    (segment,) = [item for item in outcome.findings if item.key == key]
    return next(m.value for m in segment.measurements if m.name.meaning == "Volume")


def mask(outcome: Analysis, key: str) -> npt.NDArray[np.bool_]:
    return next(item.mask for item in outcome.findings if item.key == key)


def files_in(folder: Path) -> list[InstanceFile]:
    return instance_files(sorted(folder.rglob("*.dcm")))
