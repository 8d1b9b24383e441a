from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from engines.body import Body, BodyRule, find_body
from engines.images import BoolArray, VoxelArray
from tests.engines.plain_body import find_body_plainly

RULE = BodyRule(above=-500, thin=(2, 2), lung_above=-960, smallest_share=0.005)


def disc(
    shape: tuple[int, int], centre: tuple[float, float], radii: tuple[float, float]
) -> BoolArray:
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    inside = ((rows - centre[0]) / radii[0]) ** 2 + ((columns - centre[1]) / radii[1]) ** 2 < 1
    return np.asarray(inside)


def chest(centre_column: float = 60.0) -> VoxelArray:
    """Return one slice of a chest: tissue with two lungs, over a table that it nearly touches."""
    shape = (100, 120)
    image = np.full(shape, -1000, np.int16)
    image[disc(shape, (45, centre_column), (30, 45))] = 40
    for side in (-18, 18):
        image[disc(shape, (45, centre_column + side), (18, 12))] = -850
    image[77:80, 10:110] = 100
    return image[None]


def found(voxels: VoxelArray, valid: BoolArray | None = None, rule: BodyRule = RULE) -> Body:
    body = find_body(voxels, np.ones(voxels.shape, np.bool_) if valid is None else valid, rule)
    assert body is not None
    return body


def test_lungs_are_inside_the_body_and_the_table_is_not() -> None:
    voxels = chest()
    mask = found(voxels).mask[0]
    assert mask[45, 42]
    assert mask[45, 78]
    assert not mask[77:].any()
    assert not mask[:12].any()
    assert mask.sum() == pytest.approx(np.pi * 30 * 45, rel=0.03)


def test_a_table_that_touches_the_back_is_cut_off() -> None:
    voxels = chest()
    voxels[0, 74:77, 58:62] = 100
    assert not found(voxels).mask[0, 78:].any()


def test_the_edge_of_the_field_of_view_that_cuts_the_body_is_counted() -> None:
    body = found(chest(centre_column=20))
    assert body.cut_slices == 1
    assert body.mask[0, 45, 0]
    assert found(chest()).cut_slices == 0


def test_a_lung_that_the_field_of_view_cuts_open_stays_inside() -> None:
    voxels = chest(centre_column=18)
    assert voxels[0, 45, 0] == -850
    mask = found(voxels).mask[0]
    assert mask[45, 0]
    assert not mask[90, 5]


def test_dense_room_air_under_the_back_stays_outside() -> None:
    voxels = chest()
    rows, columns = np.ogrid[:100, :120]
    circle = np.asarray((rows - 50) ** 2 + (columns - 60) ** 2 < 48**2)[None]
    voxels[0][(voxels[0] == -1000) & (np.arange(100) > 60)[:, None]] = -870
    voxels[~circle] = -3000
    body = found(voxels, circle & (voxels > -1500))
    assert not body.mask[0, 85:].any()


def test_what_was_not_imaged_belongs_to_no_body() -> None:
    voxels = chest()
    valid = np.ones(voxels.shape, np.bool_)
    valid[0, :, :30] = False
    assert not found(voxels, valid).mask[~valid].any()


def test_an_arm_beside_the_trunk_is_left_out_and_its_share_is_told() -> None:
    voxels = chest(centre_column=75)
    voxels[0][disc((100, 120), (45, 12), (12, 10))] = 30
    body = found(voxels)
    assert not body.mask[0, 45, 12]
    assert 0.02 < body.left_out_share < 0.3


def test_nothing_but_air_is_no_body() -> None:
    voxels = np.full((2, 40, 40), -1000, np.int16)
    assert find_body(voxels, np.ones(voxels.shape, np.bool_), RULE) is None


def test_a_thing_too_small_for_a_body_is_none() -> None:
    voxels = np.full((1, 100, 100), -1000, np.int16)
    voxels[0, 50:53, 50:53] = 50
    assert find_body(voxels, np.ones(voxels.shape, np.bool_), RULE) is None


def test_a_body_thinner_than_the_table_rule_is_still_found() -> None:
    voxels = np.full((1, 60, 60), -1000, np.int16)
    voxels[0, 20:24, 5:55] = 50
    assert found(voxels).mask.sum() == pytest.approx(4 * 50)


def test_a_large_image_gives_the_same_body_as_a_small_one() -> None:
    small = found(chest()).mask
    large = found(
        chest().repeat(3, axis=1).repeat(3, axis=2),
        rule=BodyRule(above=-500, thin=(6, 6), lung_above=-960, smallest_share=0.005),
    ).mask
    assert large.sum() / 9 == pytest.approx(small.sum(), rel=0.01)


@st.composite
def clouds(draw: st.DrawFn) -> tuple[VoxelArray, BoolArray]:
    """Draw smooth noise about the threshold, whole, or with a field of view or holes in it."""
    shape = draw(
        st.tuples(
            st.integers(1, 4), st.integers(1, 60), st.sampled_from([1, 7, 40, 90, 256, 261, 300])
        )
    )
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    cloud = ndimage.gaussian_filter(
        random.standard_normal(shape), draw(st.sampled_from([0.5, 1.5, 4.0]))
    )
    voxels = (-600 + 600 * cloud / (cloud.std() or 1.0)).clip(-3000, 3000).astype(np.int16)
    valid = np.ones(shape, np.bool_)
    field = draw(st.sampled_from(["whole", "round", "torn"]))
    if field == "round":
        centre = (shape[1] / 2, shape[2] / 2)
        valid &= disc(shape[1:], centre, centre)
    elif field == "torn":
        valid &= random.random(shape) < 0.98
    return voxels, valid


@settings(max_examples=300, deadline=None)
@given(
    image=clouds(),
    thin=st.tuples(st.integers(1, 4), st.integers(1, 5)),
    above=st.sampled_from([-800.0, -500.0, -200.0]),
    lung_above=st.sampled_from([-960.0, -700.0, -500.0]),
)
def test_the_body_is_that_of_the_plain_way_voxel_for_voxel(
    image: tuple[VoxelArray, BoolArray],
    thin: tuple[int, int],
    above: float,
    lung_above: float,
) -> None:
    rule = BodyRule(above=above, thin=thin, lung_above=lung_above, smallest_share=0.005)
    body, plain = find_body(*image, rule), find_body_plainly(*image, rule)
    if plain is None or body is None:
        assert body is plain
        return
    assert np.array_equal(body.mask, plain.mask)
    assert (body.cut_slices, body.left_out_share) == (plain.cut_slices, plain.left_out_share)
