"""Measurements of a region on a volume, coded and in UCUM units."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from engines.findings import Code, Measurement
from engines.images import BoolArray, Volume

VOLUME: Final = Code("118565006", "SCT", "Volume")
AREA: Final = Code("42798000", "SCT", "Area")
ATTENUATION: Final = Code("112031", "DCM", "Attenuation Coefficient")
MEAN: Final = Code("373098007", "SCT", "Mean")
MILLILITRE: Final = Code("ml", "UCUM", "milliliter")
SQUARE_CENTIMETRE: Final = Code("cm2", "UCUM", "square centimeter")
HOUNSFIELD_UNIT: Final = Code("[hnsf'U]", "UCUM", "Hounsfield unit")


def measure(volume: Volume, mask: BoolArray, slice_index: int | None) -> Iterator[Measurement]:
    """Measure one segment: volume where slices have a distance, mean HU, area on one slice."""
    voxel_ml = volume.grid.voxel_volume_ml
    if voxel_ml is not None:
        yield Measurement(
            name=VOLUME, value=int(np.count_nonzero(mask)) * voxel_ml, unit=MILLILITRE
        )
    if volume.unit == "HU":
        yield Measurement(
            name=ATTENUATION,
            value=float(np.mean(volume.voxels, dtype=np.float64, where=mask)),
            unit=HOUNSFIELD_UNIT,
            derivation=MEAN,
        )
    if slice_index is None:
        return
    _, rows, columns = volume.grid.spacing
    pixels = int(np.count_nonzero(mask[slice_index]))
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
