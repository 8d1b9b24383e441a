"""Work on many slices, shared out to threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from engines.sharing import share, use_threads


@pytest.fixture(params=[1, 2, 5])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    count = int(request.param)
    use_threads(count)
    yield count
    use_threads(1)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 300])
def test_every_number_is_worked_on_once_and_answers_come_in_order(threads: int, count: int) -> None:
    seen = np.zeros(count, np.int64)

    def work(part: slice) -> list[int]:
        seen[part] += 1
        return list(range(part.start, part.stop))

    answers = share(count, work)
    assert [number for answer in answers for number in answer] == list(range(count))
    assert (seen == 1).all()
    assert len(answers) <= threads


def test_each_thread_has_a_range_of_its_own(threads: int) -> None:
    meeting = threading.Barrier(threads)
    names = share(threads, lambda _: (meeting.wait(10), threading.get_ident())[1])
    assert len(set(names)) == threads


def test_what_is_shared_out_within_a_range_is_done_by_its_own_thread(threads: int) -> None:
    def outer(_: slice) -> bool:
        inner = share(10, lambda part: (part, threading.get_ident()))
        return inner == [(slice(0, 10), threading.get_ident())]

    assert all(share(threads, outer))


def test_an_error_is_raised_when_all_ranges_have_ended(threads: int) -> None:
    ended: list[int] = []

    def work(part: slice) -> None:
        if part.start == 0:
            raise ValueError("the first range")
        time.sleep(0.05)
        ended.append(part.start)

    with pytest.raises(ValueError, match="the first range"):
        share(threads, work)
    assert sorted(ended) == list(range(1, threads))
    assert share(threads, lambda part: part.start) == list(range(threads))


def test_the_error_of_another_thread_comes_through() -> None:
    use_threads(2)

    def work(part: slice) -> None:
        if part.start:
            raise ValueError("the second range")

    try:
        with pytest.raises(ValueError, match="the second range"):
            share(2, work)
    finally:
        use_threads(1)
