"""Colours of a stained slide into what each stain absorbs. Plain functions on arrays."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float32]
DARKEST: Final = 1e-6
STAINS: Final = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
"""What haematoxylin, eosin and DAB absorb of red, green and blue (Ruifrok and Johnston 2001)."""
NAMES: Final = ("haematoxylin", "eosin", "dab")


def stain_of(colours: npt.NDArray[np.uint8], name: str) -> Values:
    """Return how much of a stain lies at each pixel: float32 [row, column], 0 where none.

    Args:
        colours: RGB uint8 [row, column, sample].
        name: one of `NAMES`.
    """
    share = np.maximum(colours.astype(np.float32) / np.float32(255), np.float32(DARKEST))
    weights = np.linalg.inv(STAINS)[:, NAMES.index(name)].astype(np.float32)
    absorbed = np.log(share) / np.float32(np.log(DARKEST))
    found: Values = np.maximum(absorbed @ weights, 0)
    return found


def saturation_of(colours: npt.NDArray[np.uint8]) -> Values:
    """Return saturation float32 [row, column], 0 (grey, and bare glass) to 1."""
    most = colours.max(axis=2).astype(np.float32)
    least = colours.min(axis=2).astype(np.float32)
    found: Values = (most - least) / np.maximum(most, 1)
    return found
