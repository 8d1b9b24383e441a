from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from pydicom.dataset import Dataset
from pydicom.uid import MRImageStorage

from engines.base import Engine, open_engine
from engines.findings import Analysis, Outcome, Refusal
from engines.importing import import_model
from engines.package import PackageError
from tests.factories import instance_files, make_ct_series, uid

ANSWERS = Path(__file__).parents[3] / "config" / "engines" / "lv_unet_sunnybrook" / "engine.toml"
SLICES, SIDE = 8, 96
DIASTOLE, SYSTOLE = 40, 20
"""Sides of the square that is the cavity, in pixels."""

Change = Callable[[Dataset, int, int], None]


def bright_net(path: Path) -> Path:
    """Write a net that finds what is brighter than the mean of its slice."""
    graph = helper.make_graph(
        [
            helper.make_node("Mul", ["image", "hundred"], ["steep"]),
            helper.make_node("Sigmoid", ["steep"], ["prob"]),
        ],
        "bright",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 1, "h", "w"])],
        [helper.make_tensor_value_info("prob", TensorProto.FLOAT, ["n", 1, "h", "w"])],
        [numpy_helper.from_array(np.array(100, np.float32), "hundred")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(onnx.ModelProto.SerializeToString(model))
    return path


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    folder = tmp_path_factory.mktemp("cine")
    package = import_model(bright_net(folder / "net.onnx"), ANSWERS, folder / "package")
    with open_engine(package) as opened:
        yield opened


def numbered(dataset: Dataset, phase: int, _index: int) -> None:
    dataset.TemporalPositionIdentifier = phase + 1


def cine(folder: Path, sides: list[int], change: Change = numbered) -> list[Path]:
    """Write a series with a square cavity of a side for each phase, on the middle slices."""
    files = []
    for phase, side in enumerate(sides):

        def modify(dataset: Dataset, index: int, phase: int = phase, side: int = side) -> None:
            image = np.full((SIDE, SIDE), 50, np.int16)
            edge = (SIDE - side) // 2
            image[edge : edge + side, edge : edge + side] = 400
            dataset.PixelData = image.tobytes()
            dataset.Modality, dataset.BodyPartExamined = "MR", "HEART"
            dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = MRImageStorage
            dataset.SOPInstanceUID = uid("cine", phase, index)
            dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
            dataset.ImageType = ["ORIGINAL", "PRIMARY", "M"]
            for name in ("RescaleSlope", "RescaleIntercept", "RescaleType"):
                delattr(dataset, name)
            change(dataset, phase, index)

        files += make_ct_series(
            folder / str(phase), slices=SLICES, rows=SIDE, columns=SIDE,
            spacing=(8.0, 1.25, 1.25), modify=modify,
        )  # fmt: skip
    return files


def run(engine: Engine, files: list[Path]) -> Outcome:
    return engine.run(instance_files(files))


def values(outcome: Outcome) -> dict[str, float]:
    assert isinstance(outcome, Analysis), outcome
    return {m.name.value: m.value for f in outcome.findings for m in f.measurements}


def test_volumes_and_what_is_ejected_are_measured(engine: Engine, tmp_path: Path) -> None:
    outcome = run(engine, cine(tmp_path, [DIASTOLE, SYSTOLE, 30]))
    millilitre = 8 * 1.25 * 1.25 * SLICES / 1000
    assert values(outcome) == {
        "8821-1": pytest.approx(DIASTOLE**2 * millilitre),
        "8823-7": pytest.approx(SYSTOLE**2 * millilitre),
        "8811-2": pytest.approx(75),
    }
    assert isinstance(outcome, Analysis)
    assert outcome.limits[-1].startswith("Of 3 phases number 1 is taken as end diastole and number")


def test_each_outline_lies_on_the_images_of_its_phase(engine: Engine, tmp_path: Path) -> None:
    """PIX-09."""
    files = cine(tmp_path, [DIASTOLE, SYSTOLE])
    outcome = run(engine, files)
    assert isinstance(outcome, Analysis)
    for phase, finding in enumerate(outcome.findings):
        drawn = np.flatnonzero(finding.mask.any(axis=(1, 2)))
        found = {outcome.sources[index].sop_instance_uid for index in drawn}
        assert found == {uid("cine", phase, index) for index in range(SLICES)}
    heights = [position[2] for position in outcome.grid.positions]
    assert heights == sorted(heights)


def test_a_heart_that_fills_when_it_should_empty_is_held_back(
    engine: Engine, tmp_path: Path
) -> None:
    outcome = run(engine, cine(tmp_path, [SYSTOLE, DIASTOLE]))
    assert isinstance(outcome, Refusal)
    assert outcome.reason.value == "IMPLAUSIBLE"
    assert "-300.0 %" in outcome.detail
    assert isinstance(outcome.held, Analysis)
    (fraction,) = (
        item.value for item in outcome.held.findings[0].measurements if item.unit.value == "%"
    )
    assert fraction == pytest.approx(-300, abs=0.1)
    assert outcome.detail in outcome.held.limits[-1]


def test_no_cavity_is_no_ejection_fraction(engine: Engine, tmp_path: Path) -> None:
    outcome = run(engine, cine(tmp_path, [0, 0]))
    assert isinstance(outcome, Refusal)
    assert outcome.reason.value == "IMPLAUSIBLE"
    assert outcome.detail == "no cavity was found at end diastole"
    assert outcome.held is None


def by_time(dataset: Dataset, phase: int, index: int) -> None:
    """Trigger times that no two slices share, as of breath holds."""
    dataset.TriggerTime = f"{300 * phase + 7 * index}"


def test_phases_are_ranked_by_trigger_time_at_each_place(engine: Engine, tmp_path: Path) -> None:
    """PIX-09."""
    outcome = run(engine, cine(tmp_path, [DIASTOLE, SYSTOLE], by_time))
    assert values(outcome)["8811-2"] == pytest.approx(75)


def test_a_slice_without_one_of_the_times_is_refused(engine: Engine, tmp_path: Path) -> None:
    outcome = run(engine, cine(tmp_path, [DIASTOLE, SYSTOLE], by_time)[:-1])
    assert isinstance(outcome, Refusal)
    assert outcome.reason.value == "FEW_PHASES"
    assert "1 to 2 images" in outcome.detail


def test_images_that_do_not_tell_their_phase_are_refused(engine: Engine, tmp_path: Path) -> None:
    outcome = run(engine, cine(tmp_path, [DIASTOLE, SYSTOLE], lambda *_: None))
    assert isinstance(outcome, Refusal)
    assert outcome.reason.value == "FEW_PHASES"


def test_a_single_phase_is_refused(engine: Engine, tmp_path: Path) -> None:
    outcome = run(engine, cine(tmp_path, [DIASTOLE]))
    assert isinstance(outcome, Refusal)
    assert outcome.reason.value == "FEW_PHASES"


def test_a_range_the_wrong_way_round_is_refused(tmp_path: Path) -> None:
    answers = tmp_path / "answers.toml"
    answers.write_text(ANSWERS.read_text().replace("[5.0, 90.0]", "[90.0, 5.0]"))
    with pytest.raises(PackageError, match="plausible_percent: the first is above the second"):
        import_model(bright_net(tmp_path / "net.onnx"), answers, tmp_path / "package")
