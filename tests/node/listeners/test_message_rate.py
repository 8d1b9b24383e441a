"""How many notifications a sender may send, and that no other sender notices."""

from __future__ import annotations

import pytest

from node.listeners import _message_rate
from node.listeners._message_rate import BYTES_OF_ONE, MessageRate


class Minute:
    """A rate of sixty a minute, and the time."""

    def __init__(self) -> None:
        self.now = 0.0
        self.rate = MessageRate(60, lambda: self.now)

    def taken(self, count: int, sender: str = "192.0.2.1", size: int = 0) -> int:
        return sum(self.rate.admits(sender, size) for _ in range(count))


def test_as_many_as_a_minute_has_come_at_once_then_one_by_one() -> None:
    minute = Minute()
    assert minute.taken(100) == 60
    minute.now += 5.0
    assert minute.taken(100) == 5
    minute.now += 3600.0
    assert minute.taken(100) == 60


def test_a_sender_that_floods_takes_nothing_from_another() -> None:
    minute = Minute()
    minute.taken(1000)
    assert minute.taken(1, "192.0.2.2") == 1


def test_a_long_message_counts_for_several() -> None:
    minute = Minute()
    assert minute.taken(100, size=9 * BYTES_OF_ONE) == 6


def test_a_message_that_counts_for_more_than_all_is_taken_where_nothing_else_was() -> None:
    minute = Minute()
    assert minute.taken(2, size=1000 * BYTES_OF_ONE) == 1


def test_senders_without_number_take_no_memory_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_message_rate, "MOST_SENDERS", 10)
    minute = Minute()
    for number in range(1000):
        minute.taken(1, f"192.0.2.{number}")
    assert len(minute.rate._left) == 10
