from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from engines.preprocessing import changed, prepare
from engines.recipe import Crop, Inference, Intensity, Preprocessing
from engines.resampling import Lattice, Values

STEP: TypeAdapter[Intensity] = TypeAdapter(Intensity)
SOURCE = Lattice(shape=(4, 8, 8), affine=np.diag([1.0, 1.0, 1.0, 1.0])[[2, 1, 0, 3]])
VOXELS = np.random.default_rng(2).integers(-900, 900, SOURCE.shape).astype(np.int16)
VALID = np.ones(SOURCE.shape, np.bool_)


def step(**keys: object) -> Intensity:
    return STEP.validate_python(keys)


def taken(values: Values, steps: Sequence[Intensity]) -> Values:
    shape = (values.shape[0], values.shape[1], values.shape[2])
    return changed(values, Lattice(shape=shape, affine=np.eye(4)), steps)[0]


def test_steps_change_values_in_their_order() -> None:
    values = np.array([[[-2000.0, -1000.0, 0.0, 400.0, 3000.0]]], np.float32)
    lungs = (
        step(step="clip", low=-1000.0, high=400.0),
        step(step="linear", subtract=-1000.0, divide=1400.0),
    )
    assert taken(values, lungs).ravel() == pytest.approx([0, 0, 1000 / 1400, 1, 1])
    assert taken(values, lungs[::-1]).ravel() != pytest.approx([0, 0, 1000 / 1400, 1, 1])


def test_quantiles_are_of_all_or_of_what_is_not_zero() -> None:
    values = np.concatenate([np.zeros(1000), np.linspace(1, 100, 1000)]).astype(np.float32)
    values = values.reshape(20, 10, 10)
    assert taken(values, [step(step="quantiles", high=1.0)]).max() == pytest.approx(1)
    median = taken(values, [step(step="quantiles", high=0.5, of="nonzero", top=10.0, clip=True)])
    assert (median == 10).sum() == 500
    both = taken(values, [step(step="quantiles", low=0.75, high=1.0)])
    assert (both < 0).sum() == 1500
    flat = np.full((2, 2, 2), 7, np.float32)
    assert not taken(flat, [step(step="quantiles", low=0.1, high=0.9)]).any()


@pytest.mark.parametrize("of", ["all", "slice"])
def test_normalised_values_have_mean_zero_and_deviation_one(of: str) -> None:
    found = taken(VOXELS.astype(np.float32), [step(step="normalise", of=of)])
    parts = found if of == "slice" else [found]
    for part in parts:
        assert float(part.mean()) == pytest.approx(0, abs=1e-5)
        assert float(part.std()) == pytest.approx(1, abs=1e-5)


def test_what_was_not_imaged_is_filled_before_anything_else() -> None:
    valid = VALID.copy()
    valid[0] = False
    wanted = Preprocessing(fill=-1000.0, size=(6, 8, 8))
    found = prepare(VOXELS, valid, SOURCE, wanted)
    assert found.values.shape == (6, 8, 8)
    assert (found.values[[0, 1, 5]] == -1000).all()
    np.testing.assert_array_equal(found.values[2:5], VOXELS[1:])


def test_the_image_is_cropped_to_what_is_above_and_padded_to_a_multiple() -> None:
    voxels = np.zeros(SOURCE.shape, np.int16)
    voxels[2, 3:5, 6] = 50
    wanted = Preprocessing(
        intensity=(Crop(step="crop", above=10.0, margin=1),), multiple_of=(1, 8, 2)
    )
    found = prepare(voxels, VALID, SOURCE, wanted)
    assert found.values.shape == (3, 8, 4)
    assert found.values.sum() == 100
    corner = found.lattice.affine @ np.array([*np.argwhere(found.values)[0], 1])
    assert corner[:3] == pytest.approx([6, 3, 2])


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"matrix": (4, 4), "spacing": (1.0, 1.0, 1.0)}, "no spacing"),
        ({"interpolation": "area"}, "needs matrix"),
        ({"align": "patient"}, "needs an orientation"),
        ({"orientation": "LLL"}, "one letter of each"),
        ({"intensity": ({"step": "sharpen"},)}, "does not match any of the expected tags"),
        ({"intensity": ({"step": "clip", "low": 1.0, "high": 0.0},)}, "not below"),
    ],
)
def test_a_preprocessing_that_cannot_be_is_refused(keys: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Preprocessing.model_validate(keys)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"pattern": "windows"}, "window belongs"),
        ({"pattern": "whole", "window": (1, 1, 1)}, "window belongs"),
        ({"pattern": "slices", "mirror": (0,)}, "can be mirrored"),
        ({"pattern": "whole", "mirror": (1, 1)}, "twice"),
    ],
)
def test_an_inference_that_cannot_be_is_refused(keys: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Inference.model_validate({"input": "a", "output": "b", "decision": "argmax", **keys})
