"""What every kind of task must keep, whoever wrote it, and with every runtime that is here.

Tasks and runtimes are those that are found; a task is run on what `examples/<task>.py` makes.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from engines.base import Engine, Runtime, Session, Task, discover, find_task, open_engine
from engines.errors import EngineError, InferenceError, ModelInvalidError
from engines.findings import Analysis, Code, ImageAnalysis, Refusal, SlideAnalysis
from engines.manifest import RungTable, TaskSettings
from engines.refusals import SCHEME, Reason
from engines.release import release_rung
from engines.sessions import Array, Arrays
from engines.verify import verify_package
from tests.engines.tasks.example import Example, make_example
from tests.factories import instance_files

TASKS: Final = sorted(discover("tasks", Task))  # type: ignore[type-abstract]  # a plugin base
RUNTIMES: Final = {
    name: kind()
    for name, kind in discover("runtimes", Runtime).items()  # type: ignore[type-abstract]
    if kind().is_available().available
}
ANALYSES: Final = (Analysis, ImageAnalysis, SlideAnalysis)


class Bent(Session):
    """A session whose outputs are spoiled in one way."""

    def __init__(self, session: Session, way: str) -> None:
        self._session, self._way = session, way

    def run(self, inputs: Arrays) -> Arrays:
        found = self._session.run(inputs)
        match self._way:
            case "another name":
                return {f"not-{name}": array for name, array in found.items()}
            case "another shape":
                return {name: array[..., None] for name, array in found.items()}
            case "another type":
                return {name: array.astype(other_type(array)) for name, array in found.items()}
            case _:
                return {name: np.full(array.shape, np.nan) for name, array in found.items()}

    def part(self, name: str) -> Session:
        return Bent(self._session.part(name), self._way)

    def close(self) -> None:
        self._session.close()


def other_type(array: Array) -> type[np.generic]:
    return np.int64 if array.dtype.kind == "f" else np.float32


@pytest.fixture(scope="module", params=TASKS)
def example(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Example:
    return make_example(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def engine(example: Example) -> Iterator[Engine]:
    with open_engine(example.package) as opened:
        yield opened


def analysed(engine: Engine, files: Sequence[Path]) -> Analysis | ImageAnalysis | SlideAnalysis:
    outcome = engine.run(instance_files(files))
    assert isinstance(outcome, ANALYSES), outcome
    return outcome


def plain(value: object) -> object:
    """Return a result as what can be compared: arrays as their bytes."""
    if dataclasses.is_dataclass(value):
        return {item.name: plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    return value


def by_image(found: Analysis | ImageAnalysis | SlideAnalysis) -> object:
    """Return a result as what can be compared; of images each by itself, whichever came first."""
    if not isinstance(found, ImageAnalysis):
        return plain(found)
    told: dict[str, list[object]] = {source.sop_instance_uid: [] for source in found.sources}
    for item in found.findings:
        place = told[found.sources[item.image].sop_instance_uid]
        place.append(plain(dataclasses.replace(item, image=0)))
    return told, plain(found.sought), plain(found.limits)


def codes_of(value: object) -> Iterator[Code]:
    if isinstance(value, Code):
        yield value
    elif dataclasses.is_dataclass(value):
        for item in dataclasses.fields(value):
            yield from codes_of(getattr(value, item.name))
    elif isinstance(value, tuple):
        for part in value:
            yield from codes_of(part)


def unlike(array: Array) -> Array:
    """Return an array of the same kind, with something where there is nothing, and nothing else."""
    other: Array = (array == 0).astype(array.dtype)
    return other


# ------------------------------------------------------------------ arrays to arrays


@pytest.mark.parametrize("name", TASKS)
def test_golden_inputs_are_the_same_finite_numbers_every_time(name: str) -> None:
    first, second = find_task(name).golden_inputs(), find_task(name).golden_inputs()
    assert set(first) == set(second)
    assert first
    for key, array in first.items():
        assert array.dtype.kind in "iuf", key
        assert np.isfinite(array).all(), key
        assert np.array_equal(array, second[key]), key


def test_the_golden_case_passes_and_gives_the_same_finite_numbers_every_time(
    example: Example, engine: Engine
) -> None:
    assert verify_package(example.package).reason == ""
    given = engine.task.golden_inputs()
    before = {key: array.copy() for key, array in given.items()}
    first, second = (
        dict(engine.task.compute(example.package, engine.session, given)) for _ in range(2)
    )
    assert list(first) == list(second)
    assert first
    for key, array in first.items():
        assert array.dtype.kind in "iufb", key
        assert np.isfinite(array).all(), key
        assert array.dtype == second[key].dtype, key
        assert np.array_equal(array, second[key]), key
    for key, array in given.items():
        assert np.array_equal(array, before[key]), f"{key} was changed"


def test_what_agrees_is_told_from_what_does_not(example: Example, engine: Engine) -> None:
    allowed = example.package.manifest.parity
    found = engine.task.compute(example.package, engine.session, engine.task.golden_inputs())
    other = {key: unlike(array) for key, array in found.items()}
    assert engine.task.disagreements(found, found, allowed) == []
    told = engine.task.disagreements(found, other, allowed)
    assert told
    assert all(sentence.strip() for sentence in told)


@pytest.mark.parametrize("runtime", sorted(RUNTIMES))
def test_every_runtime_here_gives_what_the_reference_gives(runtime: str, example: Example) -> None:
    rung = RungTable(runtime=runtime, device=RUNTIMES[runtime].devices[0])
    assert release_rung(example.package, rung).reason == ""


@pytest.mark.parametrize("way", ["another name", "another shape", "another type", "no numbers"])
def test_a_model_that_gives_what_it_should_not_is_a_typed_error(
    way: str, example: Example, engine: Engine
) -> None:
    bent, given = Bent(engine.session, way), engine.task.golden_inputs()
    with pytest.raises((ModelInvalidError, InferenceError)):
        engine.task.compute(example.package, bent, given)
    with pytest.raises((ModelInvalidError, InferenceError)):
        Engine(example.package, engine.task, bent).run(instance_files(example.files))


def test_settings_of_another_task_are_a_typed_error(example: Example, engine: Engine) -> None:
    foreign = dataclasses.replace(example.package, settings=TaskSettings())
    with pytest.raises(EngineError):
        engine.task.compute(foreign, engine.session, engine.task.golden_inputs())
    with pytest.raises(EngineError):
        Engine(foreign, engine.task, engine.session).run(instance_files(example.files))


# ------------------------------------------------------------------ a series to findings


def test_findings_are_the_same_every_time_in_whatever_order_images_come(
    example: Example, engine: Engine
) -> None:
    first = analysed(engine, example.files)
    assert plain(analysed(engine, example.files)) == plain(first)
    assert by_image(analysed(engine, example.files[::-1])) == by_image(first)


def test_findings_are_coded_sought_and_of_the_images_given(
    example: Example, engine: Engine
) -> None:
    found = analysed(engine, example.files)
    assert found.findings
    assert {item.type for item in found.findings} <= set(found.sought)
    assert len({(item.key, getattr(item, "image", 0)) for item in found.findings}) == len(
        found.findings
    )
    for code in codes_of(found):
        assert 1 <= len(code.value) <= 16, code
        assert 1 <= len(code.scheme) <= 16, code
        assert 1 <= len(code.meaning) <= 64, code
    given = {item.sop_instance_uid for item in instance_files(example.files)}
    assert found.sources
    assert {source.sop_instance_uid for source in found.sources} <= given
    assert all(sentence.strip() for sentence in found.limits)


def test_what_is_measured_is_a_finite_number_with_a_name_and_a_unit(
    example: Example, engine: Engine
) -> None:
    found = analysed(engine, example.files)
    measured = [item for finding in found.findings for item in finding.measurements]
    assert measured
    for item in measured:
        assert math.isfinite(item.value), item.name
        assert item.unit.scheme == "UCUM"


def test_stages_are_told(example: Example, engine: Engine) -> None:
    stages: list[str] = []
    engine.run(instance_files(example.files), stages.append)
    assert len(set(stages)) >= 2
    assert all(stage.strip() for stage in stages)


def refused(engine: Engine, files: Sequence[Path]) -> Refusal:
    outcome = engine.run(instance_files(files))
    assert isinstance(outcome, Refusal), outcome
    assert (outcome.reason.scheme, Reason(outcome.reason.value)) == (SCHEME, outcome.reason.value)
    assert outcome.detail.strip()
    return outcome


def test_no_image_is_refused_with_its_reason(engine: Engine) -> None:
    assert refused(engine, []).reason.value == Reason.EMPTY


def test_another_modality_is_refused_with_its_reason(
    example: Example, engine: Engine, tmp_path: Path
) -> None:
    def of_another_modality(dataset: Dataset) -> None:
        dataset.Modality = "OT"

    files = changed(example.files, tmp_path, of_another_modality)
    assert refused(engine, files).reason.value == Reason.WRONG_MODALITY


def test_pixels_that_end_too_soon_are_refused_with_a_reason(
    example: Example, engine: Engine, tmp_path: Path
) -> None:
    def halved(dataset: Dataset) -> None:
        dataset.PixelData = dataset.PixelData[: len(dataset.PixelData) // 4 * 2]

    refused(engine, changed(example.files, tmp_path, halved))


def changed(
    files: Sequence[Path], folder: Path, modify: Callable[[Dataset], None]
) -> Sequence[Path]:
    """Return the same images, each changed, in another folder."""
    written = []
    for number, path in enumerate(files):
        dataset = dcmread(path)
        modify(dataset)
        written.append(folder / f"{number}.dcm")
        dataset.save_as(written[-1])
    return written
