from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from node.results._frame_runs import FRAMES_AT_ONCE, runs_of
from tests.node.results.building import segment

FRAMES = st.lists(st.tuples(st.integers(1, 3), st.integers(0, 30)), max_size=60)
STRETCHES = st.lists(
    st.tuples(st.integers(1, 3), st.integers(0, 40), st.integers(1, 30), st.booleans()), max_size=6
)


def laid_out(stretches: list[tuple[int, int, int, bool]]) -> list[tuple[int, int]]:
    frames = []
    for number, first, count, descending in stretches:
        slices = range(first, first + count)
        frames += [(number, index) for index in (reversed(slices) if descending else slices)]
    return frames


@given(FRAMES | STRETCHES.map(laid_out))
def test_runs_are_all_the_frames_in_their_order(frames: list[tuple[int, int]]) -> None:
    runs = runs_of(frames)
    assert [(run.segment, index) for run in runs for index in run.slices] == frames
    assert [run.first for run in runs] == [0, *(run.end for run in runs)][: len(runs)]
    assert all(1 <= len(run.slices) <= FRAMES_AT_ONCE for run in runs)


@given(st.integers(0, 40), st.integers(1, 40), st.booleans())
def test_slices_beside_each_other_are_gathered(first: int, count: int, descending: bool) -> None:
    runs = runs_of(laid_out([(1, first, count, descending)]))
    assert len(runs) == -(-count // FRAMES_AT_ONCE)


def test_a_run_gives_the_pixels_of_its_frames_whichever_way_it_goes() -> None:
    labels = np.random.default_rng(1).integers(0, 3, (9, 5, 7)).astype(np.uint8)
    segments = [segment(key="one", mask=labels == 1), segment(key="two", mask=labels == 2)]
    for slices in (range(2, 6), range(5, 1, -1), range(0, 1), range(8, -1, -1)):
        for run in runs_of([(2, index) for index in slices]):
            wanted = np.stack([labels[index] == 2 for index in run.slices])
            assert np.array_equal(run.pixels(segments), wanted)
