"""Which engines this node has, and which of them may take jobs.

An engine may take jobs once its golden case passed on this machine with this package (R29); one
that cannot is *unavailable*, with the reason in its row.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import structlog

from engines.package import EnginePackage, PackageError, find_packages, load_package
from node.sandbox import Deadlines, Sandbox, SandboxError
from node.worker import InstalledEngine
from storage.engines import EngineStore
from storage.records import EngineRecord
from storage.states import EngineState

VERIFY_DEADLINES: Final = Deadlines(soft=60, hard=300)

log = structlog.get_logger()


class CatalogueError(Exception):
    """Two packages share a name, or a package cannot be read; the message names the folder."""


class Catalogue:
    """The engine packages of this node."""

    def __init__(
        self, *, folders: Sequence[Path], store: EngineStore, sandbox: Sandbox, threads: int
    ) -> None:
        self._folders = tuple(folders)
        self._store = store
        self._sandbox = sandbox
        self._threads = threads
        self._installed: dict[str, InstalledEngine] = {}
        self._active: frozenset[str] = frozenset()

    def load(self) -> None:
        """Read every package and write it down as registered. Runs no engine.

        Raises:
            CatalogueError: naming the folder and what is wrong with it.
        """
        for engine in read_packages(self._folders):
            package = engine.package
            self._installed[package.name] = engine
            self._store.register(_record(package, EngineState.REGISTERED))

    def verify(self) -> None:
        """Run every golden case in the sandbox; engines that pass become active."""
        for name in sorted(self._installed):
            self.verify_engine(name)

    def verify_engine(self, name: str) -> bool:
        """Run one golden case; say whether the engine is active."""
        passed, reason = self._verdict(self._installed[name])
        state = EngineState.ACTIVE if passed else EngineState.UNAVAILABLE
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
        try:
            answer = self._sandbox.call(
                "verify_engine",
                {"engine_folder": str(engine.folder), "threads": self._threads},
                deadlines=VERIFY_DEADLINES,
            )
        except SandboxError as error:
            return False, f"the golden case did not run: {error}"[:500]
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
