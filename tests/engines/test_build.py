"""Plans are really built here: TensorRT for RTX needs no device for that."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
from onnx import helper

from engines.build import BuildOrder, build_plan, make_order, out_of_profile, recipe_of
from engines.build_apart import build_apart
from engines.errors import (
    ModelEmptyError,
    ModelInvalidError,
    ModelUnsupportedError,
    OutOfMemoryError,
    PlanBuildError,
)
from engines.graphs import read_graph
from engines.manifest import EnginePackage, Precision, ShapeTable
from engines.package import find_packages, load_package, shipped_folder
from engines.plan_loading import built_by
from engines.quantised import with_plain_biases
from engines.runtimes.tensorrt import MODULE, find_library
from engines.tensorrt_api import Library
from tests.engines.nets import model, quantised, small_net

BACKEND = "tensorrt_rtx"
TARGETS = ("SM75", "SM80", "SM86", "SM89", "SM120")
PIXELS = {"x": ShapeTable(min=(1, 1, 8, 8), opt=(2, 1, 8, 8), max=(4, 1, 8, 8))}
LUNG = {"image": ShapeTable(min=(1, 1, 256, 256), opt=(4, 1, 256, 256), max=(4, 1, 256, 256))}


@pytest.fixture(scope="module")
def library() -> Library:
    return find_library(BACKEND)


def order(
    data: bytes,
    target: str = "SM89",
    precision: Precision = "float32",
    shapes: dict[str, ShapeTable] | None = None,
) -> BuildOrder:
    return make_order(
        data,
        PIXELS if shapes is None else shapes,
        precision=precision,
        target=target,
        workspace_mib=1024,
    )


def digest(plan: bytes) -> str:
    return hashlib.sha256(plan).hexdigest()


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("folder", find_packages([shipped_folder()]), ids=lambda path: path.name)
def test_plans_of_every_engine_that_ships_come_out_the_same_twice(
    folder: Path, target: str
) -> None:
    package = load_package(folder)
    wanted = order(
        package.read_file(package.manifest.model.file),
        target,
        shapes=dict(package.manifest.model.shapes),
    )
    first, second = (build_apart(wanted, backend=BACKEND, module=MODULE) for _ in range(2))
    assert len(first.plan) > 1000
    assert digest(first.plan) == digest(second.plan)


def test_a_net_with_branches_comes_out_the_same_twice(shared: Callable[[str], Path]) -> None:
    data = shared("models/lung_unet_ct/lung_unet.onnx").read_bytes()
    wanted = order(data, "SM89", "float16", LUNG)
    first, second = (build_apart(wanted, backend=BACKEND, module=MODULE) for _ in range(2))
    assert digest(first.plan) == digest(second.plan)


NETS = (
    "brain_deepbet/model.onnx",
    "brain_deepbet/bbox_model.onnx",
    "brain_hippodeep/affine.onnx",
    "brain_hippodeep/head.onnx",
    "brain_hippodeep/hippo.onnx",
    "brain_meshnet_18/subcortical_18cls.onnx",
    "brain_meshnet_gwm/gwm_20ch.onnx",
    "brain_meshnet_gwm/gwm_light_5ch.onnx",
    "brain_mindgrab/mindgrab.onnx",
    "cxr_nih_mobilenetv3/cxr_mobilenetv3_fp32.onnx",
    "lung_unet_ct/lung_unet.onnx",
    "lv_unet_sunnybrook/lv_unet.onnx",
    "nuclei_unet2d_broad/weights.onnx",
)


@pytest.mark.parametrize("name", NETS)
def test_published_nets_are_built_in_half_precision_for_old_and_new_devices(
    name: str, shared: Callable[[str], Path], library: Library
) -> None:
    data = shared(f"models/{name}").read_bytes()
    shapes = {item.name: open_shape(item.shape) for item in read_graph(data).inputs}
    for target in ("SM75", "SM120"):
        assert build_plan(library, order(data, target, "float16", shapes)).plan


def open_shape(shape: tuple[int | None, ...]) -> ShapeTable:
    """Return shapes for a net: one to two in a batch, 32 to 96 along open axes."""

    def at(batch: int, size: int) -> tuple[int, ...]:
        return tuple(known or (batch if axis == 0 else size) for axis, known in enumerate(shape))

    return ShapeTable(min=at(1, 32), opt=at(1, 64), max=at(2, 96))


def test_what_changes_a_plan_changes_its_digest(library: Library) -> None:
    wanted = order(small_net())
    wider = {"x": PIXELS["x"].model_copy(update={"max": (9, 1, 8, 8)})}
    plans = [
        build_plan(library, item).plan
        for item in (
            wanted,
            order(small_net(), "SM75"),
            order(small_net(), precision="float16"),
            order(small_net(), shapes=wider),
            order(small_net(0.3)),
        )
    ]
    assert len({digest(plan) for plan in plans}) == len(plans)


def test_the_recipe_names_who_builds_and_for_what(library: Library, package: EnginePackage) -> None:
    data = package.read_file("model.onnx")
    shapes = dict(package.manifest.model.shapes)
    half, full = (order(data, "SM89", p, shapes) for p in ("float16", "float32"))
    recipe = recipe_of(half, read_graph(data), built_by(library), "")
    assert recipe.onnx_sha256 == hashlib.sha256(data).hexdigest()
    assert recipe.built_by.backend == BACKEND
    assert recipe.built_by.version == library.__version__
    assert recipe.targets == ("SM89",)
    assert {item.name: item.max for item in recipe.inputs}["image"] == (8, 1, 1024, 1024)
    assert recipe.key() != recipe_of(full, read_graph(data), built_by(library), "").key()


def test_a_target_that_is_the_device_here_is_named_in_the_recipe(library: Library) -> None:
    wanted = order(small_net(), "CURRENT")
    recipe = recipe_of(wanted, read_graph(small_net()), built_by(library), "SM90 NVIDIA H200")
    assert recipe.targets == ("SM90 NVIDIA H200",)


def test_an_empty_model_is_refused_though_the_parser_takes_it(library: Library) -> None:
    with pytest.raises(ModelEmptyError):
        order(b"")
    with pytest.raises(ModelEmptyError, match="no input or no output"):
        build_plan(library, dataclasses.replace(order(small_net()), model=b""))


def test_a_truncated_model_is_refused(library: Library) -> None:
    with pytest.raises(ModelInvalidError):
        order(small_net()[:-40])
    cut = dataclasses.replace(order(small_net()), model=small_net()[:-40])
    with pytest.raises(ModelUnsupportedError, match="the parser refuses the model"):
        build_plan(library, cut)


def test_an_operator_that_is_not_known_is_named(library: Library) -> None:
    data = model([helper.make_node("Prophecy", ["x"], ["y"], domain="else")])
    with pytest.raises(ModelUnsupportedError, match="Prophecy"):
        build_plan(library, order(data))


def test_quantised_nets_are_taken_once_their_biases_are_plain(library: Library) -> None:
    with pytest.raises(ModelUnsupportedError, match="Int32"):
        build_plan(library, order(quantised()))
    assert build_plan(library, order(with_plain_biases(quantised()))).plan


def test_quantised_nets_with_another_zero_point_are_refused(library: Library) -> None:
    with pytest.raises(ModelUnsupportedError, match="zero point"):
        build_plan(library, order(with_plain_biases(quantised(zero=-128))))


def test_a_device_that_lacks_an_operation_is_named(shared: Callable[[str], Path]) -> None:
    """Turing has no float32 convolution in three dimensions, and has it in float16."""
    data = shared("models/brain_mindgrab/mindgrab.onnx").read_bytes()
    shapes = {"t1": open_shape((1, 1, None, None, None))}
    with pytest.raises(ModelUnsupportedError, match=r"not for SM75: .*3D convolution"):
        build_apart(order(data, "SM75", shapes=shapes), backend=BACKEND, module=MODULE)


def test_a_target_that_is_not_known_is_refused(library: Library) -> None:
    with pytest.raises(PlanBuildError, match="builds for no SM13"):
        build_plan(library, order(small_net(), "SM13"))


def test_a_workspace_that_is_too_small_is_a_lack_of_memory(
    library: Library, package: EnginePackage
) -> None:
    wanted = order(package.read_file("model.onnx"), shapes=dict(package.manifest.model.shapes))
    with pytest.raises(OutOfMemoryError, match="SM89"):
        build_plan(library, dataclasses.replace(wanted, workspace_mib=1))


def test_shapes_that_a_plan_was_not_built_for_are_told() -> None:
    inputs = order(small_net()).inputs
    assert list(out_of_profile(inputs, {"x": (4, 1, 8, 8)})) == []
    (sentence,) = out_of_profile(inputs, {"x": (5, 1, 8, 8)})
    assert sentence == "x has the shape (5, 1, 8, 8); the plan takes (1, 1, 8, 8) to (4, 1, 8, 8)"


def test_errors_of_a_build_apart_keep_their_type() -> None:
    with pytest.raises(PlanBuildError, match="builds for no SM13"):
        build_apart(order(small_net(), "SM13"), backend=BACKEND, module=MODULE)


def test_a_build_that_ends_without_an_answer_is_an_error() -> None:
    with pytest.raises(PlanBuildError, match="ended with status 1 and no answer"):
        build_apart(order(small_net()), backend=BACKEND, module="engines.no_such_module")
