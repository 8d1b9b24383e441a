from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from engines.base import PLAINLY, Arrays, Loading, Session
from engines.errors import DeviceMissingError, UnavailableError
from engines.importing import import_model
from engines.manifest import EnginePackage, ParityTable, RungTable, read_rung
from engines.package import load_package
from engines.release import REFERENCE, release_rung
from engines.runtimes.openvino import OpenVino
from engines.tasks.classification import ImageClassification
from engines.tasks.segmentation import Segmentation
from tests.engines.test_importing import LUNG, threshold_model
from tests.no_device import without_a_device

OPENVINO = RungTable(runtime="openvino")


@pytest.fixture(scope="module")
def lungs(tmp_path_factory: pytest.TempPathFactory) -> EnginePackage:
    folder = tmp_path_factory.mktemp("lungs")
    return import_model(threshold_model(folder / "net.onnx"), LUNG, folder / "package")


def test_another_runtime_that_gives_the_same_is_released(
    package: EnginePackage, lungs: EnginePackage
) -> None:
    for engine in (package, lungs):
        verdict = release_rung(engine, OPENVINO)
        assert verdict.passed, verdict.reason
        assert verdict.max_difference < 1e-5
        assert verdict.seconds > 0


def test_the_reference_agrees_with_itself(lungs: EnginePackage) -> None:
    verdict = release_rung(lungs, REFERENCE)
    assert (verdict.passed, verdict.max_difference) == (True, 0.0)


@pytest.mark.parametrize(
    ("rung", "reason"),
    [
        pytest.param(
            "tensorrt cuda float16",
            "DeviceMissingError: tensorrt: there is no NVIDIA driver",
            marks=without_a_device,
        ),
        ("onnxruntime cuda", "UnavailableError: onnxruntime: this ONNX Runtime has no CUDA"),
        ("openvino float16", "UnavailableError: openvino: runs in float32, not in float16"),
        ("tensorrt cpu", "UnavailableError: tensorrt: runs on cuda, not on cpu"),
        ("abacus", "PackageError: runtime: 'abacus' is not one of"),
    ],
)
def test_a_rung_that_cannot_run_here_is_not_released_and_says_why(
    lungs: EnginePackage, rung: str, reason: str
) -> None:
    verdict = release_rung(lungs, read_rung(rung))
    assert not verdict.passed
    assert math.isnan(verdict.max_difference)
    assert verdict.reason.startswith(reason)


class _Off(Session):
    """A real session whose outputs are made a little wrong."""

    def __init__(self, session: Session, by: float) -> None:
        self._session = session
        self._by = by

    def run(self, inputs: Arrays) -> Arrays:
        found = self._session.run(inputs)
        return {name: (array + self._by).astype(array.dtype) for name, array in found.items()}  # type: ignore[operator]

    def close(self) -> None:
        self._session.close()


def make_wrong(monkeypatch: pytest.MonkeyPatch, by: float) -> None:
    """Make OpenVINO give outputs that are off."""
    load = OpenVino.load

    def wrong(self: OpenVino, model: bytes, *, threads: int, how: Loading = PLAINLY) -> Session:
        return _Off(load(self, model, threads=threads, how=how), by)

    monkeypatch.setattr(OpenVino, "load", wrong)


def test_a_runtime_that_is_off_is_not_released(
    lungs: EnginePackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_wrong(monkeypatch, 0.1)
    verdict = release_rung(lungs, OPENVINO)
    assert not verdict.passed
    assert "the output prob differs by 0.1" in verdict.reason
    assert "0.02 is allowed" in verdict.reason


def test_the_measure_of_the_task_must_hold_as_well(
    lungs: EnginePackage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_wrong(monkeypatch, -0.499)
    folder = tmp_path / "copy"
    shutil.copytree(lungs.folder, folder)
    manifest = folder / "engine.toml"
    text = manifest.read_text()
    manifest.write_text(text.replace("[resources]", "[parity]\nmax_error = 1.0\n\n[resources]", 1))
    verdict = release_rung(load_package(folder), OPENVINO)
    assert not verdict.passed
    assert verdict.reason.startswith("segment 1 overlaps by ")
    assert "0.99 is asked for" in verdict.reason


def test_values_that_are_not_finite_are_never_released(
    lungs: EnginePackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_wrong(monkeypatch, math.nan)
    verdict = release_rung(lungs, OPENVINO)
    assert not verdict.passed
    assert "not finite" in verdict.reason


def test_tolerances_are_those_of_the_package() -> None:
    labels = np.zeros((2, 10, 10), np.uint8)
    labels[:, :5] = 1
    other = labels.copy()
    other[0, 0, 0] = 0
    task = Segmentation()
    assert task.disagreements({"labels": labels}, {"labels": other}, ParityTable()) == []
    (said,) = task.disagreements({"labels": labels}, {"labels": other}, ParityTable(dice=0.999))
    assert said.startswith("segment 1 overlaps by 0.995")
    nothing = {"labels": np.zeros_like(labels)}
    assert task.disagreements(nothing, nothing, ParityTable()) == []
    assert task.disagreements({"labels": labels}, nothing, ParityTable())
    assert task.disagreements(nothing, {"labels": labels}, ParityTable())


def test_probabilities_are_held_to_their_own_tolerance() -> None:
    task = ImageClassification()
    one, two = ({"scores": np.array([[0.2, share]])} for share in (0.80, 0.83))
    assert task.disagreements(one, two, ParityTable(probability=0.04)) == []
    (said,) = task.disagreements(one, two, ParityTable())
    assert said.startswith("a probability differs by 0.03, 0.01 is allowed")


@pytest.mark.parametrize(
    ("text", "rung"),
    [
        ("onnxruntime", RungTable(runtime="onnxruntime")),
        (
            "tensorrt cuda float16",
            RungTable(runtime="tensorrt", device="cuda", precision="float16"),
        ),
        ("openvino float32 cpu", RungTable(runtime="openvino")),
    ],
)
def test_rungs_are_read_as_a_person_writes_them(text: str, rung: RungTable) -> None:
    assert read_rung(text) == rung
    assert read_rung(str(rung)) == rung


@pytest.mark.parametrize("text", ["", "openvino gpu", "openvino float8", "Tensor RT"])
def test_words_that_are_no_rung_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"rung|precision|runtime"):
        read_rung(text)


def test_a_missing_device_is_an_unavailable_runtime() -> None:
    assert issubclass(DeviceMissingError, UnavailableError)
