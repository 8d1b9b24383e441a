"""Which voxels belong to the body: without the table, clothes, and the air around.

Plain functions on arrays [slice, row, column] in HU.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from engines.components import border, dilate, erode, label, sizes
from engines.images import BoolArray, VoxelArray

COARSE_FROM: Final = 256
"""Images of at least so many columns are labelled on every other pixel: four times faster."""
CUT_LUNG_SHARE: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyRule:
    """How the body is found.

    `above` is the HU above which a voxel is tissue; `thin` (rows, columns) is half the thickness
    in pixels of what is cut off the body (table tops, sheets, tubes); `lung_above` is the median
    HU above which air that is open to the edge of the field of view can be lung, not room air;
    `smallest_share` is the least share of the image that a body takes up.
    """

    above: float
    thin: tuple[int, int]
    lung_above: float
    smallest_share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """Where the body is.

    `mask` is bool [slice, row, column], with lungs and gas inside. `cut_slices` counts the slices
    on which the body reaches the edge of the field of view; `left_out_share` is the size of the
    largest part that does not hang together with the body, as a share of the body.
    """

    mask: BoolArray
    cut_slices: int
    left_out_share: float


def find_body(voxels: VoxelArray, valid: BoolArray, rule: BodyRule) -> Body | None:
    """Find the largest connected body; None where there is none."""
    tissue = (voxels > rule.above) & valid
    core, share = _largest(erode(tissue, *rule.thin))
    if core is None:
        core, share = _largest(tissue)
    if core is None:
        return None
    mask = dilate(core, rule.thin[0] + 1, rule.thin[1] + 1)
    del core
    mask &= tissue
    del tissue
    if mask.sum() < rule.smallest_share * mask.size:
        return None
    cut = 0
    for index in range(len(mask)):
        cut += _reaches_edge(mask[index], valid[index])
        mask[index] = _filled(mask[index], voxels[index], valid[index], rule.lung_above)
    return Body(mask=mask, cut_slices=cut, left_out_share=share)


def _largest(mask: BoolArray) -> tuple[BoolArray | None, float]:
    """Return the largest component, and the size of the second in terms of it."""
    step = 2 if mask.shape[-1] >= COARSE_FROM else 1
    labels, count = label(mask[:, ::step, ::step])
    if not count:
        return None, 0.0
    found = sizes(labels, count)
    order = np.argsort(found)
    share = float(found[order[-2]] / found[order[-1]]) if count > 1 else 0.0
    largest = labels == order[-1]
    if step > 1:
        _, rows, columns = mask.shape
        largest = largest.repeat(step, axis=1)[:, :rows].repeat(step, axis=2)[:, :, :columns]
    return largest & mask, share


def _reaches_edge(body: BoolArray, valid: BoolArray) -> bool:
    """Say whether the body on one slice touches the edge of the image or of what was imaged."""
    if body[0].any() or body[-1].any() or body[:, 0].any() or body[:, -1].any():
        return True
    return bool(not valid.all() and (dilate(~valid, 1, 1) & body).any())


def _filled(body: BoolArray, voxels: VoxelArray, valid: BoolArray, lung_above: float) -> BoolArray:
    """Add to the body of one slice what it encloses, and lungs that the field of view cuts.

    Voxels that were not imaged belong to no body.
    """
    labels, _ = label(~body & valid)
    open_air = np.zeros(labels.max() + 1, dtype=np.bool_)
    open_air[border(labels)] = True
    if not valid.all():
        open_air[np.unique(labels[dilate(~valid, 1, 1)])] = True
    open_air[0] = False
    for number in np.flatnonzero(open_air):
        open_air[number] = not _is_cut_lung(labels == number, body, voxels, lung_above)
    return valid & ~open_air[labels]


def _is_cut_lung(region: BoolArray, body: BoolArray, voxels: VoxelArray, lung_above: float) -> bool:
    """Say whether air that is open to the edge of the field of view is lung.

    Lung is denser than room air, and most of it has body both before and behind it; air under the
    back or above the chest has body on one side only.
    """
    if not _median_above(voxels[region], lung_above):
        return False
    before = np.logical_or.accumulate(body, axis=0)
    behind = np.logical_or.accumulate(body[::-1], axis=0)[::-1]
    return bool((before & behind)[region].mean() > CUT_LUNG_SHARE)


def _median_above(values: VoxelArray, limit: float) -> bool:
    """Say whether the median is above a limit; sorts only where counting cannot tell."""
    above, half = int(np.count_nonzero(values > limit)), len(values) / 2
    return above > half if above != half else bool(np.median(values) > limit)
