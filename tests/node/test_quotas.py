"""Watermarks and quotas: who is refused, and who does not notice it."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from node.interfaces import OutOfResources, Source
from node.quotas import Quotas, Watermarks

ROUTINE = Source(listener="dimse", calling_ae="RESEARCH")
OTHER = Source(listener="dimse", calling_ae="CT1")
STAT = Source(listener="dimse", calling_ae="STROKE", urgent=True)
MARKS = Watermarks(reserve_bytes=100, resume_bytes=200, urgent_bytes=400, quota_bytes=1000)


class Disk:
    """A disk, and what waits on it."""

    def __init__(self) -> None:
        self.free = 10_000
        self.waiting: Mapping[str, int] = {}
        self.quotas = Quotas(
            MARKS,
            free_bytes=lambda: self.free,
            waiting=lambda: self.waiting,
            look_again_seconds=0.0,
        )

    def taken(self, source: Source) -> bool:
        try:
            self.quotas.check(source)
        except OutOfResources:
            return False
        return True


@pytest.fixture
def disk() -> Disk:
    return Disk()


def test_between_the_watermarks_only_urgent_senders_are_taken_from(disk: Disk) -> None:
    disk.free = 399
    assert (disk.taken(ROUTINE), disk.taken(STAT)) == (False, True)
    disk.free = 400
    assert disk.taken(ROUTINE)


def test_below_the_reserve_nobody_is_until_there_is_room_to_go_on(disk: Disk) -> None:
    disk.free = 99
    assert (disk.taken(ROUTINE), disk.taken(STAT)) == (False, False)
    assert disk.quotas.full
    disk.free = 199
    assert not disk.taken(STAT)
    disk.free = 200
    assert disk.taken(STAT)
    disk.free = 150
    assert disk.taken(STAT)
    assert not disk.quotas.full


def test_a_source_that_floods_is_refused_and_the_others_are_not(disk: Disk) -> None:
    for _ in range(4):
        disk.quotas.took(ROUTINE, 250)
        disk.quotas.took(STAT, 250)
    assert (disk.taken(ROUTINE), disk.taken(OTHER), disk.taken(STAT)) == (False, True, True)


def test_what_was_read_makes_room_by_itself(disk: Disk) -> None:
    disk.quotas.took(ROUTINE, 5000)
    disk.waiting = {"RESEARCH": 999}
    disk.quotas.refresh()
    assert disk.taken(ROUTINE)
    disk.quotas.took(ROUTINE, 1)
    assert not disk.taken(ROUTINE)


def test_without_a_quota_nothing_is_counted_or_asked() -> None:
    marks = Watermarks(reserve_bytes=1, resume_bytes=1, urgent_bytes=1)

    def never() -> Mapping[str, int]:
        raise AssertionError

    quotas = Quotas(marks, free_bytes=lambda: 10, waiting=never)
    quotas.took(ROUTINE, 1 << 50)
    quotas.refresh()
    quotas.check(ROUTINE)
