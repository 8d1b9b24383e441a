"""The body as it is defined: whole arrays of bytes, scipy's labels. What is tested against."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from engines.body import COARSE_FROM, CUT_LUNG_SHARE, Body, BodyRule
from engines.images import BoolArray, VoxelArray


def grown(mask: BoolArray, rows: int, columns: int) -> BoolArray:
    size = (*(1,) * (mask.ndim - 2), 2 * rows + 1, 2 * columns + 1)
    return ndimage.maximum_filter(mask.view(np.uint8), size, mode="nearest").view(np.bool_)


def shrunk(mask: BoolArray, rows: int, columns: int) -> BoolArray:
    return ~grown(~mask, rows, columns)


def label(mask: BoolArray) -> tuple[npt.NDArray[np.int32], int]:
    labels = np.empty(mask.shape, np.int32)
    return labels, ndimage.label(mask, output=labels)


def find_body_plainly(voxels: VoxelArray, valid: BoolArray, rule: BodyRule) -> Body | None:
    """Find the largest connected body; None where there is none."""
    tissue = (voxels > rule.above) & valid
    core, share = _largest(shrunk(tissue, *rule.thin))
    if core is None:
        core, share = _largest(tissue)
    if core is None:
        return None
    mask = grown(core, rule.thin[0] + 1, rule.thin[1] + 1)
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
    found = np.bincount(labels[labels > 0], minlength=count + 1)
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
    return bool(not valid.all() and (grown(~valid, 1, 1) & body).any())


def _filled(body: BoolArray, voxels: VoxelArray, valid: BoolArray, lung_above: float) -> BoolArray:
    """Add to the body of one slice what it encloses, and lungs that the field of view cuts.

    Voxels that were not imaged belong to no body.
    """
    labels, _ = label(~body & valid)
    open_air = np.zeros(labels.max() + 1, dtype=np.bool_)
    for edge in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        open_air[edge] = True
    if not valid.all():
        open_air[np.unique(labels[grown(~valid, 1, 1)])] = True
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
