from __future__ import annotations

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import ndimage

from engines.outlining import area_of, outline_of
from node.results._contours import (
    Points,
    contours_of,
    filled_contours_of,
    mask_of,
    without_specks,
)

MASKS = arrays.arrays(
    np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.booleans()
)


def closed(contours: list[Points]) -> list[Points]:
    return [np.concatenate([contour, contour[:1]]) for contour in contours]


@given(MASKS)
def test_contours_give_the_mask_back(mask: npt.NDArray[np.bool_]) -> None:
    contours = contours_of(mask)
    assert (mask_of(closed(contours), (mask.shape[0], mask.shape[1])) == mask).all()


@given(MASKS)
def test_every_corner_is_a_turn_and_stays_on_the_image(mask: npt.NDArray[np.bool_]) -> None:
    for contour in closed(contours_of(mask)):
        steps = np.diff(contour, axis=0)
        assert (np.count_nonzero(steps, axis=1) == 1).all()
        assert ((steps[:-1] == 0) != (steps[1:] == 0)).all()
        assert contour.min() >= 0
        assert (contour.max(axis=0) <= mask.shape[::-1]).all()


def test_a_ring_has_an_outer_and_an_inner_contour() -> None:
    mask = np.zeros((7, 8), np.bool_)
    mask[1:6, 1:7] = True
    mask[3, 3:5] = False
    outer, inner = contours_of(mask)
    assert sorted(map(tuple, outer.tolist())) == [(1, 1), (1, 6), (7, 1), (7, 6)]
    assert sorted(map(tuple, inner.tolist())) == [(3, 3), (3, 4), (5, 3), (5, 4)]
    assert area_of(outer) - area_of(inner) == mask.sum()


def test_the_outer_contour_is_that_which_engines_draw() -> None:
    mask = np.zeros((6, 6), np.bool_)
    mask[1:4, 2:5] = True
    mask[4, 2] = True
    (contour,) = contours_of(mask)
    assert set(map(tuple, contour.tolist())) == set(map(tuple, outline_of(mask).tolist()))


def test_pixels_that_touch_at_a_corner_have_contours_of_their_own() -> None:
    for mask in (np.eye(2, dtype=np.bool_), np.eye(2, dtype=np.bool_)[::-1]):
        contours = contours_of(mask)
        assert [area_of(contour) for contour in contours] == [1, 1]


def test_an_empty_mask_has_none() -> None:
    assert contours_of(np.zeros((3, 4), np.bool_)) == []


@given(MASKS)
def test_contours_around_holes_give_the_mask_back(mask: npt.NDArray[np.bool_]) -> None:
    contours = filled_contours_of(mask)
    assert (mask_of(closed(contours), (mask.shape[0], mask.shape[1])) == mask).all()
    assert len(contours) == ndimage.label(mask)[1]
    assert sum(signed_area(contour) for contour in contours) == mask.sum()


def signed_area(contour: Points) -> float:
    x, y = contour[:, 0], contour[:, 1]
    return float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2


def test_specks_and_pinholes_go_and_the_largest_component_stays() -> None:
    mask = np.zeros((12, 12), np.bool_)
    mask[1:6, 1:6] = True
    mask[3, 3] = False
    mask[10, 10] = True
    cleaned = without_specks(mask, 4)
    assert cleaned[3, 3]
    assert not cleaned[10, 10]
    assert cleaned.sum() == 25
    alone = np.zeros((4, 4), np.bool_)
    alone[1, 1] = True
    assert np.array_equal(without_specks(alone, 4), alone)
    assert not without_specks(np.zeros((4, 4), np.bool_), 4).any()
    assert without_specks(np.ones((4, 4), np.bool_), 4).all()
