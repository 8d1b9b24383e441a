from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.resampling import (
    Lattice,
    Shape,
    centred,
    cut,
    labels_back,
    padded_to_multiple,
    resample,
    resized,
    respaced,
    turned,
    upright,
    whole_step,
)

ORIENTATIONS = [
    a + b + c
    for a in "LRAPIS"
    for b in "LRAPIS"
    for c in "LRAPIS"
    if len({("LR".find(x) >= 0 and 1) or ("AP".find(x) >= 0 and 2) or 3 for x in (a, b, c)}) == 3
]
shapes = st.tuples(*[st.integers(1, 9)] * 3)
spacings = st.tuples(*[st.sampled_from([0.5, 0.7, 1.0, 1.3, 3.27])] * 3)


def lattice(shape: Shape, spacing: tuple[float, ...], angles: tuple[float, ...]) -> Lattice:
    """Return a lattice that is rotated about x and z, somewhere in the patient."""
    a, b = np.radians(angles)
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_z = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = about_z @ about_x @ np.eye(3)[:, ::-1] * np.array(spacing)
    affine[:3, 3] = (-31.4, 27.2, -800.0)
    return Lattice(shape=shape, affine=affine)


angles = st.tuples(st.floats(-40, 40), st.floats(-40, 40))


@settings(deadline=None)
@given(shape=shapes, spacing=spacings, angle=angles, orientation=st.sampled_from(ORIENTATIONS))
def test_turning_cropping_and_padding_give_masks_back_voxel_for_voxel(
    shape: Shape, spacing: tuple[float, ...], angle: tuple[float, float], orientation: str
) -> None:
    """GEO-14: where voxels fall on voxels."""
    source = lattice(shape, spacing, angle)
    labels = np.random.default_rng(3).integers(0, 200, shape).astype(np.uint8)
    target = padded_to_multiple(turned(source, orientation), (8, 4, 16))
    there = resample(labels.astype(np.float32), source, target, "linear", 0.0)
    assert there.shape == target.shape
    back = labels_back(there.astype(np.uint8), target, source)
    np.testing.assert_array_equal(back, labels)


@settings(deadline=None)
@given(shape=shapes, spacing=spacings, angle=angles, orientation=st.sampled_from(ORIENTATIONS))
def test_every_voxel_keeps_its_place_in_the_patient(
    shape: Shape, spacing: tuple[float, ...], angle: tuple[float, float], orientation: str
) -> None:
    source = lattice(shape, spacing, angle)
    target = turned(source, orientation)
    places = source.affine @ np.array([*np.indices(shape).reshape(3, -1), np.ones(np.prod(shape))])
    for axis in range(3):
        values = places[axis].reshape(shape).astype(np.float32)
        found = resample(values, source, target, "linear", np.nan)
        index = np.indices(target.shape).reshape(3, -1)
        wanted = (target.affine @ np.array([*index, np.ones(index.shape[1])]))[axis]
        np.testing.assert_allclose(found.ravel(), wanted, atol=1e-3)


@pytest.mark.parametrize("angle", [(0.0, 0.0), (12.0, -20.0)])
def test_interpolation_reproduces_a_ramp_in_the_patient(angle: tuple[float, float]) -> None:
    source = lattice((20, 24, 22), (2.0, 1.0, 1.5), angle)
    target = upright(source, "LIA", (1.0, 1.0, 1.0))
    index = np.indices(source.shape).reshape(3, -1)
    places = (source.affine @ np.array([*index, np.ones(index.shape[1])]))[:3]
    ramp = np.array([0.3, -0.2, 0.5])
    values = (ramp @ places).reshape(source.shape).astype(np.float32)
    found = resample(values, source, target, "linear", np.nan)
    index = np.indices(target.shape).reshape(3, -1)
    wanted = ramp @ (target.affine @ np.array([*index, np.ones(index.shape[1])]))[:3]
    inner = (
        np.linalg.inv(source.affine) @ target.affine @ np.array([*index, np.ones(index.shape[1])])
    )
    inside = (inner[:3] >= 0).all(0) & (np.array(source.shape) - 1 >= inner[:3].T).all(1)
    assert inside.sum() > 5000
    np.testing.assert_allclose(found.ravel()[inside], wanted[inside], atol=1e-3)
    outside = (inner[:3] < -0.6).any(0) | (np.array(source.shape) - 0.4 < inner[:3].T).any(1)
    assert np.isnan(found.ravel()[outside]).all()


def test_an_upright_lattice_holds_every_corner_of_an_oblique_one() -> None:
    source = lattice((20, 24, 22), (2.0, 1.0, 1.5), (17.0, 31.0))
    target = upright(source, "RAS", (1.0, 1.0, 1.0))
    corners = np.array(np.meshgrid(*[(-0.5, n - 0.5) for n in source.shape])).reshape(3, -1)
    inside = (np.linalg.inv(target.affine) @ source.affine @ [*corners, np.ones(8)])[:3]
    assert (inside >= -0.5 - 1e-6).all()
    assert (np.array(target.shape) - 0.5 + 1e-6 >= inside.T).all()


def test_area_interpolation_of_half_the_matrix_is_the_mean_of_two_by_two() -> None:
    source = lattice((3, 8, 12), (3.0, 1.0, 1.0), (0.0, 0.0))
    values = np.random.default_rng(5).normal(size=source.shape).astype(np.float32)
    target = resized(source, (3, 4, 6))
    found = resample(values, source, target, "area", 0.0)
    np.testing.assert_allclose(
        found, values.reshape(3, 4, 2, 6, 2).mean(axis=(2, 4)), rtol=1e-5, atol=1e-6
    )
    assert target.spacing == pytest.approx((3.0, 2.0, 2.0))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    spacing=st.tuples(*[st.floats(0.5, 1.5)] * 3),
    middle=st.tuples(*[st.floats(-2.0, 2.0)] * 3),
    angle=angles,
)
def test_a_label_that_went_to_other_spacings_and_back_is_where_it_was(
    spacing: tuple[float, float, float],
    middle: tuple[float, float, float],
    angle: tuple[float, float],
) -> None:
    """GEO-14: the centroid within half a voxel; the volume within 1 % if voxels got no larger."""
    source = lattice((40, 44, 48), (1.0, 1.0, 1.0), angle)
    places = np.indices(source.shape).reshape(3, -1).T - (np.array(source.shape) - 1) / 2
    inside = np.linalg.norm((places - middle) / (15.0, 16.0, 17.0), axis=1) < 1
    labels = inside.reshape(source.shape).astype(np.uint8)
    target = respaced(source, spacing)
    there = labels_back(labels, source, target)
    back = labels_back(there, target, source)
    apart = np.argwhere(back).mean(axis=0) - np.argwhere(labels).mean(axis=0)
    assert np.abs(apart).max() < 0.5
    if max(spacing) <= 1.0:
        assert int(back.sum()) == pytest.approx(int(labels.sum()), rel=0.01)


def test_half_the_matrix_and_back_labels_each_two_by_two_alike() -> None:
    source = lattice((2, 8, 6), (3.0, 1.0, 1.0), (9.0, 0.0))
    target = resized(source, (2, 4, 3))
    labels = np.arange(24, dtype=np.uint8).reshape(target.shape)
    back = labels_back(labels, target, source)
    np.testing.assert_array_equal(back, labels.repeat(2, axis=1).repeat(2, axis=2))


@given(shape=shapes, spacing=spacings)
def test_other_spacings_keep_the_centre(shape: Shape, spacing: tuple[float, ...]) -> None:
    source = lattice(shape, (1.0, 1.0, 1.0), (5.0, 6.0))
    a, b, c = spacing
    target = respaced(source, (a, b, c))

    def centre(of: Lattice) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        middle: np.ndarray[tuple[int, ...], np.dtype[np.float64]] = of.affine @ np.array(
            [*((np.array(of.shape) - 1) / 2), 1]
        )
        return middle

    np.testing.assert_allclose(centre(target), centre(source), atol=1e-9)
    assert target.spacing == pytest.approx(spacing)


def test_lattices_that_do_not_fall_on_each_other_are_told_apart() -> None:
    source = lattice((4, 5, 6), (1.0, 1.0, 1.0), (0.0, 0.0))
    assert whole_step(source, cut(source, (-2, 1, 3), (2, 2, 2))) is not None
    assert whole_step(source, respaced(source, (1.0, 0.5, 1.0))) is None
    assert whole_step(source, lattice((4, 5, 6), (1.0, 1.0, 1.0), (1.0, 0.0))) is None
    assert whole_step(source, centred(source, (9, 2, 6))) is not None


@pytest.mark.parametrize("orientation", ["", "LPX", "LLS", "LRS", "LPSA", "lps"])
def test_an_orientation_needs_a_letter_of_each_pair(orientation: str) -> None:
    source = lattice((2, 2, 2), (1.0, 1.0, 1.0), (0.0, 0.0))
    with pytest.raises(ValueError, match="one letter of each"):
        turned(source, orientation)
