from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from engines.errors import InferenceError
from engines.runtimes.openvino import OpenVino
from tests.engines.nets import doubled

CODE = """
import sys
from engines.runtimes.openvino import OpenVino
from tests.engines.nets import doubled
OpenVino().load(doubled(), threads=1)
sys.exit(any(name.startswith("openvino_telemetry") and sys.modules[name] for name in sys.modules))
"""


def test_nothing_that_reports_to_the_maker_is_loaded() -> None:
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", CODE], cwd=root, check=False)
    assert done.returncode == 0


def test_it_is_available_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert OpenVino().is_available().available
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    assert OpenVino().is_available().reason == "the package openvino is not installed"


def test_whole_numbers_that_are_asked_for_are_not_made_of_others() -> None:
    session = OpenVino().load(doubled(), threads=1)
    with pytest.raises(InferenceError, match="x is int64, the model takes float32"):
        session.run({"x": np.zeros(2, np.int64)})


STARVED = """
import resource
import numpy as np
from onnx import helper
from engines.errors import OutOfMemoryError
from engines.runtimes.openvino import OpenVino
from tests.engines.nets import model
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
size = helper.make_tensor("size", 7, [1], [1 << 36])
data = model([helper.make_node("Expand", ["x", "size"], ["y"])], [size], takes=["n"])
try:
    OpenVino().load(data, threads=1).run({"x": np.zeros(1, np.float32)})
except OutOfMemoryError as error:
    print(error.kind)
"""


def test_a_lack_of_memory_is_told_apart_under_the_limit_that_a_sandbox_sets() -> None:
    """Without a limit OpenVINO takes what the machine has: never run this outside such a child."""
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", STARVED], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout == "out_of_memory\n"
