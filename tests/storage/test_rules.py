from __future__ import annotations

import pytest

from storage.records import NotFoundError
from tests.storage.holding import Holding, at_once


def test_rules_are_numbered_and_the_newest_is_in_force(held: Holding) -> None:
    assert held.rules.current() is None
    first = held.rules.save("one", by="dr.meyer")
    second = held.rules.save("two", by="dr.meyer")
    assert (first.revision, second.revision) == (1, 2)
    assert held.rules.current() == second
    assert held.rules.get(1) == first
    with pytest.raises(NotFoundError):
        held.rules.get(3)


def test_the_same_rules_again_stay_the_same_revision(held: Holding) -> None:
    first = held.rules.save("one", by="dr.meyer")
    assert held.rules.save("one", by="somebody else") == first
    held.rules.save("two", by="dr.meyer")
    assert held.rules.save("one", by="dr.meyer").revision == 3


def test_two_that_save_the_same_rules_at_once_get_one_revision(held: Holding) -> None:
    saved = at_once(*[lambda: held.rules.save("one", by="test")] * 4)
    assert {row.revision for row in saved} == {1}
