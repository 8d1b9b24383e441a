"""The name of a plan: a digest of everything that can change it.

Two plans with the same key are the same plan; whatever is not in the key must not change it.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from engines.errors import ModelInvalidError
from engines.graphs import Graph, TensorSpec
from engines.manifest import Precision, ShapeTable


@dataclass(frozen=True, slots=True, kw_only=True)
class InputProfile:
    """One input: its ONNX element type, and its least, usual and largest shape."""

    name: str
    type: str
    min: tuple[int, ...]
    opt: tuple[int, ...]
    max: tuple[int, ...]

    @property
    def fixed(self) -> bool:
        """Whether it has one shape only."""
        return self.min == self.max

    def holds(self, shape: tuple[int, ...]) -> bool:
        """Say whether a shape lies within."""
        return len(shape) == len(self.min) and all(
            low <= size <= high for low, size, high in zip(self.min, shape, self.max, strict=True)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltBy:
    """What builds a plan: the library with its full version, CUDA's major.minor, the system."""

    backend: str
    version: str
    cuda: str
    system: str = field(default_factory=platform.system)
    machine: str = field(default_factory=platform.machine)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRecipe:
    """Everything that can change a plan.

    `targets` are compute capabilities such as `SM89`; `external_sha256` are the digests of weights
    in other files by their names, and `calibration_sha256` that of what an INT8 graph was made
    with; `limits` are in bytes, or levels of the builder.
    """

    onnx_sha256: str
    external_sha256: Mapping[str, str] = field(default_factory=dict)
    built_by: BuiltBy
    targets: tuple[str, ...]
    inputs: tuple[InputProfile, ...]
    precision: Precision
    precision_recipe: str
    calibration_sha256: str = ""
    flags: tuple[str, ...] = ()
    limits: Mapping[str, int] = field(default_factory=dict)

    def canonical(self) -> str:
        """Return it as canonical JSON: sorted keys, no spaces, ASCII."""
        table = asdict(self)
        table["targets"] = sorted(self.targets)
        table["flags"] = sorted(self.flags)
        table["inputs"] = sorted(table["inputs"], key=lambda item: str(item["name"]))
        return json.dumps(table, sort_keys=True, separators=(",", ":"), ensure_ascii=True)

    def key(self) -> str:
        """Return the SHA-256 (hex) of it."""
        return hashlib.sha256(self.canonical().encode("ascii")).hexdigest()


def profiles(graph: Graph, shapes: Mapping[str, ShapeTable]) -> tuple[InputProfile, ...]:
    """Return the profile of every input of a graph.

    Raises:
        ModelInvalidError: shapes are given for no input, do not fit the graph, or are missing for
            an input whose shape the graph leaves open.
    """
    unknown = sorted(set(shapes) - {item.name for item in graph.inputs})
    if unknown:
        raise ModelInvalidError(f"model.shapes.{unknown[0]}: the model has no such input")
    return tuple(_profile(item, shapes.get(item.name)) for item in graph.inputs)


def _profile(item: TensorSpec, wanted: ShapeTable | None) -> InputProfile:
    fixed = tuple(size for size in item.shape if size is not None)
    if wanted is None:
        if len(fixed) != len(item.shape):
            raise ModelInvalidError(
                f"model.shapes.{item.name}: is missing; the model leaves its shape open"
            )
        return InputProfile(name=item.name, type=item.type, min=fixed, opt=fixed, max=fixed)
    for shape in (wanted.min, wanted.opt, wanted.max):
        fits = len(shape) == len(item.shape) and all(
            want in {None, size} for want, size in zip(item.shape, shape, strict=True)
        )
        if not fits:
            raise ModelInvalidError(f"model.shapes.{item.name}: the model takes {item.shape}")
    return InputProfile(
        name=item.name, type=item.type, min=wanted.min, opt=wanted.opt, max=wanted.max
    )
