"""What golden cases are made of where an import has no images: shells of values, in noise.

The same every time, to the last bit.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from engines.sessions import Array

HEAD_SHAPE: Final = (12, 48, 48)
SPACING: Final = (7.0, 2.4, 2.4)
"""In mm. It fills more than a twentieth of a cube of 256 mm, which many heads are conformed to: of
less the 95th percentile would be nothing, and a net that scales by it would see no phantom."""
PICTURE_SHAPE: Final = (1, 256, 224)
SHELLS: Final = ((0.95, 900.0), (0.85, 120.0), (0.75, 700.0), (0.45, 420.0))
"""Radius, as a share of half the field of view, and value; the inner ones lie over the outer."""


def head() -> dict[str, Array]:
    """Return a head of sorts: `voxels` int16 [slice, row, column], `spacing` of those in mm."""
    return _phantom(HEAD_SHAPE, 1.0)


def picture() -> dict[str, Array]:
    """Return `voxels` int16 [image, row, column] of 0 to 255, one image; `spacing` as of a head.

    The image lies at the rim of the shells, so it is noise alone.
    """
    return _phantom(PICTURE_SHAPE, 0.25)


def _phantom(shape: tuple[int, ...], scale: float) -> dict[str, Array]:
    places = np.meshgrid(*[np.linspace(-1, 1, size) for size in shape], indexing="ij")
    away = np.sqrt(sum(place**2 for place in places))
    values = np.zeros(shape)
    for radius, value in SHELLS:
        values[away < radius] = value
    noise = np.random.default_rng(20240301).integers(0, 25, shape)
    return {"voxels": ((values + noise) * scale).astype(np.int16), "spacing": np.array(SPACING)}
