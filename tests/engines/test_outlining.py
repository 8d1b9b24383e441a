from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from engines.images import BoolArray
from engines.outlining import area_of, outline_of


def test_a_square_has_four_corners() -> None:
    outline = outline_of(np.ones((2, 3), np.bool_))
    assert outline.tolist() == [[0, 0], [3, 0], [3, 2], [0, 2]]
    assert area_of(outline) == 6


def test_a_hole_has_no_outline() -> None:
    ring = np.ones((3, 3), np.bool_)
    ring[1, 1] = False
    assert area_of(outline_of(ring)) == 9


def test_nothing_has_no_outline() -> None:
    with pytest.raises(ValueError, match="is empty"):
        outline_of(np.zeros((3, 3), np.bool_))


@given(arrays(np.bool_, (9, 9), elements=st.booleans()))
def test_an_outline_holds_the_component_and_its_holes(mask: BoolArray) -> None:
    labels, count = ndimage.label(mask)
    for number in range(1, count + 1):
        component = labels == number
        outline = outline_of(component)
        closed = {
            int(ndimage.binary_fill_holes(component, structure=shape).sum())
            for shape in (None, np.ones((3, 3), np.bool_))
        }
        assert area_of(outline) in closed
        steps = np.abs(np.roll(outline, -1, axis=0) - outline)
        assert (np.minimum(steps[:, 0], steps[:, 1]) == 0).all()
