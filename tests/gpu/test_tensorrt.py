"""TensorRT on a real device: plans are built, kept, loaded and run, and give what the CPU gives."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from engines.base import Loading, Session
from engines.devices import find_devices
from engines.errors import InferenceError, PlanDeviceError, ProfileError
from engines.manifest import Precision, RungTable, ShapeTable
from engines.package import load_package, shipped_folder
from engines.plan_loading import open_plan
from engines.release import release_rung
from engines.runtimes.onnxruntime import OnnxRuntime
from engines.runtimes.tensorrt import TensorRt, TensorRtSession, find_library
from tests.engines.nets import small_net

pytestmark = pytest.mark.gpu

OPEN = {"x": ShapeTable(min=(1, 1, 8, 8), opt=(2, 1, 8, 8), max=(4, 1, 8, 8))}
FIXED = {"x": ShapeTable(min=(2, 1, 8, 8), opt=(2, 1, 8, 8), max=(2, 1, 8, 8))}
PIXELS = np.random.default_rng(1).standard_normal((2, 1, 8, 8)).astype(np.float32)


def load(folder: Path, shapes: dict[str, ShapeTable], precision: Precision = "float32") -> Session:
    how = Loading(device="cuda", precision=precision, shapes=shapes, plans=folder)
    return TensorRt().load(small_net(), threads=1, how=how)


@pytest.fixture(scope="module")
def expected() -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
    return OnnxRuntime().load(small_net(), threads=1).run({"x": PIXELS})["y"]


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    opened = load(tmp_path, OPEN)
    yield opened
    opened.close()


def test_the_device_is_named_with_its_driver() -> None:
    found = find_devices()
    assert found.gpus[0].capability.startswith("SM")
    assert found.gpus[0].memory_mib > 1000
    assert "." in found.driver_cuda
    assert TensorRt().is_available().available


@pytest.mark.parametrize(
    ("precision", "allowed"), [("float32", 1e-5), ("tf32", 1e-2), ("float16", 1e-2)]
)
@pytest.mark.parametrize("shapes", [OPEN, FIXED], ids=["open shapes", "fixed shapes, replayed"])
def test_a_plan_gives_what_the_reference_gives(
    precision: Precision,
    allowed: float,
    shapes: dict[str, ShapeTable],
    tmp_path: Path,
    expected: np.ndarray[tuple[int, ...], np.dtype[np.float32]],
) -> None:
    opened = load(tmp_path, shapes, precision)
    for _ in range(3):  # the second run replays what the first one captured
        found = opened.run({"x": PIXELS})["y"]
        assert np.abs(found.astype(float) - expected.astype(float)).max() < allowed
    opened.close()


def test_a_plan_is_kept_and_loaded_again(tmp_path: Path) -> None:
    load(tmp_path, OPEN).close()
    (plan,) = tmp_path.glob("*.plan")
    built = plan.stat().st_mtime_ns
    again = load(tmp_path, OPEN)
    assert again.run({"x": PIXELS})["y"].shape == (2, 2, 8, 8)
    assert plan.stat().st_mtime_ns == built


def test_a_shape_that_the_plan_was_not_built_for_is_refused(session: Session) -> None:
    with pytest.raises(ProfileError, match="the plan takes"):
        session.run({"x": np.zeros((5, 1, 8, 8), np.float32)})


def test_tensors_of_the_device_stay_there(session: Session) -> None:
    torch = pytest.importorskip("torch")
    assert isinstance(session, TensorRtSession)
    found = session.run_tensors({"x": torch.from_numpy(PIXELS).cuda()})["y"]
    assert found.is_cuda
    with pytest.raises(InferenceError, match="on the device"):
        session.run_tensors({"x": torch.from_numpy(PIXELS)})


def test_a_plan_for_another_device_is_refused() -> None:
    from engines.build import build_plan, make_order

    library = find_library("tensorrt_rtx")
    here = find_devices().gpus[0].capability
    other = "SM75" if here != "SM75" else "SM89"
    order = make_order(small_net(), OPEN, precision="float32", target=other, workspace_mib=64)
    with pytest.raises(PlanDeviceError):
        open_plan(library, build_plan(library, order).plan)


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_every_engine_that_ships_is_released_on_the_device(
    precision: Precision, tmp_path: Path
) -> None:
    package = load_package(shipped_folder() / "ct_body_composition")
    rung = RungTable(runtime="tensorrt", device="cuda", precision=precision)
    verdict = release_rung(package, rung, plans=tmp_path)
    assert verdict.passed, verdict.reason
