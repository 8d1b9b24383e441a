from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from types import ModuleType

import pytest

from engines.base import (
    Engine,
    Loading,
    Runtime,
    Session,
    Task,
    Work,
    discover,
    find_runtime,
    find_task,
    open_engine,
)
from engines.errors import (
    EngineError,
    InferenceError,
    ModelInvalidError,
    OutOfMemoryError,
    PackageError,
    UnavailableError,
)
from engines.findings import Analysis, Outcome, Refusal
from engines.images import InstanceFile
from engines.manifest import EnginePackage, TaskSettings
from tests.factories import instance_files, make_ct_series


@pytest.mark.parametrize(("folder", "base"), [("tasks", Task), ("runtimes", Runtime)])
def test_every_plugin_file_defines_one_named_class(
    folder: str, base: type[Task] | type[Runtime]
) -> None:
    found = discover(folder, base)
    assert found
    for name, plugin in found.items():
        assert plugin.name == name
        assert plugin.__doc__
        plugin()


def test_every_task_has_strict_settings_and_every_runtime_says_whether_it_is_there() -> None:
    for task in discover("tasks", Task).values():  # type: ignore[type-abstract]
        assert issubclass(task.settings_type, TaskSettings)
        assert task.settings_type.model_config["extra"] == "forbid"
        assert task.settings_type.model_config["frozen"]
    for runtime in discover("runtimes", Runtime).values():  # type: ignore[type-abstract]
        availability = runtime().is_available()
        assert availability.available != bool(availability.reason)


def test_an_unknown_task_or_runtime_is_refused_with_the_known_ones() -> None:
    with pytest.raises(PackageError, match=r"'cooking' is not one of \[.*'segmentation'.*\]"):
        find_task("cooking")
    with pytest.raises(PackageError, match=r"'abacus' is not one of \[.*'onnxruntime'.*\]"):
        find_runtime("abacus")


def test_two_classes_in_one_file_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "twice.py").write_text("class One(int): ...\nclass Two(int): ...\n")
    package = ModuleType("engines.made_up")
    package.__path__ = [str(tmp_path)]
    monkeypatch.setitem(sys.modules, "engines.made_up", package)
    with pytest.raises(PackageError, match="2 int classes, not 1"):
        discover("made_up", int)


def test_an_engine_reports_its_stages_and_finds(engine: Engine, tmp_path: Path) -> None:
    stages: list[str] = []
    outcome = engine.run(instance_files(make_ct_series(tmp_path)), stages.append)
    assert isinstance(outcome, Analysis)
    assert stages == ["reading headers", "decoding", "labelling", "measuring"]


def test_a_series_that_cannot_be_read_becomes_a_refusal(engine: Engine) -> None:
    outcome = engine.run([])
    assert isinstance(outcome, Refusal)
    assert outcome.reason.value == "NO_IMAGES"


class _Starved(Task):
    name = "starved"
    settings_type = TaskSettings

    def analyse(self, work: Work) -> Outcome:
        raise MemoryError(len(work.instances))

    def compute(self, package: EnginePackage, session: object, inputs: object) -> dict[str, object]:  # type: ignore[override]
        raise NotImplementedError

    def disagreements(self, reference: object, found: object, allowed: object) -> list[str]:
        raise NotImplementedError


def test_a_lack_of_memory_is_an_error_that_may_be_tried_again(engine: Engine) -> None:
    starved = Engine(engine.package, _Starved(), engine.session)
    with pytest.raises(OutOfMemoryError) as caught:
        starved.run([InstanceFile(path=Path("/"), sop_instance_uid="1", sop_class_uid="1")])
    assert caught.value.kind == "out_of_memory"


def test_an_engine_without_its_runtime_says_what_is_missing(
    package: EnginePackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(UnavailableError, match="onnxruntime is not installed"):
        open_engine(package)


def test_a_plan_may_work_in_as_much_of_a_device_as_the_package_says(
    package: EnginePackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    resources = package.manifest.resources.model_copy(update={"device_mib": 4096})
    manifest = package.manifest.model_copy(update={"resources": resources})
    told: list[Loading] = []

    def load(_self: Runtime, _model: bytes, *, threads: int, how: Loading) -> Session:
        told.append(how)
        raise UnavailableError(f"not on {threads} threads")

    monkeypatch.setattr(type(find_runtime("onnxruntime")), "load", load)
    for asked in (package, dataclasses.replace(package, manifest=manifest)):
        with pytest.raises(UnavailableError, match="not on 1 threads"):
            open_engine(asked)
    assert [how.workspace_mib for how in told] == [1024, 4096]


@pytest.mark.parametrize(
    "error", [ModelInvalidError, InferenceError, UnavailableError, PackageError]
)
def test_errors_that_will_come_again_say_so(error: type[EngineError]) -> None:
    assert error.kind == "deterministic"
