"""Which engines this node has, which of them may take jobs, and how their models are run.

An engine may take jobs once its golden case passed on this machine with this package (R29); one
that cannot is *unavailable*, with the reason in its row. Of the ways to run its model the first is
used that is here and gives what the reference gives (A13); why better ones are not is in its row.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import structlog
from pydantic import JsonValue

from engines.base import find_runtime, ladder_of
from engines.manifest import RungTable
from engines.package import EnginePackage, PackageError, find_packages, load_package
from engines.release import REFERENCE
from node.messages import ReleaseRequest, VerifyRequest
from node.sandbox import Deadlines, Sandbox, SandboxError
from node.worker import InstalledEngine
from storage.engines import EngineStore
from storage.records import EngineRecord
from storage.states import EngineState

VERIFY_DEADLINES: Final = Deadlines(soft=60, hard=300)
RELEASE_DEADLINES: Final = Deadlines(soft=600, hard=1800)
"""A plan may have to be built first, which times kernels on the device."""
PROBE_DEADLINES: Final = Deadlines(soft=2, hard=5)
LONGEST_REASON: Final = 500

log = structlog.get_logger()


class CatalogueError(Exception):
    """Two packages share a name, or a package cannot be read; the message names the folder."""


class Catalogue:
    """The engine packages of this node."""

    def __init__(
        self,
        *,
        folders: Sequence[Path],
        store: EngineStore,
        sandbox: Sandbox,
        threads: int,
        ladder: Sequence[RungTable] = (),
        plans: Path | None = None,
        shadow: Collection[str] = (),
    ) -> None:
        """Run engines by `ladder` whose package has none; keep plans in the folder `plans`.

        Engines named in `shadow` are on trial.
        """
        self._folders = tuple(folders)
        self._store = store
        self._sandbox = sandbox
        self._threads = threads
        self._ladder = tuple(ladder)
        self._plans = plans
        self._shadow = frozenset(shadow)
        self._installed: dict[str, InstalledEngine] = {}
        self._active: frozenset[str] = frozenset()

    def probe(self) -> None:
        """Log which devices, driver and libraries this machine has, within five seconds (R27)."""
        try:
            found = self._sandbox.call("probe", {}, deadlines=PROBE_DEADLINES)
        except SandboxError as error:
            log.error("engines.not_probed", error=str(error))
        else:
            log.info("engines.probed", **found)

    def load(self) -> None:
        """Read every package and write it down as registered. Runs no engine.

        Raises:
            CatalogueError: naming the folder and what is wrong with it, or a runtime of the ladder
                or an engine on trial that there is not.
        """
        for rung in self._ladder:
            _check_runtime(rung)
        engines = read_packages(self._folders)
        if unknown := self._shadow - {engine.package.name for engine in engines}:
            raise CatalogueError(f"engines.shadow: there is no engine {min(unknown)}")
        for engine in engines:
            package = engine.package
            self._installed[package.name] = replace(engine, shadow=package.name in self._shadow)
            self._store.register(_record(package, EngineState.REGISTERED))

    def verify(self) -> None:
        """Run every golden case in the sandbox; engines that pass become active."""
        self.probe()
        for name in sorted(self._installed):
            self.verify_engine(name)

    def verify_engine(self, name: str) -> bool:
        """Run one golden case and choose how to run the model; say whether it may take jobs."""
        engine = self._installed[name]
        passed, reason = self._verdict(engine)
        if passed:
            passed, reason = self._choose(engine)
        state = EngineState.SHADOW if engine.shadow else EngineState.ACTIVE
        state = state if passed else EngineState.UNAVAILABLE
        self._store.set_state(name, state, reason)
        if passed:
            self._active |= {name}
        log.info("engine.verified", engine=name, state=state.value)
        return passed

    def quarantine(self, name: str, reason: str) -> None:
        """Take an engine's jobs from it until it is verified again.

        Raises:
            StorageError: its row could not be written; it has no jobs all the same.
        """
        self._active -= {name}
        self._store.set_state(name, EngineState.UNAVAILABLE, reason)

    def close(self) -> None:
        """End the sandbox that golden cases run in."""
        self._sandbox.close()

    def names(self) -> frozenset[str]:
        """Return the names of all engines that are installed, active or not."""
        return frozenset(self._installed)

    def active(self, name: str) -> InstalledEngine | None:
        """Return an engine that may take jobs, or None."""
        return self._installed[name] if name in self._active else None

    def _verdict(self, engine: InstalledEngine) -> tuple[bool, str]:
        return run_golden_case(self._sandbox, engine.folder, self._threads)

    def _choose(self, engine: InstalledEngine) -> tuple[bool, str]:
        """Take the first rung of the ladder that is released; say which ones are not, and why."""
        refused: list[str] = []
        ladder = ladder_of(engine.package, self._ladder)
        for rung in ladder:
            released, reason = self._released(engine, rung)
            if released:
                self._installed[engine.package.name] = replace(engine, rung=rung)
                usual = rung == ladder[-1] and not refused
                told = [] if usual else [f"runs on {rung}", *refused]
                return True, "; ".join(told)[:LONGEST_REASON]
            refused.append(f"not on {rung}: {reason}")
        return False, "; ".join(refused)[:LONGEST_REASON]

    def _released(self, engine: InstalledEngine, rung: RungTable) -> tuple[bool, str]:
        """Say whether a rung may be used; of the reference the golden case has said it."""
        if rung == REFERENCE:
            return True, ""
        request = ReleaseRequest(
            engine_folder=engine.folder, threads=self._threads, rung=rung, plans=self._plans
        )
        return _asked(
            self._sandbox, "release_engine", request.model_dump(mode="json"), RELEASE_DEADLINES
        )


def run_golden_case(sandbox: Sandbox, folder: Path, threads: int) -> tuple[bool, str]:
    """Run the golden case of a package in the sandbox; say whether it passed, and why not."""
    request = VerifyRequest(engine_folder=folder, threads=threads)
    return _asked(sandbox, "verify_engine", request.model_dump(mode="json"), VERIFY_DEADLINES)


def _asked(
    sandbox: Sandbox, operation: str, request: Mapping[str, JsonValue], deadlines: Deadlines
) -> tuple[bool, str]:
    try:
        answer = sandbox.call(operation, request, deadlines=deadlines)
    except SandboxError as error:
        return False, f"the golden case did not run: {error}"[:LONGEST_REASON]
    return bool(answer["passed"]), str(answer["reason"])


def read_packages(folders: Sequence[Path]) -> list[InstalledEngine]:
    """Read every engine package under the folders.

    Raises:
        CatalogueError: naming the folder and what is wrong with it.
    """
    found: dict[str, InstalledEngine] = {}
    for folder in find_packages(folders):
        try:
            package = load_package(folder)
        except PackageError as error:
            raise CatalogueError(f"{folder}: {error}") from error
        if package.name in found:
            other = found[package.name].folder
            raise CatalogueError(f"{folder}: the engine {package.name} is already in {other}")
        found[package.name] = InstalledEngine(package=package, folder=folder)
    return list(found.values())


def _check_runtime(rung: RungTable) -> None:
    try:
        find_runtime(rung.runtime)
    except PackageError as error:
        raise CatalogueError(f"engines.ladder: {error}") from error


def _record(package: EnginePackage, state: EngineState) -> EngineRecord:
    return EngineRecord(
        name=package.name,
        version=package.version,
        digest=package.digest,
        task=package.task,
        runtime=package.runtime,
        intended_use=package.intended_use,
        state=state,
    )
