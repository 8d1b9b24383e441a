"""dcmqi's view of a segmentation: label volumes with origin and directions (NRRD, LPS, mm)."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from engines.images import Grid

FloatArray = npt.NDArray[np.float64]

STORED: Final = {("short", "little"): "<i2", ("unsigned char", None): "u1"}
NO_BACKGROUND_ITEM: Final = re.compile(
    r"^W: Pixel (Padding Value \(0\) does not reference an existing Segment"
    r"|value 0 is not described by any Segment \(Segment Sequence\))$",
    re.MULTILINE,
)
"""SEG-10: a label map has no item for the background, as viewers would count it for a segment."""


@dataclass(frozen=True, kw_only=True)
class LabelVolume:
    """`labels` is int16 [k, j, i]; the voxel (i, j, k) lies at origin + (i, j, k) @ directions."""

    labels: npt.NDArray[np.int16]
    origin: FloatArray
    directions: FloatArray


def convert(path: Path, folder: Path) -> dict[str, FloatArray]:
    """Convert with segimage2itkimage; return voxel centres (LPS, mm) by tracking UID.

    The tool ends with status 0 after fatal errors, so its log is read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tool = Path(sys.executable).with_name("segimage2itkimage")
    command = [tool, "--inputDICOM", path, "--outputDirectory", folder, "-t", "nrrd"]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    log = NO_BACKGROUND_ITEM.sub("", done.stdout + done.stderr)
    if done.returncode or re.search(r"^(E|F|W):|ERROR|FATAL|Warning", log, re.MULTILINE):
        raise AssertionError(log)
    described = json.loads((folder / "meta.json").read_text())["segmentAttributes"]
    found: dict[str, FloatArray] = {}
    for number, group in enumerate(described, 1):
        volume = read_nrrd(folder / f"{number}.nrrd")
        for item in group:
            found[item["TrackingUniqueIdentifier"]] = centres(volume, item["labelID"])
    return found


def read_nrrd(path: Path) -> LabelVolume:
    """Read what dcmqi writes, gzip: short, little endian; bytes, where a label map has bytes."""
    head, _, body = path.read_bytes().partition(b"\n\n")
    fields = dict(re.findall(r"^([^:#\n]+): (.*)$", head.decode(), re.MULTILINE))
    stored = STORED.get((fields["type"], fields.get("endian")))
    if stored is None or (fields["space"], fields["encoding"]) != (
        "left-posterior-superior",
        "gzip",
    ):
        raise AssertionError(fields)
    sizes = [int(size) for size in fields["sizes"].split()]
    labels = np.frombuffer(gzip.decompress(body), stored).reshape(sizes[::-1])
    return LabelVolume(
        labels=labels.astype(np.int16),
        origin=np.array(_vectors(fields["space origin"])[0]),
        directions=np.array(_vectors(fields["space directions"])),
    )


def centres(volume: LabelVolume, label: int) -> FloatArray:
    """Return the centres of a label's voxels in the patient, float64 [voxel, xyz]."""
    indices = np.argwhere(volume.labels == label)[:, ::-1].astype(np.float64)
    placed: FloatArray = volume.origin + indices @ volume.directions
    return placed


def mask_centres(mask: npt.NDArray[np.bool_], grid: Grid) -> FloatArray:
    """Return the centres of a mask's voxels in the patient, float64 [voxel, xyz]."""
    index = np.argwhere(mask)
    positions = np.array(grid.positions)[index[:, 0]]
    down = index[:, 1:2] * grid.spacing[1] * np.array(grid.column_direction)
    along = index[:, 2:3] * grid.spacing[2] * np.array(grid.row_direction)
    placed: FloatArray = positions + down + along
    return placed


def same_points(one: FloatArray, other: FloatArray, tolerance: float = 0.01) -> bool:
    """Say whether two sets of points are the same, whatever their order."""
    if one.shape != other.shape:
        return False
    return bool(np.allclose(_ordered(one), _ordered(other), rtol=0, atol=tolerance))


def _ordered(points: FloatArray) -> FloatArray:
    rounded = np.round(points, 1) + 0.0
    return points[np.lexsort(rounded.T)]


def _vectors(text: str) -> list[list[float]]:
    return [[float(v) for v in part.split(",")] for part in re.findall(r"\(([^)]*)\)", text)]
