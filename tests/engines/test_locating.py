from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from engines.base import Arrays, Session
from engines.locating import box_of, locate
from engines.recipe import Locate, Recipe
from engines.refusals import SeriesRefusedError
from engines.resampling import axial_lattice

INFERENCE = {"input": "x", "output": "y", "pattern": "whole", "decision": "threshold"}


class Echo(Session):
    """A net that gives back its image, and is its own first net."""

    def run(self, inputs: Arrays) -> Arrays:
        return {"y": inputs["x"]}

    def part(self, name: str) -> Session:
        assert name == "box"
        return self

    def close(self) -> None:
        pass


def wanted(**changes: object) -> Locate:
    table = {"model": "box", "preprocessing": {}, "inference": INFERENCE, **changes}
    return Locate.model_validate(table, strict=False)


def test_a_box_is_scaled_to_the_image_and_grown_on_each_side() -> None:
    mask = np.zeros((10, 10, 10), np.bool_)
    mask[2:6, 3:7, 0:10] = True
    first, shape = box_of(mask, (40, 20, 10), wanted(margin=0.25))
    assert (first, shape) == ([4, 4, 0], [24, 12, 10])


def test_planes_with_little_of_it_do_not_widen_the_box() -> None:
    mask = np.zeros((10, 10, 10), np.bool_)
    mask[2:6, 2:6, 2:6] = True
    mask[9, 9, 9] = True
    first, shape = box_of(mask, mask.shape, wanted(share=0.05))
    assert (first, shape) == ([2, 2, 2], [4, 4, 4])
    with pytest.raises(SeriesRefusedError, match="too little"):
        box_of(mask, mask.shape, wanted(share=0.9))


def test_what_was_found_is_a_box_and_the_image_before_its_steps() -> None:
    voxels = np.zeros((8, 8, 8), np.int16)
    voxels[2:5, 3:6, 4:7] = 10
    steps = [{"step": "linear", "divide": 100.0}]
    settings = wanted(
        preprocessing={"intensity": steps}, inference={**INFERENCE, "threshold": 0.05}
    )
    valid = np.ones(voxels.shape, np.bool_)
    found = locate(voxels, valid, axial_lattice(voxels.shape, (1, 1, 1)), settings, Echo())
    assert found.box.shape == (3, 3, 3)
    assert found.box.affine[:3, 3].tolist() == [4, 3, 2]
    assert found.seen.max() == 10


def test_nothing_found_is_a_refusal() -> None:
    voxels = np.zeros((8, 8, 8), np.int16)
    with pytest.raises(SeriesRefusedError, match="found nothing"):
        locate(voxels, voxels == 0, axial_lattice(voxels.shape, (1, 1, 1)), wanted(), Echo())


@pytest.mark.parametrize(
    ("preprocessing", "why"),
    [
        ({"size": [4, 4, 4]}, "no size"),
        ({"orientation": "RAS", "align": "patient"}, "no size"),
        ({"intensity": [{"step": "crop", "above": 0.0}]}, "no step crop"),
    ],
)
def test_a_first_net_looks_at_the_whole(preprocessing: object, why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        wanted(preprocessing=preprocessing)


def test_values_of_a_first_net_need_one() -> None:
    steps = [{"step": "quantiles", "high": 0.9, "of": "located"}]
    with pytest.raises(ValidationError, match="needs locate"):
        Recipe.model_validate(
            {"preprocessing": {"intensity": steps}, "inference": INFERENCE}, strict=False
        )
