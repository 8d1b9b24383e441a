"""How a process deals with the memory that it frees."""

from __future__ import annotations

import ctypes
from typing import Final

M_TRIM_THRESHOLD: Final = -1  # malloc.h
M_MMAP_MAX: Final = -4
NEVER: Final = -1


def keep_memory() -> None:
    """Keep what this process frees for its next allocation (mallopt(3)); glibc only.

    A net and the arrays around it take hundreds of megabytes and free them, many times in each job.
    Handed back to the system every time, each page of them has to be made and cleared anew when it
    is touched again: that can take longer than the net. The process holds as much as its largest
    job took, no more than its limit.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, NEVER)
