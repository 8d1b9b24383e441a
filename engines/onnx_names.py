"""What an ONNX file calls its inputs and outputs, read without parsing its weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from engines.errors import PackageError

GRAPH, NAME, INITIALIZER, INPUT, OUTPUT = 7, 1, 5, 11, 12
INITIALIZER_NAME: Final = 8
"""Field numbers of onnx.proto: ModelProto, ValueInfoProto, GraphProto, TensorProto."""
VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5


def tensor_names(model: bytes) -> tuple[str, str]:
    """Return the one input and the one output of a model.

    Raises:
        PackageError: it has several, or is no ONNX.
    """
    try:
        graph = next((part for field, part in _fields(memoryview(model)) if field == GRAPH), None)
        if graph is None:
            raise PackageError("the model has no graph")
        found = {INPUT: list[str](), OUTPUT: list[str](), INITIALIZER: list[str]()}
        for field, part in _fields(graph):
            if field in found:
                inner = INITIALIZER_NAME if field == INITIALIZER else NAME
                found[field] += [str(text, "utf-8") for at, text in _fields(part) if at == inner]
    except (IndexError, UnicodeDecodeError) as error:
        raise PackageError("the model is no ONNX") from error
    inputs = [name for name in found[INPUT] if name not in set(found[INITIALIZER])]
    if len(inputs) != 1 or len(found[OUTPUT]) != 1:
        raise PackageError(f"not one input and one output: {inputs}, {found[OUTPUT]}")
    return inputs[0], found[OUTPUT][0]


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield number and bytes of each field that has a length (protobuf's wire format)."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        field, kind = key >> 3, key & 7
        if kind == VARINT:
            _, at = _varint(message, at)
        elif kind == LENGTH:
            size, at = _varint(message, at)
            if at + size > len(message):
                raise IndexError
            yield field, message[at : at + size]
            at += size
        elif kind in (FIXED64, FIXED32):
            at += 8 if kind == FIXED64 else 4
        else:
            raise IndexError


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, at
        shift += 7
