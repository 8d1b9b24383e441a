"""Reads the content tree of a report that was read from a file (PS3.3 C.17.3)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, TypeAlias

from pydicom.dataset import Dataset

Key: TypeAlias = tuple[str, str]
"""A code by its value and its coding scheme designator; meanings are for people."""

NOTHING: Final[Key] = ("", "")


def children(item: Dataset, name: Key, value_type: str) -> Iterator[Dataset]:
    """Yield the content items right below an item that have a name and a value type."""
    for child in item.get("ContentSequence", ()):
        if child.ValueType == value_type and name_of(child) == name:
            yield child


def only_child(item: Dataset, name: Key, value_type: str) -> Dataset | None:
    """Return the one such item; None where there is none, or are several."""
    found = list(children(item, name, value_type))
    return found[0] if len(found) == 1 else None


def name_of(item: Dataset) -> Key:
    """Return the code of an item's concept name."""
    return code_in(item, "ConceptNameCodeSequence")


def code_in(item: Dataset, keyword: str) -> Key:
    """Return the code in a sequence of one item; empty where there is none."""
    codes = item.get(keyword)
    if not codes:
        return NOTHING
    return str(codes[0].CodeValue), str(codes[0].CodingSchemeDesignator)


def number_in(item: Dataset) -> float | None:
    """Return the value of a NUM, as exactly as it says it (PS3.3 C.18.1); None where it has none.

    Raises:
        ValueError: it is no number.
    """
    values = item.get("MeasuredValueSequence")
    if not values:
        return None
    exact = values[0].get("FloatingPointValue")
    return float(values[0].NumericValue if exact is None else exact)


def unit_of(item: Dataset) -> Key:
    """Return the unit of a NUM."""
    values = item.get("MeasuredValueSequence")
    return code_in(values[0], "MeasurementUnitsCodeSequence") if values else NOTHING
