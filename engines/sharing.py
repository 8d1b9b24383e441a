"""Work on many slices, shared out to threads.

What takes long on large arrays (numpy, cc3d, reading files) runs without the interpreter's lock:
two threads do it in little more than half the time. A process has one number of threads for all its
array work, as numerical libraries have it; a job sets it before it begins.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

ResultT = TypeVar("ResultT")


@dataclass(slots=True)
class _Shared:
    """How many threads there are, and the pool of all but the one that asks."""

    threads: int = 1
    pool: ThreadPoolExecutor | None = None


class _Here(threading.local):
    """Whether this thread works on a range just now."""

    sharing = False


_shared = _Shared()
_here = _Here()


def use_threads(count: int) -> None:
    """Let array work of this process take so many threads, one or more.

    Not to be called while other threads share work out.
    """
    if count == _shared.threads:
        return
    if _shared.pool is not None:
        _shared.pool.shutdown()
        _shared.pool = None
    if count > 1:
        _shared.pool = ThreadPoolExecutor(count - 1, thread_name_prefix="slices")
    _shared.threads = count


def share(count: int, work: Callable[[slice], ResultT]) -> list[ResultT]:
    """Do work on the numbers from 0 to `count`: each thread has a range of its own.

    Args:
        count: of slices, files or whatever there are many of.
        work: is given one range; it must not write where another range is read or written. What it
            would share out itself, it does alone.

    Returns:
        What it gave, in the order of the ranges.

    Raises:
        what `work` raised on the first of the ranges that failed, when all have ended.
    """
    pool = None if _here.sharing else _shared.pool
    if pool is None:
        return [work(slice(0, count))] if count else []
    parts = _ranges(count, _shared.threads)
    others = [pool.submit(_alone, work, part) for part in parts[1:]]
    try:
        return [*(_alone(work, part) for part in parts[:1]), *(o.result() for o in others)]
    finally:
        wait(others)  # no thread is left behind in arrays that are given up


def _alone(work: Callable[[slice], ResultT], part: slice) -> ResultT:
    _here.sharing = True
    try:
        return work(part)
    finally:
        _here.sharing = False


def _ranges(count: int, parts: int) -> list[slice]:
    ends = [count * part // parts for part in range(parts + 1)]
    return [slice(a, b) for a, b in pairwise(ends) if b > a]
