"""Measurements of a region on a volume, coded and in UCUM units."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from engines.findings import Code, Measurement
from engines.images import BoolArray, FloatArray, Volume, VoxelArray

VOLUME: Final = Code("118565006", "SCT", "Volume")
AREA: Final = Code("42798000", "SCT", "Area")
ATTENUATION: Final = Code("112031", "DCM", "Attenuation Coefficient")
MEAN: Final = Code("373098007", "SCT", "Mean")
MILLILITRE: Final = Code("ml", "UCUM", "milliliter")
SQUARE_CENTIMETRE: Final = Code("cm2", "UCUM", "square centimeter")
HOUNSFIELD_UNIT: Final = Code("[hnsf'U]", "UCUM", "Hounsfield unit")


CLASSES: Final = 256
MOST_KINDS: Final = 1 << 18
"""Pairs of a label and a value that voxels are counted by; where there are more, they are added."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What bears one label: how many voxels, on each slice too, and the sum of their values."""

    by_slice: npt.NDArray[np.int64]
    total: float

    @property
    def voxels(self) -> int:
        """How many voxels bear the label."""
        return int(self.by_slice.sum())

    @property
    def mean(self) -> float:
        """The mean of their values; 0 where there is none."""
        return self.total / self.voxels if self.voxels else 0.0


def tally(voxels: VoxelArray, labels: npt.NDArray[np.uint8]) -> tuple[Tally, ...]:
    """Count and add up what bears each label, all labels in one look at the volume.

    Args:
        voxels: int16 or float32 [slice, row, column].
        labels: of the same shape.

    Returns:
        One for each label from 0 to 255. That of 0 is no more than what the others leave near them.
    """
    counts = np.zeros((CLASSES, len(labels)), np.int64)
    totals = np.zeros(CLASSES, np.float64)
    for index, plane in enumerate(labels):
        rows = np.flatnonzero(plane.any(axis=1))
        if not rows.size:
            continue
        columns = np.flatnonzero(plane.any(axis=0))
        box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        count, total = _counted(voxels[index][box], plane[box])
        counts[: len(count), index] = count
        totals[: len(total)] += total
    return tuple(Tally(by_slice=counts[n], total=float(totals[n])) for n in range(CLASSES))


def _counted(
    voxels: VoxelArray, labels: npt.NDArray[np.uint8]
) -> tuple[npt.NDArray[np.int64], FloatArray]:
    """Count and add up by label, from 0 to the largest that is there."""
    classes = int(labels.max()) + 1
    low = voxels.min()
    span = int(voxels.max()) - int(low) + 1 if voxels.dtype == np.int16 else MOST_KINDS + 1
    kinds = classes * span
    if kinds > MOST_KINDS:
        flat = labels.reshape(-1)
        added = np.bincount(flat, weights=voxels.reshape(-1)).astype(np.float64)
        return np.bincount(flat).astype(np.int64), added
    both = np.multiply(labels, span, dtype=np.uint16 if kinds <= 1 << 16 else np.uint32)
    np.add(both, (voxels - low).view(np.uint16), out=both)
    table = np.bincount(both.reshape(-1), minlength=kinds).reshape(classes, span)
    return table.sum(axis=1), (table @ np.arange(int(low), int(low) + span)).astype(np.float64)


def measure(volume: Volume, found: Tally, slice_index: int | None) -> Iterator[Measurement]:
    """Measure one segment: volume where slices have a distance, mean HU, area on one slice."""
    voxel_ml = volume.grid.voxel_volume_ml
    if voxel_ml is not None:
        yield Measurement(name=VOLUME, value=found.voxels * voxel_ml, unit=MILLILITRE)
    if volume.unit == "HU":
        yield Measurement(name=ATTENUATION, value=found.mean, unit=HOUNSFIELD_UNIT, derivation=MEAN)
    if slice_index is None:
        return
    _, rows, columns = volume.grid.spacing
    pixels = int(found.by_slice[slice_index])
    if pixels:
        yield Measurement(
            name=AREA,
            value=pixels * rows * columns / 100.0,
            unit=SQUARE_CENTIMETRE,
            slice_index=slice_index,
        )


def dice(one: BoolArray, other: BoolArray) -> float:
    """Return how far two regions of the same shape overlap: 1 the same, 0 apart; 1 for none."""
    both = int(np.count_nonzero(one)) + int(np.count_nonzero(other))
    return 2 * int(np.count_nonzero(one & other)) / both if both else 1.0
