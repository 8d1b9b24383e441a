from __future__ import annotations

import numpy as np
import pytest

from engines.findings import Analysis, Code, LabelArray, Refusal
from engines.images import BoolArray, Grid
from engines.plausibility import believed, place_doubts, segment_doubts
from engines.segments import SegmentSettings

SHAPE = (4, 20, 20)


def settings(**more: object) -> SegmentSettings:
    code = {"value": "39607008", "scheme": "SCT", "meaning": "Lung"}
    return SegmentSettings.model_validate(
        {
            "key": "lung",
            "value": 3,
            "label": "Lung",
            "category": code,
            "type": code,
            "colour": (1, 2, 3),
            **more,
        }
    )


def labels(*boxes: tuple[slice, slice, slice]) -> LabelArray:
    found = np.zeros(SHAPE, np.uint8)
    for box in boxes:
        found[box] = 3
    return found


INNER = np.s_[1:3, 5:10, 5:10]
OTHER = np.s_[1:3, 12:15, 12:15]
AT_EDGE = np.s_[1:3, 5:10, 15:20]
END_SLICES = np.s_[0:4, 5:10, 5:10]
BODY: BoolArray = np.zeros(SHAPE, np.bool_)
BODY[:, 3:8, 3:17] = True


@pytest.mark.parametrize(
    ("more", "boxes", "told"),
    [
        ({"plausible_ml": (40, 60)}, (INNER,), ()),
        ({"plausible_ml": (60, 90)}, (INNER,), ("would have 50 ml; 60 to 90",)),
        ({"plausible_ml": (1, 90)}, (), ("would have 0 ml",)),
        ({"plausible_components": (1, 1)}, (INNER,), ()),
        ({"plausible_components": (1, 1)}, (INNER, OTHER), ("in 2 parts; 1 to 1 are plausible",)),
        ({"plausible_components": (1, 1)}, (), ()),
        ({"at_edge": False}, (INNER,), ()),
        ({"at_edge": False}, (END_SLICES,), ()),
        ({"at_edge": False}, (AT_EDGE,), ("would reach the edge of the images",)),
        ({}, (AT_EDGE, OTHER), ()),
        ({"inside_body": 0.6}, (INNER,), ()),
        ({"inside_body": 0.7}, (INNER,), ("60 % of Lung would lie inside the body",)),
        (
            {"inside_body": 0.9, "at_edge": False, "plausible_ml": (0, 10)},
            (AT_EDGE,),
            ("would have 50 ml", "edge", "24 % of Lung"),
        ),
    ],
)
def test_each_thing_that_cannot_be_true_of_a_segment_is_told(
    more: dict[str, object], boxes: tuple[tuple[slice, slice, slice], ...], told: tuple[str, ...]
) -> None:
    found = list(segment_doubts(labels(*boxes), 1.0, [settings(**more)], BODY))
    assert len(found) == len(told)
    for sentence, part in zip(found, told, strict=True):
        assert part in sentence


def test_nothing_is_asked_of_a_body_that_was_not_looked_for() -> None:
    assert not list(place_doubts(settings(inside_body=1.0), labels(AT_EDGE), 3))


@pytest.mark.parametrize("name", ["plausible_ml", "plausible_components"])
def test_a_range_the_wrong_way_round_is_named(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}: the first is above the second"):
        settings(**{name: (3, 2)})


def analysis() -> Analysis:
    grid = Grid(
        shape=SHAPE,
        positions=tuple((0.0, 0.0, float(index)) for index in range(SHAPE[0])),
        row_direction=(1.0, 0.0, 0.0),
        column_direction=(0.0, 1.0, 0.0),
        spacing=(1.0, 1.0, 1.0),
        slice_thickness=1.0,
        frame_of_reference_uid="2.25.1",
        regular=True,
    )
    return Analysis(grid=grid, sources=(), findings=(), sought=(), limits=("One.",))


def test_what_can_be_true_is_given_as_it_is() -> None:
    found = analysis()
    assert believed(found, ()) is found


def test_what_cannot_be_true_is_held_back_and_says_so_for_ever() -> None:
    doubts = [f"doubt {number}" for number in range(5)]
    refused = believed(analysis(), doubts)
    assert isinstance(refused, Refusal)
    assert refused.reason == Code(
        "IMPLAUSIBLE", refused.reason.scheme, "Result of the engine not plausible"
    )
    assert refused.detail == "doubt 0; doubt 1; doubt 2; and 2 more"
    assert isinstance(refused.held, Analysis)
    assert refused.held.limits[0] == "One."
    assert refused.detail in refused.held.limits[1]
