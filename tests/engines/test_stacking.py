from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.images import FloatArray
from engines.refusals import Reason, SeriesRefusedError
from engines.stacking import Stack, stack_planes


@dataclass(frozen=True, kw_only=True)
class Planes:
    """A regular stack in any direction, and the order that the planes were shuffled into."""

    positions: FloatArray
    orientation: FloatArray
    spacing: float
    order: tuple[int, ...]

    @property
    def normal(self) -> FloatArray:
        return np.cross(self.orientation[:3], self.orientation[3:])

    def shuffled(self) -> FloatArray:
        return self.positions[list(self.order)]

    def stack(self, positions: FloatArray | None = None) -> Stack:
        points = self.shuffled() if positions is None else positions
        return stack_planes(points, np.tile(self.orientation, (len(points), 1)))


@st.composite
def planes(draw: st.DrawFn, min_count: int = 2) -> Planes:
    angles = [draw(st.floats(-np.pi, np.pi)) for _ in range(3)]
    rotation = _rotation(*angles)
    count = draw(st.integers(min_count, 40))
    spacing = draw(st.floats(0.3, 12.0))
    origin = np.array([draw(st.floats(-800, 800)) for _ in range(3)])
    normal = np.cross(rotation[0], rotation[1])
    positions = origin + np.arange(count)[:, None] * spacing * normal
    order = tuple(draw(st.permutations(range(count))))
    orientation = np.concatenate([rotation[0], rotation[1]])
    return Planes(positions=positions, orientation=orientation, spacing=spacing, order=order)


def _rotation(a: float, b: float, c: float) -> FloatArray:
    x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    rotated: FloatArray = x @ y @ z
    return rotated


def _refusal(case: Planes, positions: FloatArray) -> Reason:
    with pytest.raises(SeriesRefusedError) as caught:
        case.stack(positions)
    return caught.value.reason


@given(planes())
def test_any_shuffled_stack_comes_out_in_ascending_order_along_its_normal(case: Planes) -> None:
    stack = case.stack()
    assert [case.order[index] for index in stack.order] == list(range(len(case.order)))
    assert stack.spacing == pytest.approx(case.spacing, rel=1e-6)


@given(planes(min_count=5), st.data())
def test_a_missing_slice_is_always_found(case: Planes, data: st.DataObject) -> None:
    missing = data.draw(st.integers(1, len(case.positions) - 2))
    kept = np.delete(case.positions, missing, axis=0)
    assert _refusal(case, kept) is Reason.MISSING_SLICES


@given(planes(), st.data())
def test_two_planes_at_one_position_are_always_found(case: Planes, data: st.DataObject) -> None:
    twice = data.draw(st.integers(0, len(case.positions) - 1))
    positions = np.concatenate([case.shuffled(), case.positions[twice : twice + 1]])
    assert _refusal(case, positions) is Reason.DUPLICATE_POSITION


@given(planes(), st.floats(3.0, 40.0))
def test_a_sheared_stack_is_always_found(case: Planes, degrees: float) -> None:
    steps = np.arange(len(case.positions))[:, None] * case.spacing
    sheared = case.positions + steps * np.tan(np.radians(degrees)) * case.orientation[3:]
    assert _refusal(case, sheared) is Reason.TILTED


@given(planes(min_count=4), st.floats(0.06, 0.3))
def test_uneven_spacing_beyond_the_tolerance_is_refused(case: Planes, share: float) -> None:
    """GEO-06."""
    positions = case.positions.copy()
    positions[1] += max(0.06, share * case.spacing) * case.normal
    with pytest.raises(SeriesRefusedError) as caught:
        case.stack(positions)
    assert caught.value.reason in {
        Reason.UNEVEN_SPACING,
        Reason.MISSING_SLICES,
        Reason.DUPLICATE_POSITION,
    }


@given(planes(min_count=3))
def test_jitter_within_the_tolerance_is_accepted(case: Planes) -> None:
    """GEO-06."""
    positions = case.positions.copy()
    positions[1] += 0.01 * case.normal
    assert case.stack(positions).spacing == pytest.approx(case.spacing, rel=1e-6)


def test_a_single_plane_has_no_spacing() -> None:
    stack = stack_planes(np.array([[1.0, 2.0, 3.0]]), np.array([[1.0, 0, 0, 0, 1, 0]]))
    assert stack == Stack(
        order=(0,), row_direction=(1, 0, 0), column_direction=(0, 1, 0), spacing=None
    )


def test_planes_of_different_orientation_are_refused() -> None:
    orientations = np.array([[1.0, 0, 0, 0, 1, 0], [1.0, 0, 0, 0, 0, -1]])
    with pytest.raises(SeriesRefusedError, match="MIXED_PLANES"):
        stack_planes(np.array([[0.0, 0, 0], [0, 0, 5]]), orientations)


@pytest.mark.parametrize(
    "orientation",
    [(1, 0, 0, 0.1, 1, 0), (1.01, 0, 0, 0, 1, 0), (0, 0, 0, 0, 1, 0), (1, 0, 0, 1, 0, 0)],
)
def test_orientations_that_are_not_orthonormal_are_refused(orientation: tuple[float, ...]) -> None:
    """GEO-13."""
    with pytest.raises(SeriesRefusedError, match="BAD_GEOMETRY"):
        stack_planes(np.zeros((1, 3)), np.array([orientation], dtype=np.float64))


def test_an_orientation_within_the_tolerance_is_made_orthonormal() -> None:
    """GEO-13."""
    stack = stack_planes(np.zeros((1, 3)), np.array([[1.0005, 0, 0, 0.0005, 1, 0]]))
    assert np.linalg.norm(stack.row_direction) == pytest.approx(1, abs=1e-12)
    assert np.dot(stack.row_direction, stack.column_direction) == pytest.approx(0, abs=1e-12)


def test_the_words_of_a_refusal_say_where_slices_are_missing() -> None:
    positions = np.array([[0.0, 0, z] for z in (-50, -45, -40, -25, -20, -15)])
    with pytest.raises(SeriesRefusedError) as caught:
        stack_planes(positions, np.tile([1.0, 0, 0, 0, 1, 0], (6, 1)))
    assert caught.value.detail == (
        "2 slices missing in 1 gaps, the first between -40.0 and -25.0 mm along the normal, where"
        " slices are 5.00 mm apart"
    )
