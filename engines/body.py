"""Which voxels belong to the body: without the table, clothes, and the air around.

Plain functions on arrays [slice, row, column] in HU.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from engines.bits import BitMask, Indices
from engines.components import Box, LabelArray, label, sizes
from engines.images import BoolArray, VoxelArray
from engines.sharing import share

COARSE_FROM: Final = 256
"""Images of at least so many columns are labelled on every other pixel: four times faster."""
CUT_LUNG_SHARE: Final = 0.5
OCTET: Final = 8
WHOLE: Final = (slice(None), slice(None))


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
class _Plane:
    """One slice: all arrays are [row, column].

    `body` is changed in place. `between` is what has body before and behind it. `unimaged` holds
    the flat indices of voxels beside those that were not imaged; None where all were.
    """

    body: BoolArray
    between: BitMask
    voxels: VoxelArray
    valid: BoolArray
    unimaged: Indices | None


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
    tissue = _tissue(voxels, valid, rule.above)
    core, share = _largest(tissue.shrunk(*rule.thin))
    if core is None:
        core, share = _largest(tissue)
    if core is None:
        return None
    found = core.grown(rule.thin[0] + 1, rule.thin[1] + 1) & tissue
    mask = found.unpacked()
    if np.count_nonzero(mask) < rule.smallest_share * mask.size:
        return None
    cut = _fill(mask, found, voxels, valid, rule.lung_above)
    return Body(mask=mask, cut_slices=cut, left_out_share=share)


def _tissue(voxels: VoxelArray, valid: BoolArray, above: float) -> BitMask:
    tissue = BitMask.empty(voxels.shape)

    def pack(slices: slice) -> None:
        for index in range(slices.start, slices.stop):
            part = slice(index, index + 1)
            tissue.put(part, (voxels[part] > above) & valid[part])

    share(len(voxels), pack)
    return tissue


def _largest(mask: BitMask) -> tuple[BitMask | None, float]:
    """Return the largest component, and the size of the second in terms of it."""
    step = 2 if mask.columns >= COARSE_FROM else 1
    coarse, corner = _coarse(mask, step)
    labels, count = label(coarse)
    if not count:
        return None, 0.0
    best, share = 1, 0.0
    if count > 1:
        found = sizes(labels, count)
        order = np.argsort(found)
        best, share = int(order[-1]), float(found[order[-2]] / found[order[-1]])
    largest = BitMask.empty(mask.shape)
    for index, plane in enumerate(labels, corner[0]):
        _put_coarse(largest, (index, *corner[1:]), plane == best, step)
    return largest & mask, share


def _coarse(mask: BitMask, step: int) -> tuple[BoolArray, tuple[int, int, int]]:
    """Return every so many pixels of a mask, around what it holds, and where they begin in it.

    The first column is the first of eight, as bits are packed.
    """
    filled_rows, filled_columns = mask.rows_and_columns()
    slices = np.flatnonzero(filled_rows.any(axis=1))
    rows = np.flatnonzero(filled_rows.any(axis=0))
    columns = np.flatnonzero(filled_columns.any(axis=0))
    if not slices.size:
        return np.zeros((0, 0, 0), np.bool_), (0, 0, 0)
    top, left = rows[0] // step * step, columns[0] // OCTET * OCTET
    across = slice(left, columns[-1] + 1)
    planes = [
        BitMask(mask.words[index, None, top : rows[-1] + 1 : step], mask.columns).unpacked(across)
        for index in range(slices[0], slices[-1] + 1)
    ]
    return np.concatenate([plane[..., ::step] for plane in planes]), (slices[0], top, left)


def _put_coarse(mask: BitMask, corner: tuple[int, int, int], plane: BoolArray, step: int) -> None:
    """Put a plane of pixels, each as `step` rows and columns, on a slice of a mask."""
    index, top, left = corner
    wide = plane if step == 1 else (plane.astype(np.uint16) * 0x0101).view(np.bool_)
    packed = np.packbits(wide, axis=-1, bitorder="little")
    octets = mask.words[index].view(np.uint8)[top : top + step * len(plane)]
    for first in range(step):
        rows = octets[first::step, left // OCTET :][:, : packed.shape[-1]]
        rows[...] = packed[: len(rows)]


def _fill(
    mask: BoolArray, found: BitMask, voxels: VoxelArray, valid: BoolArray, lung_above: float
) -> int:
    """Fill a mask slice by slice, in place; return on how many slices it reaches the edge.

    That is the edge of the image, or of what was imaged. `found` is the mask before, packed.
    """
    rows, columns = found.rows_and_columns()
    between = np.bitwise_or.accumulate(found.words, axis=1)
    between &= np.bitwise_or.accumulate(found.words[:, ::-1], axis=1)[:, ::-1]
    cut = 0
    for index in np.flatnonzero(rows.any(axis=1)):
        plane = _Plane(
            body=mask[index],
            between=BitMask(between[index, None], found.columns),
            voxels=voxels[index],
            valid=valid[index],
            unimaged=_beside_unimaged(valid[index]),
        )
        cut += _reaches_edge(plane, rows[index], columns[index])
        box = WHOLE if plane.unimaged is not None else _around(rows[index], columns[index])
        if not _fill_plane(plane, box, lung_above):
            _fill_plane(plane, WHOLE, lung_above)
    return cut


def _beside_unimaged(valid: BoolArray) -> Indices | None:
    """Return where voxels beside those that were not imaged are; None where all were."""
    if valid.all():
        return None
    imaged = BitMask.of(valid[None])
    return ((~imaged).grown(1, 1) & imaged).indices()


def _reaches_edge(plane: _Plane, rows: BoolArray, columns: BoolArray) -> bool:
    """Say whether a body in some rows and columns touches the edge of what was imaged."""
    if rows[0] or rows[-1] or columns[0] or columns[-1]:
        return True
    return plane.unimaged is not None and bool(plane.body.reshape(-1)[plane.unimaged].any())


def _around(rows: BoolArray, columns: BoolArray) -> tuple[slice, slice]:
    """Return the box around filled rows and columns, with a pixel more on each side."""
    ends = [np.flatnonzero(filled)[[0, -1]] for filled in (rows, columns)]
    down, across = (slice(max(0, int(first) - 1), int(last) + 2) for first, last in ends)
    return down, across


def _fill_plane(plane: _Plane, box: Box, lung_above: float) -> bool:
    """Add to the body of one slice what it encloses, and lungs that the field of view cuts.

    Voxels that were not imaged belong to no body. Where all were, a box with the body and an edge
    around tells it: all air beyond hangs together with that edge. Only a lung cannot be told there;
    then nothing is changed, and False returned.
    """
    imaged = None if plane.unimaged is None else plane.valid[box]
    air = ~plane.body[box]
    if imaged is not None:
        air &= imaged
    labels, count = label(air)
    numbers = _open_numbers(labels, count, plane.unimaged)
    kept = []
    for number in numbers:
        region = labels == number
        if _lies_between(region, plane, box):
            if box != WHOLE:
                return False
            if _median_above(plane.voxels[region], lung_above):
                kept.append(number)
    is_open = np.zeros(count + 1, np.bool_)
    is_open[numbers] = True
    is_open[kept] = False
    outside = region if len(numbers) == 1 and not kept else is_open[labels]
    np.invert(outside, out=plane.body[box])
    if imaged is not None:
        plane.body[box] &= imaged
    return True


def _open_numbers(labels: LabelArray, count: int, unimaged: Indices | None) -> Indices:
    """Return the numbers of the components that touch the edge of what was imaged."""
    is_open = np.zeros(count + 1, np.bool_)
    for edge in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        is_open[edge] = True
    if unimaged is not None:
        is_open[labels.reshape(-1)[unimaged]] = True
    is_open[0] = False
    return np.flatnonzero(is_open)


def _lies_between(region: BoolArray, plane: _Plane, box: Box) -> bool:
    """Say whether air that is open to the edge of the field of view can be lung by where it is.

    Lung is denser than room air, and most of it has body both before and behind it; air under the
    back or above the chest has body on one side only.
    """
    between = plane.between.unpacked(box[1])[0, box[0]]
    size = np.count_nonzero(region)
    return bool(np.count_nonzero(between & region) / size > CUT_LUNG_SHARE)


def _median_above(values: VoxelArray, limit: float) -> bool:
    """Say whether the median is above a limit; sorts only where counting cannot tell."""
    above, half = int(np.count_nonzero(values > limit)), len(values) / 2
    return above > half if above != half else bool(np.median(values) > limit)
