"""Labels a volume by its recipe: one net, or two of which the first finds what to look at."""

from __future__ import annotations

import numpy as np

from engines.base import Session
from engines.images import BoolArray, FloatArray, VoxelArray
from engines.locating import locate
from engines.networks import decide, run_slabs
from engines.preprocessing import prepare
from engines.recipe import Recipe
from engines.resampling import Labels, Lattice, labels_back


def label_volume(
    voxels: VoxelArray, valid: BoolArray, source: Lattice, recipe: Recipe, session: Session
) -> tuple[Labels, FloatArray]:
    """Label voxels [slice, row, column] on their own lattice.

    Returns:
        labels uint8 of the same shape, and the mean score of each class, float64 [class].

    Raises:
        SeriesRefusedError: the first of two nets found nothing.
        ModelInvalidError, InferenceError: what the net takes or gives is not what the recipe says.
    """
    found = None
    if recipe.locate is not None:
        found = locate(voxels, valid, source, recipe.locate, session)
    image = prepare(voxels, valid, source, recipe.preprocessing, found)
    labels = np.zeros(image.values.shape, np.uint8)
    sums: FloatArray = np.zeros(0)
    for first, scores in run_slabs(image.values, recipe.inference, session):
        labels[first : first + scores.shape[1]] = decide(scores, recipe.inference)
        slab = scores.sum(axis=(1, 2, 3), dtype=np.float64)
        sums = slab + sums if sums.size else slab
    return labels_back(labels, image.lattice, source), sums / image.values.size
