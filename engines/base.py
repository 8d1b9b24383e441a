"""Task, Runtime, Session, and how an engine package, a runtime and a task become one engine.

A runtime knows models and arrays, and no DICOM. A task knows images and findings, and no runtime.
They meet only here: named arrays go into a session and named arrays come out.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Final, TypeAlias, TypeVar

from engines.errors import (
    DeviceMissingError,
    EngineError,
    OutOfMemoryError,
    PackageError,
    UnavailableError,
)
from engines.findings import Outcome
from engines.images import InstanceFile
from engines.manifest import (
    Device,
    EnginePackage,
    ParityTable,
    PartTable,
    Precision,
    RungTable,
    ShapeTable,
    TaskSettings,
)
from engines.phantoms import head
from engines.refusals import SeriesRefusedError, refuse
from engines.series import Series, read_series
from engines.sessions import Array, Arrays, Clock, Session, SeveralSessions, TimedSession

Progress: TypeAlias = Callable[[str], None]
PluginT = TypeVar("PluginT")


@dataclass(frozen=True, slots=True, kw_only=True)
class Availability:
    """Whether a runtime can work on this machine; if not, `reason` says what is missing.

    `device_missing`: its packages are here, its device or the driver of that is not.
    """

    available: bool
    reason: str = ""
    device_missing: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Loading:
    """How a model is to be loaded: the device, the precision, and what a plan is built for.

    `shapes` are those of the package, by input. `plans` is the folder where what was built is
    kept; None: nothing is kept. `workspace_mib` is the device memory that a plan may work in.
    """

    device: Device = "cpu"
    precision: Precision = "float32"
    shapes: Mapping[str, ShapeTable] = field(default_factory=dict)
    plans: Path | None = None
    workspace_mib: int = 1024


PLAINLY: Final = Loading()
"""On the CPU in float32: every package can be loaded so."""


class Runtime(ABC):
    """A way to load and run models. One file in `engines/runtimes/`, one class."""

    name: ClassVar[str]
    requires: ClassVar[tuple[str, ...]]
    """Distributions that must be installed, or of which one must be."""
    devices: ClassVar[tuple[Device, ...]]
    """The devices it can run on, the usual one first."""
    precisions: ClassVar[tuple[Precision, ...]]
    """The precisions it can run a float32 model in."""

    @abstractmethod
    def is_available(self, device: Device | None = None) -> Availability:
        """Say whether this machine has what the runtime needs for a device; None: the usual one."""

    @abstractmethod
    def load(self, model: bytes, *, threads: int, how: Loading = PLAINLY) -> Session:
        """Load a model from bytes whose digest was checked.

        Raises:
            ModelInvalidError: the bytes are no model that this runtime runs.
            PlanError: what it makes of the model for its device cannot be used.
            UnavailableError, OutOfMemoryError: what the runtime said, translated.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One series to be analysed. `progress` is told the name of each stage as it begins."""

    package: EnginePackage
    session: Session
    instances: Sequence[InstanceFile]
    progress: Progress


def analyse_series(work: Work, analyse: Callable[[Series, Work, int], Outcome]) -> Outcome:
    """Read the headers of a task's series and have it analysed, within so many bytes an image.

    A series that is refused on the way becomes the outcome *not analysed*.
    """
    byte_limit = work.package.manifest.resources.pixel_mib << 20
    work.progress("reading headers")
    series = read_series(work.instances, byte_limit=byte_limit)
    try:
        return analyse(series, work, byte_limit)
    except SeriesRefusedError as refused:
        return refuse(refused.reason, refused.detail, series.sources)


class Task(ABC):
    """A kind of task. One file in `engines/tasks/`, one class."""

    name: ClassVar[str]
    settings_type: ClassVar[type[TaskSettings]]
    """What the table of this task in `engine.toml` may say."""

    @abstractmethod
    def analyse(self, work: Work) -> Outcome:
        """Read the images in the way of this task, run the session, make findings.

        Raises:
            SeriesRefusedError: becomes a refusal.
        """

    def golden_inputs(self) -> Arrays:
        """Return what `compute` takes, for the golden case of an import: a volume, if not said."""
        return head()

    @abstractmethod
    def compute(self, package: EnginePackage, session: Session, inputs: Arrays) -> Arrays:
        """Run everything but reading and encoding, from arrays to arrays: the golden case."""

    @abstractmethod
    def disagreements(self, reference: Arrays, found: Arrays, allowed: ParityTable) -> list[str]:
        """Say how what `compute` gave on two runtimes differs by more than is allowed.

        Each sentence names the measure, its value and its limit; none: they agree.
        """


def discover(folder: str, base: type[PluginT]) -> dict[str, type[PluginT]]:
    """Import every module of `engines.<folder>` and return its one class each, by name.

    Raises:
        PackageError: a file defines none or several, or two share a name.
    """
    package = importlib.import_module(f"engines.{folder}")
    found: dict[str, type[PluginT]] = {}
    for info in sorted(pkgutil.iter_modules(package.__path__), key=lambda item: item.name):
        module = importlib.import_module(f"engines.{folder}.{info.name}")
        classes = [
            member
            for _, member in inspect.getmembers(module, inspect.isclass)
            if issubclass(member, base)
            and member.__module__ == module.__name__
            and not inspect.isabstract(member)
        ]
        if len(classes) != 1:
            raise PackageError(f"{module.__name__}: {len(classes)} {base.__name__} classes, not 1")
        name = str(getattr(classes[0], "name", ""))
        if not name or name in found:
            raise PackageError(f"{module.__name__}: the name {name!r} is empty or taken")
        found[name] = classes[0]
    return found


def find_task(name: str) -> Task:
    """Return the task of that name.

    Raises:
        PackageError: there is none; the message lists those that are.
    """
    tasks = discover("tasks", Task)  # type: ignore[type-abstract]  # a plugin base is abstract
    if name not in tasks:
        raise PackageError(f"task: {name!r} is not one of {sorted(tasks)}")
    return tasks[name]()


def find_runtime(name: str) -> Runtime:
    """Return the runtime of that name, whether it is available or not.

    Raises:
        PackageError: there is none; the message lists those that are.
    """
    runtimes = discover("runtimes", Runtime)  # type: ignore[type-abstract]  # as above
    if name not in runtimes:
        raise PackageError(f"runtime: {name!r} is not one of {sorted(runtimes)}")
    return runtimes[name]()


def ladder_of(package: EnginePackage, otherwise: Sequence[RungTable] = ()) -> tuple[RungTable, ...]:
    """Return the ways to run a package, best first: its own ladder, or `otherwise`.

    The last one is its `runtime`, on that runtime's usual device in float32.

    Raises:
        PackageError: there is no such runtime.
    """
    runtime = package.runtime
    last = RungTable(runtime=runtime, device=find_runtime(runtime).devices[0])
    above = package.manifest.ladder or otherwise
    return (*(rung for rung in above if str(rung) != str(last)), last)


class Engine:
    """A package with its task and a loaded session: what a job runs. Use as a context manager."""

    def __init__(self, package: EnginePackage, task: Task, session: Session) -> None:
        self.package = package
        self.task = task
        self.session: Session = session
        self._clock = Clock()
        self._timed = TimedSession(session, self._clock)

    @property
    def forward_seconds(self) -> float:
        """How long the model itself ran until now: forward passes and nothing around them."""
        return self._clock.seconds

    def run(
        self, instances: Sequence[InstanceFile], progress: Progress = lambda _stage: None
    ) -> Outcome:
        """Analyse one series; see `run_engine`."""
        return run_engine(self.package, self._timed, self.task, instances, progress)

    def close(self) -> None:
        """Close the session."""
        self.session.close()

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def open_engine(
    package: EnginePackage,
    *,
    threads: int = 1,
    rung: RungTable | None = None,
    plans: Path | None = None,
) -> Engine:
    """Load the model of a package into a runtime: that of a rung of its ladder, or the last one.

    Raises:
        UnavailableError: the runtime is not on this machine; `DeviceMissingError`: its device.
        ModelInvalidError, PlanError, OutOfMemoryError: the model cannot be loaded.
    """
    chosen = rung or ladder_of(package)[-1]
    task = find_task(package.task)
    runtime = find_runtime(chosen.runtime)
    _check_rung(runtime, chosen)
    how = Loading(
        device=chosen.device,
        precision=chosen.precision,
        plans=plans,
        workspace_mib=package.manifest.resources.device_mib,
    )
    return Engine(package, task, _loaded(package, runtime, threads, how))


def _loaded(package: EnginePackage, runtime: Runtime, threads: int, how: Loading) -> Session:
    """Load every model of a package; where one cannot be, close those that were."""
    with ExitStack() as opened:

        def load(part: PartTable) -> Session:
            model = package.read_file(part.file)
            session = runtime.load(model, threads=threads, how=replace(how, shapes=part.shapes))
            opened.callback(session.close)
            return session

        main = load(package.manifest.model)
        parts = {key: load(part) for key, part in package.manifest.model.parts.items()}
        opened.pop_all()
    return SeveralSessions(main, parts) if parts else main


def rung_availability(rung: RungTable) -> Availability:
    """Say whether a rung of a ladder can be run on this machine; runs nothing.

    Raises:
        PackageError: there is no such runtime.
    """
    return _rung_availability(find_runtime(rung.runtime), rung)


def _rung_availability(runtime: Runtime, rung: RungTable) -> Availability:
    reason = ""
    if rung.device not in runtime.devices:
        reason = f"runs on {' or '.join(runtime.devices)}, not on {rung.device}"
    elif rung.precision not in runtime.precisions:
        reason = f"runs in {' or '.join(runtime.precisions)}, not in {rung.precision}"
    if reason:
        return Availability(available=False, reason=reason)
    return runtime.is_available(rung.device)


def _check_rung(runtime: Runtime, rung: RungTable) -> None:
    found = _rung_availability(runtime, rung)
    if not found.available:
        kind = DeviceMissingError if found.device_missing else UnavailableError
        raise kind(f"{rung.runtime}: {found.reason}")


def run_engine(
    package: EnginePackage,
    session: Session,
    task: Task,
    instances: Sequence[InstanceFile],
    progress: Progress,
) -> Outcome:
    """Analyse one series: findings, nothing found, or a refusal with a coded reason.

    Raises:
        EngineError: the engine failed; `kind` says whether trying again can help.
    """
    try:
        return task.analyse(
            Work(package=package, session=session, instances=instances, progress=progress)
        )
    except SeriesRefusedError as refused:
        return refuse(refused.reason, refused.detail)
    except MemoryError as error:
        raise OutOfMemoryError(f"{package.name}: not enough memory for this series") from error


__all__ = [
    "Array",
    "Arrays",
    "Availability",
    "Engine",
    "EngineError",
    "Loading",
    "Progress",
    "Runtime",
    "Session",
    "Task",
    "Work",
    "find_runtime",
    "find_task",
    "ladder_of",
    "open_engine",
    "run_engine",
    "rung_availability",
]
