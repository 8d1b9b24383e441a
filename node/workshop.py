"""What runs engines, put together from the configuration: catalogue, breaker, workers."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from engines.manifest import read_rung
from engines.package import shipped_folder
from node.bell import Bell
from node.breaker import BreakerLimits, EngineBreaker
from node.catalogue import Catalogue
from node.clock import Clock, system_clock
from node.doors import build_profiles
from node.interfaces import MANUFACTURER, MODEL, DeviceIdentity
from node.pool import WorkerPool
from node.sandbox import Sandbox
from node.settings import Settings
from node.stores import Stores
from node.worker import Worker, WorkerLimits


def software_version() -> str:
    """Return the version of the installed distribution."""
    return version("wetread")


def device_identity(settings: Settings) -> DeviceIdentity:
    """Return how this installation names itself in results."""
    return DeviceIdentity(
        manufacturer=MANUFACTURER,
        model=MODEL,
        serial_number=settings.node.serial_number,
        station_name=settings.node.name,
        software_version=software_version(),
    )


def engine_folders(settings: Settings) -> tuple[Path, ...]:
    """Return where engine packages are looked for: those that ship, then the site's own."""
    return (shipped_folder(), *settings.engines.folders)


def staging_folder(settings: Settings) -> Path:
    """Return where sandboxes leave result files until they are checked and kept."""
    return settings.node.data_dir / "staging"


def plans_folder(settings: Settings) -> Path:
    """Return where plans are kept that were built for the device of this machine."""
    return settings.node.data_dir / "plans"


def make_catalogue(settings: Settings, stores: Stores) -> Catalogue:
    """Build the catalogue of engines; nothing is read or run yet."""
    return Catalogue(
        folders=engine_folders(settings),
        store=stores.engines,
        sandbox=Sandbox(memory_mib=settings.worker.memory_mib),
        threads=settings.worker.threads,
        ladder=[read_rung(text) for text in settings.engines.ladder],
        plans=plans_folder(settings),
        shadow=frozenset(settings.engines.shadow),
    )


def make_pool(
    settings: Settings,
    stores: Stores,
    catalogue: Catalogue,
    *,
    clock: Clock = system_clock,
    work: Bell | None = None,
    finished: Callable[[], None] = lambda: None,
) -> WorkerPool:
    """Build the workers of a process; `work` wakes them, and `finished` is told of each job."""
    breaker = EngineBreaker(
        limits=BreakerLimits(
            studies=settings.worker.quarantine_studies, seconds=settings.worker.quarantine_seconds
        ),
        clock=clock,
        quarantine=catalogue.quarantine,
    )
    profiles = build_profiles(settings)
    bell = work or Bell()
    return WorkerPool(
        catalogue,
        breaker,
        lambda: [
            Worker(
                name=f"{settings.node.name}-{os.getpid()}-{index}",
                jobs=stores.jobs,
                events=stores.events,
                packs=stores.packs,
                objects=stores.objects,
                engines=catalogue.active,
                breaker=breaker,
                profiles=profiles,
                device=device_identity(settings),
                limits=_limits(settings),
                work=bell,
                finished=finished,
            )
            for index in range(settings.worker.processes)
        ],
        work=bell,
    )


def _limits(settings: Settings) -> WorkerLimits:
    staging = staging_folder(settings)
    staging.mkdir(parents=True, exist_ok=True)
    return WorkerLimits(
        staging=staging,
        plans=plans_folder(settings),
        memory_mib=settings.worker.memory_mib,
        threads=settings.worker.threads,
        lease_seconds=settings.worker.lease_seconds,
        idle_seconds=settings.worker.idle_seconds,
    )
