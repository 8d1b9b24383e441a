"""Series into volumes: pixels, geometry and source frames. Geometry is never guessed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeAlias

import numpy as np
import numpy.typing as npt

from engines.byte_range import ByteRange, open_range

FloatArray: TypeAlias = npt.NDArray[np.float64]
VoxelArray: TypeAlias = npt.NDArray[np.int16] | npt.NDArray[np.float32]
BoolArray: TypeAlias = npt.NDArray[np.bool_]
Vector: TypeAlias = tuple[float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceFile:
    """One instance of a series, as the node hands it to an engine: a DICOM file (PS3.10).

    It is the bytes [offset, offset + length) of `path`; `length` None: to the end of the file.
    """

    path: Path
    sop_instance_uid: str
    sop_class_uid: str
    offset: int = 0
    length: int | None = None

    def open(self) -> BinaryIO:
        """Open the DICOM file.

        Raises:
            OSError
        """
        return open_range(self.path, self.offset, self.length)

    def open_unbuffered(self) -> ByteRange:
        """Open the DICOM file for reads of chosen bytes.

        Raises:
            OSError
        """
        return ByteRange(self.path, self.offset, self.length)


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFrame:
    """The frame that one slice of a grid came from. `frame` counts from 1; None: single-frame."""

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    frame: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Where voxels lie in the patient. Frame: LPS, mm (PS3.3 C.7.6.2.1.1).

    Axis order of every array on the grid is [slice, row, column]. `positions` holds, for each
    slice, the centre of its first voxel (Image Position (Patient)), in ascending order along
    `normal`; slices of several phases may share one. `row_direction` points along a row, towards
    higher column indices (the first three values of Image Orientation (Patient));
    `column_direction` points down a column.
    `spacing` is (between slices, between rows, between columns); the first is None for a single
    slice. `regular` says that the slices are evenly spaced and not sheared.
    """

    shape: tuple[int, int, int]
    positions: tuple[Vector, ...]
    row_direction: Vector
    column_direction: Vector
    spacing: tuple[float | None, float, float]
    slice_thickness: float | None
    frame_of_reference_uid: str
    regular: bool

    @property
    def normal(self) -> Vector:
        """Unit vector row_direction x column_direction."""
        n = np.cross(self.row_direction, self.column_direction)
        return (float(n[0]), float(n[1]), float(n[2]))

    @property
    def voxel_volume_ml(self) -> float | None:
        """Volume of one voxel in mL, or None where the distance between slices is not known."""
        if self.spacing[0] is None:
            return None
        return self.spacing[0] * self.spacing[1] * self.spacing[2] / 1000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """A series as one block of voxels, with where each slice came from.

    `voxels` is int16 or float32 [slice, row, column] after rescaling, in `unit` ("HU" for CT, ""
    where the values have no unit). `valid` is bool of the same shape: False where the image holds
    padding (PS3.3 C.7.5.1.1.2), which is not patient. `sources` has one frame per slice. `notes`
    are sentences on what was left out of the series.
    """

    voxels: VoxelArray
    valid: BoolArray
    unit: str
    grid: Grid
    sources: tuple[SourceFrame, ...]
    notes: tuple[str, ...] = ()
