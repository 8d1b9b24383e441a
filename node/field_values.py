"""Values of fields, and whole headers, by pydicom. Sandbox only: this parses untrusted bytes."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Final, TypeAlias

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.multival import MultiValue

from engines.byte_range import open_range
from node.fields import FieldPath, Step, parse_field

Value: TypeAlias = str | int | float
Values: TypeAlias = tuple[Value, ...] | None

LONGEST_VALUE: Final = 64 << 10
CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]+")
PARSER_ERRORS: Final = (
    InvalidDicomError,
    BytesLengthException,
    IndexError,
    OverflowError,
    OSError,
    EOFError,
    ValueError,
    KeyError,
    AttributeError,
    TypeError,
    NotImplementedError,
    RecursionError,
    struct.error,
    zlib.error,
)


class FieldValuesError(Exception):
    """The header cannot be read; the message names the kind of error, and no value."""


def read_dataset(path: Path, offset: int = 0, length: int | None = None) -> Dataset:
    """Read a file's data set without its pixel data. Sandbox only.

    Raises:
        FieldValuesError: naming the kind of the parser's error.
    """
    try:
        with open_range(path, offset, length) as file:
            return dcmread(file, stop_before_pixels=True)
    except PARSER_ERRORS as error:
        raise FieldValuesError(f"not readable: {type(error).__name__}") from error


def read_values(
    path: Path, fields: Collection[str], offset: int = 0, length: int | None = None
) -> Mapping[str, Values]:
    """Read the values of some fields from a file. Sandbox only.

    None: absent. An empty tuple: there, without a value.

    Raises:
        FieldValuesError: naming the kind of the parser's error.
    """
    dataset = read_dataset(path, offset, length)
    try:
        return {field: _find(dataset, parse_field(field)) for field in fields}
    except PARSER_ERRORS as error:
        raise FieldValuesError(f"not readable: {type(error).__name__}") from error


def _find(dataset: Dataset, path: FieldPath) -> Values:
    *way, last = path.steps
    datasets = [dataset]
    for step in way:
        datasets = [item for parent in datasets for item in _items(parent, step)]
    found = [values for parent in datasets if (values := _element(parent, last)) is not None]
    if not found:
        return None
    return tuple(value for values in found for value in values)


def _items(parent: Dataset, step: Step) -> list[Dataset]:
    tag = _resolve(parent, step)
    if tag is None or tag not in parent or parent[tag].VR != "SQ":
        return []
    items = list(parent[tag].value or [])
    return items if step.item is None else items[step.item : step.item + 1]


def _element(parent: Dataset, step: Step) -> Values:
    tag = _resolve(parent, step)
    if tag is None or tag not in parent:
        return None
    value = parent[tag].value
    if parent[tag].VR == "SQ":
        return tuple("item" for _ in value or [])
    values: Iterable[object] = value if isinstance(value, MultiValue | list | tuple) else [value]
    if step.item is not None:
        values = list(values)[step.item : step.item + 1]
    return tuple(_plain(item) for item in values if item is not None and item != "")


def _resolve(parent: Dataset, step: Step) -> int | None:
    """Return the tag; of a private element, where its creator's block is in this data set."""
    if not step.creator:
        return step.tag
    group, offset = step.tag >> 16, step.tag & 0xFF
    for block in range(0x10, 0x100):
        creator = parent.get((group, block))
        if creator is not None and str(creator.value).strip() == step.creator.strip():
            return group << 16 | block << 8 | offset
    return None


def _plain(value: object) -> Value:
    if isinstance(value, bool | int | float):
        return value
    if isinstance(value, bytes):
        return value[:LONGEST_VALUE].decode("latin-1").rstrip("\0 ")
    return CONTROL.sub(" ", str(value)).strip()
