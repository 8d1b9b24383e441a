"""What every runtime must keep, and what each that can run here must give.

The runtimes are those that are found. Each runs every kind of task in `../tasks`.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from engines.base import Loading, Runtime, Session, discover
from engines.errors import (
    DeviceMissingError,
    InferenceError,
    ModelEmptyError,
    ModelInvalidError,
    UnavailableError,
)
from engines.manifest import ShapeTable
from engines.runtimes.onnxruntime import OnnxRuntime
from tests.engines.nets import doubled, model, small_net, typed

RUNTIMES = discover("runtimes", Runtime)  # type: ignore[type-abstract]  # a plugin base is abstract
HERE = sorted(name for name, runtime in RUNTIMES.items() if runtime().is_available().available)
NOT_HERE = sorted(set(RUNTIMES) - set(HERE))
LIBRARIES = ", ".join(sorted({name for kind in RUNTIMES.values() for name in kind.requires}))


def load(name: str, data: bytes) -> Session:
    runtime = RUNTIMES[name]()
    axes = ShapeTable(min=(1,), opt=(2,), max=(8,))
    how = Loading(device=runtime.devices[0], shapes={"x": axes})
    return runtime.load(data, threads=1, how=how)


def load_small(name: str) -> Session:
    runtime = RUNTIMES[name]()
    shapes = {"x": ShapeTable(min=(1, 1, 8, 8), opt=(2, 1, 8, 8), max=(2, 1, 8, 8))}
    how = Loading(device=runtime.devices[0], shapes=shapes)
    return runtime.load(small_net(), threads=1, how=how)


def test_more_than_one_runtime_can_run_here() -> None:
    assert {"onnxruntime", "openvino"} <= set(HERE)


@pytest.mark.parametrize("name", sorted(RUNTIMES))
def test_a_runtime_names_its_packages_devices_and_precisions(name: str) -> None:
    runtime = RUNTIMES[name]
    assert runtime.requires
    assert runtime.devices
    assert "float32" in runtime.precisions
    for device in runtime.devices:
        found = runtime().is_available(device)
        assert found.available != bool(found.reason)
        assert not (found.available and found.device_missing)


@pytest.mark.parametrize("name", sorted(RUNTIMES))
def test_importing_a_runtime_imports_no_library(name: str) -> None:
    code = (
        f"import engines.runtimes.{name}, sys;"
        f"sys.exit(any(name in sys.modules for name in '{LIBRARIES}'.split(', ')))"
    )
    root = Path(__file__).parents[3]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


@pytest.mark.parametrize("name", NOT_HERE)
def test_a_runtime_that_is_not_here_says_why_when_it_is_loaded(name: str) -> None:
    found = RUNTIMES[name]().is_available()
    kind = DeviceMissingError if found.device_missing else UnavailableError
    with pytest.raises(kind) as caught:
        load(name, doubled())
    assert str(caught.value) == found.reason


@pytest.mark.parametrize("name", sorted(RUNTIMES))
@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", ModelEmptyError),
        (b"not a model", ModelInvalidError),
        (doubled()[:-20], ModelInvalidError),
        (bytes(100), ModelInvalidError),
        (model([]), ModelInvalidError),
    ],
)
def test_what_is_no_model_is_refused_by_all(
    name: str, data: bytes, error: type[ModelInvalidError]
) -> None:
    with pytest.raises(error):
        load(name, data)


@pytest.mark.parametrize("name", sorted(RUNTIMES))
def test_weights_in_another_file_are_refused_by_all(name: str) -> None:
    weights = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2])
    weights.data_location = TensorProto.EXTERNAL
    weights.external_data.add(key="location", value="../../../etc/passwd")
    with pytest.raises(ModelInvalidError, match="another file"):
        load(name, model([helper.make_node("Add", ["x", "w"], ["y"])], [weights], takes=["n"]))


@pytest.mark.parametrize("name", HERE)
def test_named_arrays_go_in_and_come_out(name: str) -> None:
    session = load(name, doubled())
    for values in ([1.0, 2.5], [3.0]):
        outputs = session.run({"x": np.array(values, np.float32)})
        assert list(outputs) == ["y"]
        assert outputs["y"].dtype == np.float32
        assert outputs["y"].tolist() == [2 * value for value in values]


@pytest.mark.parametrize("name", HERE)
def test_outputs_have_the_type_and_shape_that_the_model_gives_them(name: str) -> None:
    values = np.array([-1.5, 0.0, 2.5], np.float32)
    outputs = load(name, typed()).run({"x": values})
    assert {key: array.dtype for key, array in outputs.items()} == {
        "whole": np.dtype(np.int64), "above": np.dtype(np.bool_), "square": np.dtype(np.float32),
    }  # fmt: skip
    assert outputs["whole"].tolist() == [-1, 0, 2]
    assert outputs["above"].tolist() == [False, False, True]
    assert outputs["square"].tolist() == [[2.25, 0.0, 6.25]]


@pytest.mark.parametrize("name", HERE)
def test_the_same_input_gives_the_same_bytes_at_every_run(name: str) -> None:
    pixels = np.random.default_rng(2).standard_normal((2, 1, 8, 8)).astype(np.float32)
    session = load_small(name)
    assert len({session.run({"x": pixels})["y"].tobytes() for _ in range(3)}) == 1


@pytest.mark.parametrize("name", HERE)
def test_what_came_out_is_not_changed_by_the_next_run(name: str) -> None:
    session = load(name, doubled())
    first = session.run({"x": np.array([1.0], np.float32)})["y"]
    session.run({"x": np.array([9.0], np.float32)})
    assert first.tolist() == [2.0]


@pytest.mark.parametrize("name", HERE)
@pytest.mark.parametrize("names", [[], ["y"], ["x", "z"]])
def test_inputs_of_other_names_are_refused(name: str, names: list[str]) -> None:
    with pytest.raises(ModelInvalidError, match=r"takes \['x'\]"):
        load(name, doubled()).run({item: np.zeros(1, np.float32) for item in names})


@pytest.mark.parametrize("name", HERE)
def test_inputs_of_another_type_or_shape_are_an_inference_error(name: str) -> None:
    for values in (np.zeros(2, np.float64), np.zeros((2, 2), np.float32)):
        with pytest.raises(InferenceError):
            load(name, doubled()).run({"x": values})


@pytest.mark.parametrize("name", HERE)
def test_a_closed_session_does_not_run(name: str) -> None:
    session = load(name, doubled())
    session.close()
    session.close()
    with pytest.raises(InferenceError, match="closed"):
        session.run({"x": np.zeros(1, np.float32)})


@pytest.mark.parametrize("name", HERE)
def test_all_give_what_the_reference_gives(name: str) -> None:
    pixels = np.random.default_rng(1).standard_normal((2, 1, 8, 8)).astype(np.float32)
    found = load_small(name).run({"x": pixels})["y"]
    expected = OnnxRuntime().load(small_net(), threads=1).run({"x": pixels})["y"]
    assert np.abs(found.astype(float) - expected.astype(float)).max() < 1e-5
