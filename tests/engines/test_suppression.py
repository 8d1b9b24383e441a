from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.images import FloatArray
from engines.suppression import keep_best, overlaps


def boxes_of(numbers: list[tuple[float, ...]]) -> FloatArray:
    """Return [n, 2, axes] from centres and a size."""
    centres = np.array([item[:-1] for item in numbers])
    half = np.array([item[-1:] for item in numbers]) / 2
    return np.stack([centres - half, centres + half], axis=1)


def test_overlap_is_intersection_over_union_in_two_and_three_dimensions() -> None:
    flat = boxes_of([(0, 0, 2), (1, 0, 2), (9, 9, 2)])
    assert overlaps(flat[0], flat) == pytest.approx([1.0, 1 / 3, 0.0])
    solid = boxes_of([(0, 0, 0, 2), (1, 0, 0, 2)])
    assert overlaps(solid[0], solid) == pytest.approx([1.0, 1 / 3])


def test_the_best_of_boxes_that_overlap_stays() -> None:
    boxes = boxes_of([(0, 0, 2), (0.1, 0, 2), (9, 9, 2), (9, 9.2, 2)])
    kept = keep_best(boxes, np.array([0.5, 0.9, 0.2, 0.1]), 0.5)
    assert kept.tolist() == [1, 2]


@given(
    numbers=st.lists(
        st.tuples(*[st.floats(0, 20)] * 3, st.floats(0.5, 9), st.floats(0, 1)),
        min_size=0,
        max_size=25,
    ),
    most=st.floats(0.05, 0.95),
)
def test_no_two_kept_boxes_overlap_and_every_other_overlaps_a_better(
    numbers: list[tuple[float, ...]], most: float
) -> None:
    boxes = boxes_of([item[:-1] for item in numbers]) if numbers else np.zeros((0, 2, 3))
    scores = np.array([item[-1] for item in numbers])
    kept = keep_best(boxes, scores, most)
    for place, index in enumerate(kept):
        assert (overlaps(boxes[index], boxes[kept[:place]]) <= most).all()
    for index in set(range(len(numbers))) - set(kept.tolist()):
        better = [other for other in kept if scores[other] >= scores[index]]
        assert overlaps(boxes[index], boxes[better]).max() > most
