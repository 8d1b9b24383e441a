from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping

import pytest

from engines.errors import ModelInvalidError
from engines.graphs import Graph, TensorSpec
from engines.manifest import ShapeTable
from engines.plan_key import BuiltBy, InputProfile, PlanRecipe, profiles

INPUT = InputProfile(name="x", type="FLOAT", min=(1, 1), opt=(4, 1), max=(8, 1))
OTHER = InputProfile(name="a", type="INT64", min=(1,), opt=(1,), max=(1,))
BUILT_BY = BuiltBy(
    backend="tensorrt_rtx", version="1.7.1.116", cuda="13.0", system="Linux", machine="x86_64"
)
RECIPE = PlanRecipe(
    onnx_sha256="aa",
    external_sha256={"weights.bin": "bb"},
    built_by=BUILT_BY,
    targets=("SM80", "SM89"),
    inputs=(INPUT, OTHER),
    precision="float16",
    precision_recipe="casts 1",
    calibration_sha256="cc",
    flags=("strongly typed", "tf32"),
    limits={"workspace_mib": 64, "level": 3},
)


def built(**changes: str) -> dict[str, object]:
    return {"built_by": dataclasses.replace(BUILT_BY, **changes)}


def input_with(**changes: object) -> dict[str, object]:
    return {"inputs": (dataclasses.replace(INPUT, **changes), OTHER)}  # type: ignore[arg-type]


CHANGES: Mapping[str, dict[str, object]] = {
    "the model": {"onnx_sha256": "ab"},
    "weights in another file": {"external_sha256": {"weights.bin": "bc"}},
    "the name of such a file": {"external_sha256": {"weights.dat": "bb"}},
    "the back end": built(backend="tensorrt"),
    "its version": built(version="1.7.1.117"),
    "CUDA": built(cuda="13.1"),
    "the operating system": built(system="Windows"),
    "the architecture": built(machine="aarch64"),
    "the targets": {"targets": ("SM80",)},
    "the type of an input": input_with(type="FLOAT16"),
    "the name of an input": input_with(name="y"),
    "the least shape": input_with(min=(2, 1)),
    "the usual shape": input_with(opt=(5, 1)),
    "the largest shape": input_with(max=(9, 1)),
    "the precision": {"precision": "float32"},
    "how the precision is made": {"precision_recipe": "casts 2"},
    "the calibration": {"calibration_sha256": "cd"},
    "a flag": {"flags": ("strongly typed",)},
    "a limit": {"limits": {"workspace_mib": 65, "level": 3}},
    "the level": {"limits": {"workspace_mib": 64, "level": 4}},
}


@pytest.mark.parametrize("what", CHANGES)
def test_whatever_can_change_a_plan_changes_its_key(what: str) -> None:
    changed = dataclasses.replace(RECIPE, **CHANGES[what])  # type: ignore[arg-type]
    assert changed.key() != RECIPE.key()


def test_every_field_of_a_recipe_is_covered_by_a_change() -> None:
    names = {name for change in CHANGES.values() for name in change}
    assert names == {field.name for field in dataclasses.fields(PlanRecipe)}


def test_the_order_in_which_things_are_told_does_not_change_the_key() -> None:
    turned = dataclasses.replace(
        RECIPE,
        targets=("SM89", "SM80"),
        inputs=(OTHER, INPUT),
        flags=("tf32", "strongly typed"),
        limits={"level": 3, "workspace_mib": 64},
    )
    assert turned.key() == RECIPE.key()


def test_the_canonical_form_is_plain_json_with_sorted_keys() -> None:
    text = RECIPE.canonical()
    table = json.loads(text)
    assert text == json.dumps(table, sort_keys=True, separators=(",", ":"))
    assert text.isascii()
    assert table["built_by"]["version"] == "1.7.1.116"


GRAPH = Graph(
    sha256="00",
    inputs=(
        TensorSpec(name="x", type="FLOAT", shape=(None, 1, 8)),
        TensorSpec(name="fixed", type="FLOAT", shape=(2, 2)),
    ),
    outputs=("y",),
)


def shapes(*sizes: tuple[int, ...]) -> dict[str, ShapeTable]:
    low, usual, high = sizes
    return {"x": ShapeTable(min=low, opt=usual, max=high)}


def test_profiles_come_from_the_package_and_fixed_shapes_from_the_model() -> None:
    first, second = profiles(GRAPH, shapes((1, 1, 8), (2, 1, 8), (4, 1, 8)))
    assert (first.min, first.opt, first.max) == ((1, 1, 8), (2, 1, 8), (4, 1, 8))
    assert not first.fixed
    assert second.fixed
    assert second.opt == (2, 2)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, r"model\.shapes\.x: is missing; the model leaves its shape open"),
        (shapes((1, 2, 8), (2, 2, 8), (4, 2, 8)), r"model\.shapes\.x: the model takes"),
        (shapes((1, 1), (1, 1), (1, 1)), r"model\.shapes\.x: the model takes"),
        (
            {"z": ShapeTable(min=(1,), opt=(1,), max=(1,))},
            r"model\.shapes\.z: the model has no such input",
        ),
    ],
)
def test_shapes_that_do_not_fit_the_model_are_refused(
    given: dict[str, ShapeTable], message: str
) -> None:
    with pytest.raises(ModelInvalidError, match=message):
        profiles(GRAPH, given)


@pytest.mark.parametrize(
    ("shape", "inside"),
    [((1, 1), True), ((8, 1), True), ((9, 1), False), ((0, 1), False), ((4,), False)],
)
def test_a_profile_knows_which_shapes_it_holds(shape: tuple[int, ...], inside: bool) -> None:
    assert INPUT.holds(shape) is inside
