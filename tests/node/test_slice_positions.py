"""Gaps by position are found where they are gaps, and nowhere else."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.slice_positions import Gap, Slice, gaps_of

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)


def axial(*heights: float, numbers: bool = False) -> list[Slice]:
    return [
        Slice(
            position=(-100.0, 20.0, height),
            orientation=AXIAL,
            instance_number=index if numbers else None,
        )
        for index, height in enumerate(heights)
    ]


def numbered(*numbers: int) -> list[Slice]:
    return [Slice(instance_number=number) for number in numbers]


@given(
    spacing=st.floats(0.2, 10),
    count=st.integers(6, 60),
    start=st.floats(-2000, 2000),
    data=st.data(),
)
def test_a_lost_slice_inside_a_stack_is_a_gap(
    spacing: float, count: int, start: float, data: st.DataObject
) -> None:
    lost = data.draw(st.integers(1, count - 2))
    heights = [start + spacing * index for index in range(count) if index != lost]
    data.draw(st.randoms(use_true_random=False)).shuffle(heights)
    (gap,) = gaps_of("1.2", axial(*heights))
    assert (gap.slices, gap.possibly, len(gap.places)) == (1, False, 1)
    assert gap.spacing_mm == pytest.approx(spacing, abs=0.01)


@given(
    spacing=st.floats(0.2, 10),
    count=st.integers(0, 60),
    tilt=st.floats(-0.5, 0.5),
    jitter=st.floats(0, 0.02),
)
def test_a_whole_stack_has_no_gap_however_it_leans(
    spacing: float, count: int, tilt: float, jitter: float
) -> None:
    shake = random.Random(1)  # noqa: S311 - positions, no secret
    slices = [
        Slice(
            position=(
                0.0,
                tilt * index,
                spacing * (index + shake.uniform(-jitter, jitter)),
            ),
            orientation=AXIAL,
        )
        for index in range(count)
    ]
    assert gaps_of("1.2", slices) == ()


def test_several_lost_slices_are_counted_and_placed() -> None:
    heights = [5.0 * index for index in range(40) if index not in {10, 11, 30}]
    assert gaps_of("1.2", axial(*heights)) == (
        Gap(
            series_instance_uid="1.2",
            slices=3,
            possibly=False,
            spacing_mm=5.0,
            places=("45.0 and 60.0 mm", "145.0 and 155.0 mm"),
        ),
    )


@pytest.mark.parametrize(
    ("slices", "why"),
    [
        (axial(), "nothing"),
        (axial(0, 5, 15), "too few to know the spacing"),
        (axial(*[2.5 * i for i in range(12)], *[30 + 5 * i for i in range(12)]), "two spacings"),
        (axial(0, 3, 6, 9, 12, 19.5, 22.5), "no multiple of the spacing"),
        (axial(0, 3, 6, 9, 12, 19.5, 22.5, 25.5, 31.5), "uneven, and so the double says nothing"),
        (axial(*[5.0 * (index // 4) for index in range(40)]), "four images at each position"),
        ([Slice() for _ in range(9)], "no positions: frames of an enhanced image"),
        (
            [Slice(position=(0.0, 0.0, math.nan), orientation=AXIAL) for _ in range(9)],
            "positions that are no numbers",
        ),
        ([Slice(position=(0.0, 0.0), orientation=AXIAL[:4])] * 9, "values that are missing"),
        (
            [
                Slice(position=(0.0, 0.0, float(i)), orientation=(1.0, 0.0, 0.0) * 2)
                for i in range(9)
            ],
            "row and column in one direction",
        ),
        (
            [
                Slice(position=(index * 10.0, 0.0, index * 10.0), orientation=orientation)
                for index in range(3)
                for orientation in (AXIAL, SAGITTAL)
            ],
            "a localizer",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_where_spacing_says_nothing_there_is_no_gap(slices: list[Slice], why: str) -> None:
    assert gaps_of("1.2", slices) == (), why


def test_holes_in_the_numbers_are_a_weak_sign() -> None:
    (gap,) = gaps_of("1.2", numbered(*range(1, 20), 22, 23))
    assert (gap.slices, gap.possibly, gap.places) == (2, True, ("19 and 22",))
    assert gaps_of("1.2", numbered(*range(1, 20))) == ()
    assert gaps_of("1.2", numbered(*range(1, 40, 2))) == ()  # counted by twos
    assert gaps_of("1.2", numbered(1, 1, 2, 2, 3, 3)) == ()  # echoes


def test_positions_outweigh_numbers() -> None:
    heights = [5.0 * index for index in range(20) if index != 7]
    (gap,) = gaps_of("1.2", axial(*heights, numbers=True))
    assert not gap.possibly


def test_a_gap_is_shown_with_its_place() -> None:
    assert Gap(
        series_instance_uid="1.2",
        slices=1,
        possibly=False,
        spacing_mm=5.0,
        places=("30.0 and 40.0 mm",),
    ).shown() == {
        "by": "slice positions",
        "series": "1.2",
        "instances": 1,
        "between": ["30.0 and 40.0 mm"],
        "spacing_mm": 5.0,
    }
