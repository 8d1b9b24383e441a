from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.windows import Shape, Values, blended, gaussian_weights, mirrored, starts


def pointwise(values: Values) -> Values:
    """Score every voxel by itself, in two classes."""
    return np.stack([values, -2 * values])


def whole(slabs: Callable[[], list[tuple[int, Values]]], depth: int) -> Values:
    found = slabs()
    places = [first for first, _ in found]
    assert places == list(np.cumsum([0, *(part.shape[1] for _, part in found)])[:-1])
    joined = np.concatenate([part for _, part in found], axis=1)
    assert joined.shape[1] == depth
    return joined


@given(size=st.integers(1, 300), share=st.floats(0.01, 1), overlap=st.floats(0, 0.9))
def test_windows_cover_an_axis_from_end_to_end(size: int, share: float, overlap: float) -> None:
    window = max(1, int(size * share))
    found = starts(size, window, overlap)
    assert found[0] == 0
    assert found[-1] == size - window
    steps = np.diff(found)
    assert (steps >= 0).all()
    assert (steps <= max(1, round(window * (1 - overlap) + 0.5))).all(), "no gap, enough overlap"


@settings(deadline=None, max_examples=60)
@given(
    shape=st.tuples(*[st.integers(4, 14)] * 3),
    window=st.tuples(*[st.integers(1, 4)] * 3),
    overlap=st.sampled_from([0.0, 0.25, 0.5, 0.75]),
    seed=st.integers(0, 99),
)
def test_what_is_said_voxel_by_voxel_is_the_same_through_windows(
    shape: Shape, window: Shape, overlap: float, seed: int
) -> None:
    values = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    weights = gaussian_weights(window)
    found = whole(lambda: list(blended(values, window, overlap, weights, pointwise)), shape[0])
    np.testing.assert_allclose(found, pointwise(values), rtol=1e-4, atol=1e-5)


def test_blending_is_the_weighted_mean_that_a_plain_loop_gives() -> None:
    values = np.random.default_rng(1).normal(size=(9, 7, 8)).astype(np.float32)
    window = (4, 3, 5)
    weights = gaussian_weights(window)

    def tilted(part: Values) -> Values:
        ramp = np.arange(part.size, dtype=np.float32).reshape(part.shape) / part.size
        tilted_part: Values = np.add(part, ramp, dtype=np.float32)[None]
        return tilted_part

    total, norm = np.zeros(values.shape), np.zeros(values.shape)
    for a in starts(9, 4, 0.5):
        for b in starts(7, 3, 0.5):
            for c in starts(8, 5, 0.5):
                box = (slice(a, a + 4), slice(b, b + 3), slice(c, c + 5))
                total[box] += tilted(values[box])[0] * weights
                norm[box] += weights
    found = whole(lambda: list(blended(values, window, 0.5, weights, tilted)), 9)
    np.testing.assert_allclose(found[0], total / norm, rtol=1e-5)


def test_scores_held_are_bounded_by_one_windows_depth() -> None:
    values = np.zeros((64, 8, 8), np.float32)
    slabs = blended(values, (8, 8, 8), 0.5, gaussian_weights((8, 8, 8)), pointwise)
    assert max(part.shape[1] for _, part in slabs) <= 8


def test_gaussian_weights_are_highest_in_the_middle_and_never_zero() -> None:
    weights = gaussian_weights((32, 48, 16))
    assert weights.max() == 1.0
    assert weights.min() >= 1e-3
    assert weights[16, 24, 8] > weights[2, 24, 8] > weights[0, 0, 0] - 1e-9
    np.testing.assert_allclose(weights, weights[::-1, ::-1, ::-1])


@pytest.mark.parametrize("axes", [(), (0,), (0, 1, 2)])
def test_mirroring_averages_over_every_way_to_flip(axes: tuple[int, ...]) -> None:
    seen: list[Values] = []

    def first_plane(values: Values) -> Values:
        seen.append(values)
        out = np.zeros_like(values)
        out[0] = 1
        return out[None]

    found = mirrored(first_plane, axes)(np.zeros((4, 3, 2), np.float32))
    assert len(seen) == 2 ** len(axes)
    assert found[0, 0].max() == (0.5 if axes else 1.0)
    assert found[0, -1].max() == (0.5 if axes else 0.0)
