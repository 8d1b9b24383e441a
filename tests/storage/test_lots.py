"""Keys for an IN come in few different numbers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from storage.lots import MOST_KEYS, chunks_of, evened


@given(count=st.integers(0, 5 * MOST_KEYS))
def test_lots_hold_every_key_and_no_other_and_have_few_sizes(count: int) -> None:
    keys = list(range(count))
    lots = list(chunks_of(keys))
    assert sorted({key for lot in lots for key in lot}) == keys
    assert all(len(lot) <= MOST_KEYS and len(lot).bit_count() == 1 for lot in lots)


def test_no_keys_stay_none() -> None:
    assert list(evened([])) == []
    assert list(evened(["a", "b", "c"])) == ["a", "b", "c", "c"]
