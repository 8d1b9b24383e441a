from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from engines.components import (
    bounding_box,
    box_of,
    filled,
    label,
    largest_components,
    sizes,
    small_components,
)
from engines.images import BoolArray

MASKS = arrays(np.bool_, st.tuples(*(st.integers(1, 9) for _ in range(3))))


@given(mask=MASKS | arrays(np.bool_, st.tuples(st.integers(0, 12), st.integers(1, 12))))
def test_components_are_numbered_as_their_first_voxels_lie(mask: BoolArray) -> None:
    labels, count = label(mask)
    plain = np.empty(mask.shape, np.int32)
    assert count == ndimage.label(mask, output=plain)
    assert np.array_equal(labels, plain)
    assert np.array_equal(label(mask[..., ::-1])[0], ndimage.label(mask[..., ::-1])[0])


@given(mask=MASKS, smallest=st.integers(1, 9))
def test_small_components_are_those_below_the_size(mask: BoolArray, smallest: int) -> None:
    labels, count = label(mask)
    kept = [n for n in range(1, count + 1) if sizes(labels, count)[n] < smallest]
    assert np.array_equal(small_components(mask, smallest), np.isin(labels, kept))


def test_the_bounding_box_holds_the_mask_and_no_empty_plane_at_its_sides() -> None:
    mask = np.zeros((6, 7, 8), dtype=np.bool_)
    mask[2, 3:5, 6] = True
    mask[4, 3, 1] = True
    assert bounding_box(mask) == (slice(2, 5), slice(3, 5), slice(1, 7))
    assert bounding_box(mask[4]) == (slice(3, 4), slice(1, 2))


@given(mask=MASKS)
def test_the_box_of_a_label_is_that_of_its_mask(mask: BoolArray) -> None:
    labels = np.where(mask, 3, 2).astype(np.uint8)
    assert box_of(labels, 3) == (bounding_box(mask) if mask.any() else None)
    assert box_of(labels, 7) is None


def test_the_largest_components_stay_and_holes_are_filled() -> None:
    mask = np.zeros((3, 12, 12), np.bool_)
    mask[0:3, 0:5, 0:5] = True
    mask[1, 2, 2] = False
    mask[0, 8:11, 8:11] = True
    mask[2, 11, 0] = True
    kept = largest_components(mask, 2)
    assert kept.sum() == 74 + 9
    assert not kept[2, 11, 0]
    assert largest_components(mask, 9).sum() == mask.sum()
    assert filled(kept)[1, 2, 2]
    assert filled(kept).sum() == kept.sum() + 1
    assert not largest_components(np.zeros((2, 2, 2), np.bool_), 1).any()
