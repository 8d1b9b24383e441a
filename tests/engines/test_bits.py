from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from engines.bits import BitMask
from engines.images import BoolArray
from tests.engines.plain_body import grown, shrunk

SIDES = st.tuples(
    st.integers(1, 4), st.integers(1, 12), st.sampled_from([1, 7, 8, 63, 64, 65, 140])
)
MASKS = arrays(np.bool_, SIDES) | st.builds(
    lambda shape, seed, share: np.random.default_rng(seed).random(shape) < share,
    SIDES,
    st.integers(0, 2**32),
    st.sampled_from([0.01, 0.5, 0.99]),
)


@given(mask=MASKS)
def test_a_mask_comes_back_as_it_was_packed(mask: BoolArray) -> None:
    bits = BitMask.of(mask)
    assert bits.shape == mask.shape
    assert np.array_equal(bits.unpacked(), mask)
    assert np.array_equal((~bits).unpacked(), ~mask)
    assert np.array_equal((~~bits).words, bits.words)
    assert np.array_equal(bits.indices(), np.flatnonzero(mask))
    rows, columns = bits.rows_and_columns()
    assert np.array_equal(rows, mask.any(axis=2))
    assert np.array_equal(columns, mask.any(axis=1))


@given(mask=MASKS, first=st.integers(0, 150), last=st.integers(0, 150))
def test_some_columns_can_be_unpacked(mask: BoolArray, first: int, last: int) -> None:
    across = slice(*sorted((first, last)))
    assert np.array_equal(BitMask.of(mask).unpacked(across), mask[..., across])


@given(mask=MASKS, at=st.integers(0, 3))
def test_slices_are_put_where_they_belong(mask: BoolArray, at: int) -> None:
    bits = BitMask.of(np.ones(mask.shape, np.bool_))
    part = slice(at, at + 2)
    bits.put(part, mask[part])
    expected = np.ones(mask.shape, np.bool_)
    expected[part] = mask[part]
    assert np.array_equal(bits.unpacked(), expected)


@settings(deadline=None)
@given(
    mask=MASKS, rows=st.integers(0, 14), columns=st.sampled_from([0, 1, 2, 8, 9, 62, 63, 64, 130])
)
def test_growing_and_shrinking_are_those_of_a_filter_with_the_edges_repeated(
    mask: BoolArray, rows: int, columns: int
) -> None:
    bits = BitMask.of(mask)
    assert np.array_equal(bits.grown(rows, columns).unpacked(), grown(mask, rows, columns))
    assert np.array_equal(bits.shrunk(rows, columns).unpacked(), shrunk(mask, rows, columns))
    assert np.array_equal(bits.unpacked(), mask)
