from __future__ import annotations

from pathlib import Path

import pytest

from engines.build import build_plan, make_order
from engines.devices import Gpu
from engines.errors import (
    DeviceMissingError,
    ModelInvalidError,
    PlanChangedError,
    PlanDeviceError,
    PlanError,
    PlanVersionError,
    ProfileError,
)
from engines.manifest import ShapeTable
from engines.plan_key import InputProfile
from engines.plan_loading import (
    KeptBeside,
    built_by,
    check_shapes,
    open_plan,
    refuse_plan,
    target_of,
)
from engines.runtimes.tensorrt import find_library
from engines.tensorrt_api import Library
from tests.engines.nets import small_net
from tests.no_device import without_a_device

SHAPES = {"x": ShapeTable(min=(1, 1, 8, 8), opt=(2, 1, 8, 8), max=(4, 1, 8, 8))}
INPUTS = (InputProfile(name="x", type="FLOAT", min=(1, 8), opt=(2, 8), max=(4, 8)),)


@pytest.fixture(scope="module")
def library() -> Library:
    return find_library("tensorrt_rtx")


@pytest.fixture(scope="module")
def plan(library: Library) -> bytes:
    order = make_order(small_net(), SHAPES, precision="float32", target="SM89", workspace_mib=64)
    return build_plan(library, order).plan


@without_a_device
def test_a_sound_plan_without_a_device_is_a_missing_device(library: Library, plan: bytes) -> None:
    with pytest.raises(DeviceMissingError, match=r"no NVIDIA driver.*tensorrt_rtx: .*CUDA"):
        open_plan(library, plan)


@pytest.mark.parametrize("size", [0, 20])
def test_what_is_no_plan_is_seen_by_the_library_too(
    library: Library, plan: bytes, size: int
) -> None:
    with pytest.raises(PlanChangedError, match="MALFORMED_ENGINE"):
        open_plan(library, plan[:size])


@pytest.mark.parametrize(
    ("diagnostics", "error"),
    [(1, PlanVersionError), (2, PlanDeviceError), (32, PlanChangedError), (35, PlanVersionError)],
)
def test_what_the_library_says_of_a_plan_becomes_our_error(
    library: Library, diagnostics: int, error: type[PlanError]
) -> None:
    with pytest.raises(error, match=library.__version__):
        refuse_plan(library, diagnostics)


def test_a_plan_of_which_nothing_is_said_is_not_refused(library: Library) -> None:
    refuse_plan(library, 0)


def test_who_builds_is_told_with_full_version_and_cuda(library: Library) -> None:
    found = built_by(library)
    assert found.backend == "tensorrt_rtx"
    assert found.version.count(".") == 3
    assert found.cuda.endswith("wheels 13")
    assert found.system
    assert found.machine


def test_a_device_that_the_library_names_is_the_target(library: Library) -> None:
    def gpu(capability: str) -> Gpu:
        return Gpu(index=0, name="a device", capability=capability, memory_mib=1)

    assert target_of(library, gpu("SM89")) == "SM89"
    assert target_of(library, gpu("SM90")) == "CURRENT"


def test_a_shape_outside_the_profile_is_refused() -> None:
    check_shapes(INPUTS, {"x": (4, 8)})
    for shape in ((5, 8), (4, 9), (4,)):
        with pytest.raises(ProfileError, match=r"x has the shape .* the plan takes \(1, 8\) to"):
            check_shapes(INPUTS, {"x": shape})
    with pytest.raises(ModelInvalidError, match=r"takes \['x'\], not \['y'\]"):
        check_shapes(INPUTS, {"y": (4, 8)})


def test_timings_are_kept_by_library_and_device(tmp_path: Path) -> None:
    from engines.build import Built

    order = make_order(small_net(), SHAPES, precision="float32", target="SM89", workspace_mib=64)
    kept = KeptBeside(tmp_path, "tensorrt-11.0-SM90")
    assert kept.with_timing(order).timing == b""
    kept.keep_timing(Built(plan=b"plan", timing=b"timings"))
    assert kept.with_timing(order).timing == b"timings"
    assert KeptBeside(tmp_path, "tensorrt-11.1-SM90").with_timing(order).timing == b""
    assert KeptBeside(None, "x").kernels("key") is None
