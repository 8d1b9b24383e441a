"""Labels a volume by its recipe: one net, or two of which the first finds what to look at."""

from __future__ import annotations

import numpy as np

from engines.anisotropy import resample_apart
from engines.base import Session
from engines.images import BoolArray, FloatArray, VoxelArray
from engines.locating import locate
from engines.networks import decide, run_slabs
from engines.preprocessing import Prepared, prepare
from engines.recipe import Recipe
from engines.resampling import Labels, Lattice, Values, labels_back, resample


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
    if recipe.inference.back == "scores":
        return _by_scores(image, source, recipe, session)
    labels = np.zeros(image.values.shape, np.uint8)
    sums: FloatArray = np.zeros(0)
    for first, scores in run_slabs(image.values, recipe.inference, session):
        labels[first : first + scores.shape[1]] = decide(scores, recipe.inference)
        slab = scores.sum(axis=(1, 2, 3), dtype=np.float64)
        sums = slab + sums if sums.size else slab
    return labels_back(labels, image.lattice, source), sums / image.values.size


def _by_scores(
    image: Prepared, source: Lattice, recipe: Recipe, session: Session
) -> tuple[Labels, FloatArray]:
    """Carry scores back, one class after another, and make labels of the highest.

    All scores are held on the model's lattice, and those of two classes on the source's.
    """
    carry = resample_apart if recipe.preprocessing.apart else resample
    whole = np.concatenate(
        [scores for _, scores in run_slabs(image.values, recipe.inference, session)], axis=1
    )
    highest: Values = np.full(source.shape, -np.inf, np.float32)
    labels: Labels = np.zeros(source.shape, np.uint8)
    for value, scores in enumerate(whole):
        there = carry(scores, image.lattice, source, "linear", float("-inf"))
        better = there > highest
        highest[better] = there[better]
        labels[better] = value
    if recipe.inference.decision == "threshold":
        labels = np.where(highest > recipe.inference.threshold, labels + np.uint8(1), 0).astype(
            np.uint8
        )
    return labels, whole.mean(axis=(1, 2, 3), dtype=np.float64)
