"""The composition root: builds the node bottom-up, stops it top-down. Knows everything.

Nothing knows this module but the command line.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from typing import Final, TypeVar

import structlog

from node.admin.app import AdminServer
from node.admin.context import AdminContext, ListenerSummary, SettingsSummary
from node.alerts import Alerts
from node.assembly import completion_sweeps
from node.bell import Bell
from node.clock import Clock, system_clock
from node.dicomweb.app import DicomwebContext, DicomwebServer
from node.dicomweb.reader import Reader
from node.dispatch import Dispatcher, DispatchLimits
from node.doors import (
    WayIn,
    accepted_transfer_syntaxes,
    build_profiles,
    build_targets,
    check_dicomweb,
    check_listeners,
    processes_of,
)
from node.interfaces import DeliveryTarget, PluginSettings, SharedListener
from node.listener_processes import ListenerProcesses
from node.planning import read_rules
from node.reception import Reception, claim, reconcile_process
from node.reconcile import Reconciliation
from node.retaining import policy_of, sweep
from node.sandbox import Sandbox
from node.scheduler import Scheduler, Sweep
from node.settings import Settings
from node.stores import open_retention, open_stores, prepare
from node.withdrawing import Withdrawer
from node.workshop import (
    device_identity,
    make_catalogue,
    make_pool,
    software_version,
    staging_folder,
)
from storage.overdue import OverdueLimits, OverdueStore
from storage.pack_folders import numbered_folders
from storage.records import StorageError

HEADER_MEMORY_MIB: Final = 2048
FULL: Final = "full up to the reserve: associations are rejected, C-STORE is answered 0xA700"
QUOTA_SECONDS: Final = 1.0
ROOM_SECONDS: Final = 30.0
LEAST_SWEEP_SECONDS: Final = 1.0
"""Between two looks for what happens seldom: leases that ran out, destinations that are back."""

V = TypeVar("V")

log = structlog.get_logger()


class Node:
    """A complete node: listeners, sweeps, workers, dispatchers, admin page."""

    def __init__(self, settings: Settings, clock: Clock = system_clock) -> None:
        self.settings = settings
        self._clock = clock
        self._closers = ExitStack()
        self._work = Bell()  # rings when there may be jobs
        self._results = Bell()  # rings when there may be deliveries
        self.listeners: list[WayIn] = []
        self._shared: list[ListenerProcesses] = []
        self.admin: AdminServer | None = None
        self.dicomweb: DicomwebServer | None = None

    def start(self) -> None:
        """Start bottom-up: state, rules, engines, reconciliation, ways out, ways in.

        Raises:
            SettingsError, ProfileError, RulesError, ListenerError, CatalogueError,
            StorageError: with the reason; what was started before is stopped again.
        """
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop top-down, whatever fails on the way; what is in flight ends or is handed back."""
        self._closers.close()

    def _start(self) -> None:
        self._doors = check_listeners(self.settings)
        self._dicomweb_settings = check_dicomweb(self.settings)
        self.profiles = build_profiles(self.settings)
        for profile, objects in self.profiles.not_installed().items():
            log.warning("profile.object_not_installed", profile=profile, objects=objects)
        prepare(self.settings)
        self.stores = open_stores(self.settings, self._clock)
        self._closers.callback(self.stores.database.close)
        self._load_engines_and_rules()
        self._closers.enter_context(claim(self.stores))
        own = any(processes_of(*door) == 1 for door in self._doors)
        self.reception = Reception(
            self.settings,
            self.stores,
            self._clock,
            spares=self.settings.storage.spare_packs if own else 0,
        )
        self._reconcile()
        self.reception.start()
        self._closers.callback(self.reception.stop)
        self._start_dispatchers()
        self._start_sweeps()
        self._start_workers()
        self._start_listeners()
        self._start_dicomweb()
        self._start_admin()
        log.info("node.started", node=self.settings.node.name)

    def _load_engines_and_rules(self) -> None:
        self._header_sandbox = Sandbox(memory_mib=HEADER_MEMORY_MIB)
        self._closers.callback(self._header_sandbox.close)
        self.catalogue = make_catalogue(self.settings, self.stores)
        self.catalogue.load()
        path = self.settings.rules.file
        if path is None:
            return
        read_rules(
            path,
            engines=self.catalogue.names(),
            destinations=frozenset(self.settings.destinations),
        )
        self.stores.rules.save(path.read_text(encoding="utf-8"), by="start-up")

    def _reconcile(self) -> None:
        staging = staging_folder(self.settings)
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        Reconciliation(
            packs=self.stores.packs,
            objects=self.stores.objects,
            studies=self.stores.studies,
            associations=self.stores.associations,
            indexer=self.reception.indexer,
            events=self.stores.events,
            clock=self._clock,
        ).run()
        for process, _ in numbered_folders(self.stores.packs.folder):
            reconcile_process(process, self.settings, self.stores, self._clock)

    def _start_dispatchers(self) -> None:
        targets = build_targets(self.settings)
        self.stores.deliveries.set_destinations(
            [(name, target.name) for name, target in targets.items()]
        )
        self.dispatchers = [self._dispatcher(name, target) for name, target in targets.items()]
        for dispatcher in self.dispatchers:
            dispatcher.start()
            self._closers.callback(dispatcher.stop)

    def _dispatcher(self, name: str, target: DeliveryTarget[PluginSettings]) -> Dispatcher:
        delivery = self.settings.delivery
        return Dispatcher(
            destination=name,
            target=target,
            deliveries=self.stores.deliveries,
            objects=self.stores.objects,
            clock=self._clock,
            limits=DispatchLimits(
                batch=delivery.batch,
                lease_seconds=delivery.lease_seconds,
                idle_seconds=delivery.idle_seconds,
                retry_first_seconds=delivery.retry_first_seconds,
                retry_max_seconds=delivery.retry_max_seconds,
                breaker_failures=delivery.breaker_failures,
                breaker_seconds=delivery.breaker_seconds,
                fallback_attempts=delivery.fallback_attempts,
            ),
            results=self._results,
        )

    def _start_sweeps(self) -> None:
        seconds = max(self.settings.completion.sweep_seconds, LEAST_SWEEP_SECONDS)
        scheduler = Scheduler(
            (
                *completion_sweeps(
                    self.settings,
                    self.stores,
                    self._header_sandbox,
                    self._clock,
                    settled=self._settled,
                    routed=self._work.ring,
                ),
                Sweep(name="job-leases", seconds=seconds, run=self.stores.jobs.expire_leases),
                *self._retention_sweeps(),
                Sweep(name="withdrawals", seconds=seconds, run=self._withdrawer().sweep),
                Sweep(name="quotas", seconds=QUOTA_SECONDS, run=self.reception.quotas.refresh),
                Sweep(
                    name="overdue",
                    seconds=self.settings.alerts.sweep_seconds,
                    run=self._alerts().sweep,
                ),
                Sweep(
                    name="delivery-leases",
                    seconds=seconds,
                    run=self.stores.deliveries.expire_leases,
                ),
                *(
                    Sweep(
                        name=f"knock-{dispatcher.destination}",
                        seconds=seconds,
                        run=dispatcher.knock,
                    )
                    for dispatcher in self.dispatchers
                ),
            )
        )
        scheduler.start()
        self._closers.callback(scheduler.stop)
        self._closers.callback(self._retention.stop)

    def _retention_sweeps(self) -> tuple[Sweep, ...]:
        """Return the look for what may go, and a more frequent one for a disk that runs short."""
        retention = open_retention(self.settings, self.stores, self._clock)
        self._retention = retention
        seconds = self.settings.retention.sweep_seconds
        return (
            Sweep(name="retention", seconds=seconds, run=lambda: sweep(retention)),
            Sweep(
                name="room",
                seconds=min(seconds, ROOM_SECONDS),
                run=lambda: sweep(retention) if retention.short_of_room() else None,
            ),
        )

    def _withdrawer(self) -> Withdrawer:
        return Withdrawer(
            withdrawals=self.stores.withdrawals,
            objects=self.stores.objects,
            device=device_identity(self.settings),
            staging=staging_folder(self.settings),
            memory_mib=HEADER_MEMORY_MIB,
            clock=self._clock,
            made=self._results.ring,
        )

    def _alerts(self) -> Alerts:
        alerts = self.settings.alerts
        limits = OverdueLimits(
            study=alerts.study_seconds,
            job=alerts.job_seconds,
            delivery=alerts.delivery_seconds,
            review=alerts.review_seconds,
        )
        return Alerts(OverdueStore(self.stores.database, self._clock), limits)

    def _start_workers(self) -> None:
        self.pool = make_pool(
            self.settings,
            self.stores,
            self.catalogue,
            clock=self._clock,
            work=self._work,
            finished=self._results.ring,
        )
        self.pool.start()
        self._closers.callback(self.pool.stop)

    def _start_listeners(self) -> None:
        for kind, checked in self._doors:
            listener = kind(checked, self.reception.ingest)
            processes = processes_of(kind, checked)
            if processes > 1 and isinstance(listener, SharedListener):
                self._start_shared(listener, processes)
            else:
                self._start_listener(listener)
        log.info("transfer_syntaxes.accepted", **accepted_transfer_syntaxes())

    def _start_shared(self, listener: SharedListener[PluginSettings], processes: int) -> None:
        shared = ListenerProcesses(
            listener,
            self.settings,
            processes,
            replay=lambda process: reconcile_process(
                process, self.settings, self.stores, self._clock
            ),
        )
        self._shared.append(shared)  # from now on nothing is settled before they say so
        self._start_listener(shared)

    def _start_listener(self, listener: WayIn) -> None:
        listener.start()
        self.listeners.append(listener)
        self._closers.callback(listener.stop)
        log.info("listener.started", listener=listener.name, address=listener.address())

    def _settled(self) -> bool:
        """Say whether all that any process of this node acknowledged is durable and indexed."""
        return self.reception.settle() and all(shared.settle() for shared in self._shared)

    def _start_dicomweb(self) -> None:
        settings = self._dicomweb_settings
        if settings is None:
            return
        reader = Reader(
            self.stores.packs,
            self.stores.objects,
            processes=settings.processes,
            memory_mib=settings.memory_mib,
        )
        self._closers.callback(reader.close)
        self.dicomweb = DicomwebServer(
            DicomwebContext(settings=settings, holdings=self.stores.holdings, reader=reader)
        )
        self.dicomweb.start()
        self._closers.callback(self.dicomweb.stop)

    def _start_admin(self) -> None:
        if not self.settings.admin.enabled:
            return
        self.admin = AdminServer(
            self._admin_context(), self.settings.admin.host, self.settings.admin.port
        )
        self.admin.start()
        self._closers.callback(self.admin.stop)

    def _admin_context(self) -> AdminContext:
        settings = self.settings
        return AdminContext(
            studies=self.stores.studies,
            jobs=self.stores.jobs,
            deliveries=self.stores.deliveries,
            rules=self.stores.rules,
            engines=self.stores.engines,
            events=self.stores.events,
            associations=self.stores.associations,
            holds=self.stores.holds,
            recalls=self.stores.recalls,
            withdrawals=self.stores.withdrawals,
            reviews=self.stores.reviews,
            policy=policy_of(settings),
            free_bytes=self.stores.packs.free_bytes,
            device_name=settings.node.name,
            version=software_version(),
            clock=self._clock,
            readiness=self.readiness,
            restarts=lambda: _merged(shared.restarts() for shared in self._shared),
            live=lambda: True,
            settings=self._settings_summary(),
        )

    def _settings_summary(self) -> SettingsSummary:
        settings = self.settings
        return SettingsSummary(
            listeners=tuple(
                ListenerSummary(name=item.name, address=item.address()) for item in self.listeners
            ),
            destinations={item.destination: item.target.address() for item in self.dispatchers},
            lines=(
                ("Data folder", str(settings.node.data_dir)),
                ("Database", self.stores.database.dialect),
                *(
                    (f"Result profile of {name}", profile)
                    for name, profile in self.profiles.destinations.items()
                ),
                ("Quiet time", f"{settings.completion.quiet_seconds:g} s"),
                ("Engine processes", str(settings.worker.processes)),
                ("DICOMweb", self.dicomweb.address() if self.dicomweb else "not served"),
            ),
        )

    def readiness(self) -> dict[str, str]:
        """Return each component with what is wrong with it; empty text means ready."""
        database = ""
        try:
            self.stores.jobs.counts()
        except StorageError as error:
            database = f"not available: {type(error).__name__}"
        low = self.reception.quotas.full
        return {
            "database": database,
            "disk": FULL if low else "",
            "engines": "" if self.pool.ready() else "golden cases are being verified",
            **_merged(shared.readiness() for shared in self._shared),
        }


def _merged(found: Iterable[Mapping[str, V]]) -> dict[str, V]:
    return {name: value for each in found for name, value in each.items()}
