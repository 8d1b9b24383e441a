"""Keys for an IN, in lots that databases and their drivers are at ease with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, TypeVar

MOST_KEYS: Final = 1024

K = TypeVar("K")


def chunks_of(keys: Sequence[K]) -> Iterator[Sequence[K]]:
    """Yield keys in lots that one statement can name: a long outage leaves tens of thousands."""
    for start in range(0, len(keys), MOST_KEYS):
        yield evened(keys[start : start + MOST_KEYS])


def evened(keys: Sequence[K]) -> Sequence[K]:
    """Repeat the last key until there are a power of two of them; an IN finds the same rows.

    A driver keeps the statements it has prepared, with the values last bound: one for each number
    of keys is tens of megabytes, over weeks and connections.
    """
    more = (1 << (len(keys) - 1).bit_length()) - len(keys)
    return [*keys, *(list(keys[-1:]) * more)]
