"""The first of two nets: where in the image the second one has to look."""

from __future__ import annotations

import math

import numpy as np

from engines.base import Session
from engines.components import largest_components
from engines.images import BoolArray, VoxelArray
from engines.networks import decide, run_slabs
from engines.preprocessing import Found, prepare
from engines.recipe import Locate
from engines.refusals import Reason, SeriesRefusedError
from engines.resampling import Lattice, cut, turned


def locate(
    voxels: VoxelArray, valid: BoolArray, source: Lattice, wanted: Locate, session: Session
) -> Found:
    """Run the first net on the whole of voxels [slice, row, column] and return what it found.

    Raises:
        SeriesRefusedError: it found nothing.
        ModelInvalidError, InferenceError: what the net takes or gives is not what the recipe says.
    """
    whole = wanted.preprocessing
    bare = prepare(voxels, valid, source, whole.model_copy(update={"intensity": ()}))
    image = prepare(voxels, valid, source, whole)
    mask = np.zeros(image.values.shape, np.bool_)
    net = session.part(wanted.model)
    for first, scores in run_slabs(image.values, wanted.inference, net):
        labels = decide(scores, wanted.inference)
        mask[first : first + scores.shape[1]] = labels == wanted.label
    if not mask.any():
        raise SeriesRefusedError(Reason.NO_BODY, "the first net found nothing in the images")
    field = turned(source, whole.orientation) if whole.orientation else source
    first_voxel, shape = box_of(largest_components(mask, 1), field.shape, wanted)
    return Found(box=cut(field, first_voxel, shape), seen=bare.values)


def box_of(
    mask: BoolArray, shape: tuple[int, int, int], wanted: Locate
) -> tuple[list[int], list[int]]:
    """Return first voxel and shape of a box, on a lattice of `shape` over the mask's field of view.

    Raises:
        SeriesRefusedError: too little of every plane is labelled.
    """
    first, sizes = [], []
    for axis, size in enumerate(shape):
        others = tuple(other for other in range(3) if other != axis)
        planes = np.flatnonzero(mask.mean(axis=others) > wanted.share)
        if not planes.size:
            raise SeriesRefusedError(Reason.NO_BODY, "the first net found too little in the images")
        low, high = int(planes[0]), int(planes[-1]) + 1
        scale = size / mask.shape[axis]
        more = scale * (high - low) * wanted.margin
        begin = max(0, math.floor(scale * low - more))
        end = min(size, math.ceil(scale * high + more))
        first.append(begin)
        sizes.append(end - begin)
    return first, sizes
