"""Which engines take jobs, on which rung of their ladder: with real runtimes, in a sandbox."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from structlog.testing import capture_logs

from engines.importing import import_model
from engines.manifest import RungTable
from engines.packing import write_arrays
from node.catalogue import Catalogue, CatalogueError
from node.clock import system_clock
from node.sandbox import Sandbox
from storage.database import Database, migrate
from storage.engines import EngineStore
from storage.records import EngineRecord
from storage.states import EngineState
from tests.no_device import without_a_device

LUNG = Path(__file__).parents[2] / "config" / "engines" / "lung_unet_ct" / "engine.toml"
TENSORRT = RungTable(runtime="tensorrt", device="cuda", precision="float16")
TENSORRT_WHOLE = RungTable(runtime="tensorrt", device="cuda")
OPENVINO = RungTable(runtime="openvino", soft_deadline_seconds=7.0, hard_deadline_seconds=9.0)
NAME = "lung-unet-ct"


def smoothing_net(path: Path) -> Path:
    """Write a net that smooths: sums in another order give other last digits."""
    weights = np.random.default_rng(3).random((1, 1, 9, 9)).astype(np.float32) / 20
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["image", "w"], ["a"], pads=[4, 4, 4, 4]),
            helper.make_node("Sigmoid", ["a"], ["prob"]),
        ],
        "smooth",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 1, "h", "w"])],
        [helper.make_tensor_value_info("prob", TensorProto.FLOAT, ["n", 1, "h", "w"])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(onnx.ModelProto.SerializeToString(model))
    return path


@dataclass
class Site:
    """A database, a sandbox, and a folder of engine packages."""

    folder: Path
    store: EngineStore
    sandbox: Sandbox

    def engine(self, tables: str = "") -> None:
        """Import the engine, with more tables in its answers."""
        answers = self.folder / "answers.toml"
        text = LUNG.read_text()
        answers.write_text(text.replace("[resources]", f"{tables}\n[resources]", 1))
        import_model(smoothing_net(self.folder / "net.onnx"), answers, self.folder / "lungs")

    def catalogue(self, *ladder: RungTable, shadow: Collection[str] = ()) -> Catalogue:
        """Return a catalogue of it that was loaded and verified."""
        made = Catalogue(
            folders=[self.folder / "lungs"],
            store=self.store,
            sandbox=self.sandbox,
            threads=1,
            ladder=ladder,
            plans=self.folder / "plans",
            shadow=shadow,
        )
        made.load()
        made.verify()
        return made

    def row(self) -> EngineRecord:
        return self.store.get(NAME)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    url = f"sqlite:///{tmp_path}/test.db"
    migrate(url)
    database, sandbox = Database(url), Sandbox(memory_mib=8192)
    yield Site(tmp_path, EngineStore(database, system_clock), sandbox)
    sandbox.close()
    database.close()


def rung_of(catalogue: Catalogue) -> str:
    engine = catalogue.active(NAME)
    assert engine is not None
    return str(engine.rung)


def test_an_engine_without_a_ladder_runs_as_its_package_says(site: Site) -> None:
    site.engine()
    assert rung_of(site.catalogue()) == "onnxruntime cpu float32"
    assert site.row().state is EngineState.ACTIVE
    assert site.row().reason == ""


@without_a_device
def test_the_first_rung_that_is_here_and_agrees_is_used_and_why_others_are_not(site: Site) -> None:
    site.engine()
    catalogue = site.catalogue(TENSORRT, TENSORRT_WHOLE, OPENVINO)
    assert rung_of(catalogue) == "openvino cpu float32"
    row = site.row()
    assert row.state is EngineState.ACTIVE
    assert row.reason.startswith(
        "runs on openvino cpu float32; not on tensorrt cuda float16: DeviceMissingError: tensorrt:"
        " there is no NVIDIA driver on this machine"
    )
    assert "not on tensorrt cuda float32" in row.reason


def test_a_slower_rung_declares_its_own_deadline(site: Site) -> None:
    site.engine()
    engine = site.catalogue(OPENVINO).active(NAME)
    assert engine is not None
    assert (engine.deadlines.soft, engine.deadlines.hard) == (7.0, 9.0)
    assert site.row().reason == "runs on openvino cpu float32"
    engine = site.catalogue().active(NAME)
    assert engine is not None
    assert (engine.deadlines.soft, engine.deadlines.hard) == (180.0, 900.0)


def test_a_runtime_that_does_not_agree_is_passed_over_and_the_dashboard_says_why(
    site: Site,
) -> None:
    site.engine("[parity]\nmax_error = 0.0\n")
    assert rung_of(site.catalogue(OPENVINO)) == "onnxruntime cpu float32"
    reason = site.row().reason
    assert "not on openvino cpu float32: the output prob differs by " in reason
    assert reason.endswith("0 is allowed")


def test_the_ladder_of_a_package_goes_before_that_of_the_node(site: Site) -> None:
    site.engine('[[ladder]]\nruntime = "onnxruntime"\ndevice = "cuda"\n')
    assert rung_of(site.catalogue(OPENVINO)) == "onnxruntime cpu float32"
    assert "not on onnxruntime cuda float32: UnavailableError" in site.row().reason


@without_a_device
def test_an_engine_for_a_device_only_is_unavailable_at_once_with_the_reason(site: Site) -> None:
    site.engine()
    manifest = site.folder / "lungs" / "engine.toml"
    text = manifest.read_text()
    manifest.write_text(text.replace('runtime = "onnxruntime"', 'runtime = "tensorrt"', 1))
    catalogue = site.catalogue()
    assert catalogue.active(NAME) is None
    assert site.row().state is EngineState.UNAVAILABLE
    assert "there is no NVIDIA driver on this machine" in site.row().reason


def test_an_engine_whose_golden_case_fails_runs_on_no_rung(site: Site) -> None:
    site.engine()
    manifest = site.folder / "lungs" / "engine.toml"
    golden = site.folder / "lungs" / "golden" / "expected.npz"
    with np.load(golden) as arrays:
        changed = {name: arrays[name] + 1 for name in arrays.files}
    old = hashlib.sha256(golden.read_bytes()).hexdigest()
    write_arrays(golden, changed)
    new = hashlib.sha256(golden.read_bytes()).hexdigest()
    manifest.write_text(manifest.read_text().replace(old, new))
    assert site.catalogue(OPENVINO).active(NAME) is None
    assert site.row().state is EngineState.UNAVAILABLE
    assert "differs by" in site.row().reason


def test_a_runtime_of_the_ladder_that_there_is_not_stops_the_start(site: Site) -> None:
    site.engine()
    with pytest.raises(CatalogueError, match=r"engines\.ladder: runtime: 'abacus' is not one of"):
        site.catalogue(RungTable(runtime="abacus"))


@without_a_device
def test_the_start_states_devices_driver_and_versions(site: Site) -> None:
    site.engine()
    with capture_logs() as logs:
        site.catalogue()
    (line,) = [entry for entry in logs if entry["event"] == "engines.probed"]
    assert line["gpus"] == []
    assert line["reason"].startswith("there is no NVIDIA driver on this machine")
    assert {"onnxruntime", "openvino", "tensorrt_rtx"} <= set(line["versions"])


def test_an_engine_on_trial_takes_jobs_and_is_said_to_be_on_trial(site: Site) -> None:
    site.engine()
    engine = site.catalogue(shadow=[NAME]).active(NAME)
    assert engine is not None
    assert engine.shadow
    assert site.row().state is EngineState.SHADOW
    engine = site.catalogue().active(NAME)
    assert engine is not None
    assert not engine.shadow
    assert site.row().state is EngineState.ACTIVE


def test_an_engine_on_trial_that_there_is_not_is_named(site: Site) -> None:
    site.engine()
    with pytest.raises(CatalogueError, match=r"engines\.shadow: there is no engine lungs"):
        site.catalogue(shadow=[NAME, "lungs"])
