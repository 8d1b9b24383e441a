"""A plan of every engine that ships, for every device it may meet, really built, twice the same.

The reference engine's are built in `test_build`. Where ../shared is absent these are named as not
run; see `shared_data`.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeAlias

import pytest

from engines.build import BuildOrder, make_order
from engines.build_apart import build_apart
from engines.errors import ModelUnsupportedError
from engines.package import EnginePackage
from engines.runtimes.tensorrt import MODULE
from engines.shipped_answers import find_answers, find_weights, import_shipped, model_files

Find: TypeAlias = Callable[[str], Path]
Shipped: TypeAlias = Callable[[str], EnginePackage]

ANSWERS: Final = Path(__file__).parents[2] / "config" / "engines"
BACKEND: Final = "tensorrt_rtx"
TARGETS: Final = ("SM75", "SM80", "SM86", "SM89", "SM120")
MODELS: Final = tuple(
    (path.parent.name, file) for path in find_answers(ANSWERS) for file in model_files(path)
)
ON_NO_DEVICE: Final = {("cxr_nih_mobilenetv3_int8", "model_int8.onnx")}
"""Its activations have zero points, which the parser does not take."""
NOT_ON_TURING: Final = {
    ("brain_deepbet", "model.onnx"),
    ("brain_deepbet", "bbox_model.onnx"),
    ("brain_hippodeep", "hippo.onnx"),
    ("brain_hippodeep", "head.onnx"),
    ("brain_hippodeep", "affine.onnx"),
    ("brain_meshnet_18", "subcortical_18cls.onnx"),
    ("brain_meshnet_gwm", "gwm_20ch.onnx"),
    ("brain_meshnet_gwm_light", "gwm_light_5ch.onnx"),
    ("brain_mindgrab", "mindgrab.onnx"),
    ("brain_mindgrab_ct", "mindgrab.onnx"),
    ("cxr_nih_mobilenetv3", "cxr_mobilenetv3_fp32.onnx"),
}
"""SM75 has no float32 convolution in three dimensions, nor a grouped one."""


@pytest.fixture(scope="module")
def shipped(shared: Find, tmp_path_factory: pytest.TempPathFactory) -> Shipped:
    """Return an engine that ships as a package, made once."""
    made: dict[str, EnginePackage] = {}

    def package(name: str) -> EnginePackage:
        if name not in made:
            answers = ANSWERS / name / "engine.toml"
            weights = find_weights(answers, shared("models"))
            if weights is None:
                pytest.skip(f"NOT RUN: the weights of {name} are not in ../shared/models")
            target = tmp_path_factory.mktemp("shipped") / name
            made[name] = import_shipped(answers, weights, target)
        return made[name]

    return package


@pytest.fixture(scope="module")
def built() -> dict[str, str]:
    """Return the digests of the plans that were built twice; two engines may share a net."""
    return {}


def order(package: EnginePackage, file: str, target: str) -> BuildOrder:
    model = package.manifest.model
    (part,) = [item for item in (model, *model.parts.values()) if item.file == file]
    return make_order(
        package.read_file(file),
        part.shapes,
        precision="float32",
        target=target,
        workspace_mib=package.manifest.resources.device_mib,
    )


def sameness(wanted: BuildOrder) -> str:
    """Return what is the same for two engines that share a net and its shapes."""
    others = dataclasses.replace(wanted, model=b"")
    return f"{hashlib.sha256(wanted.model).hexdigest()} {others}"


def plan_digest(wanted: BuildOrder) -> str:
    plan = build_apart(wanted, backend=BACKEND, module=MODULE).plan
    assert len(plan) > 1000
    return hashlib.sha256(plan).hexdigest()


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("name", "file"), MODELS)
def test_plans_of_engines_that_ship_come_out_the_same_twice_or_are_refused_by_name(
    name: str, file: str, target: str, shipped: Shipped, built: dict[str, str]
) -> None:
    wanted = order(shipped(name), file, target)
    if (name, file) in ON_NO_DEVICE:
        with pytest.raises(ModelUnsupportedError, match=r"the parser refuses the model: .*zero"):
            plan_digest(wanted)
    elif target == "SM75" and (name, file) in NOT_ON_TURING:
        with pytest.raises(ModelUnsupportedError, match=r"not for SM75: .*check_turing_op"):
            plan_digest(wanted)
    elif (same := sameness(wanted)) not in built:
        built[same] = plan_digest(wanted)
        assert plan_digest(wanted) == built[same]
