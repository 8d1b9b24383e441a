"""What takes instances in, put together from the configuration: packs, ingest, writer of the index.

The listeners that hand instances to it, and what becomes of studies, are others' concern.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from typing import Final

import structlog

from node.clock import Clock
from node.ingest import IngestLimits, OwnDevice, StudyIngest, tell
from node.interfaces import MANUFACTURER, MODEL
from node.quotas import Quotas, Watermarks
from node.reconcile import PackReconciliation
from node.settings import Settings, quiet_seconds_for
from node.stores import Stores, stores_of
from storage.duplicates import same_bytes
from storage.indexing import Indexer
from storage.pack_folders import WriterLock, owner_name
from storage.pack_keeper import PackKeeper

FLUSH_SECONDS: Final = 0.5
SETTLE_SECONDS: Final = 5.0
LOCK_SECONDS: Final = 10.0
"""How long the last writer of a folder may take to be gone; it ends with its node, at once."""

log = structlog.get_logger()


class Reception:
    """The ingest of one process, with what writes packs and rows behind it."""

    def __init__(
        self, settings: Settings, stores: Stores, clock: Clock, *, process: int = 0, spares: int
    ) -> None:
        """Build it over the stores of a process; `spares` is how many packs lie ready for it."""
        self._settings = settings
        self._stores = stores
        self._packs = stores.packs
        self._spares = spares
        self._closers = ExitStack()
        self.indexer = Indexer(
            stores.database,
            clock,
            owner=owner_name(settings.node.name, process),
            same_bytes=partial(same_bytes, stores.packs),
            tell=tell,
        )
        self.quotas = self._build_quotas(stores)
        storage = settings.storage
        self.ingest = StudyIngest(
            packs=stores.packs,
            indexer=self.indexer,
            expectations=stores.expectations,
            quiet_time=lambda modality, ae: quiet_seconds_for(settings, modality, ae),
            limits=IngestLimits(
                max_object_bytes=storage.max_object_mib << 20,
                behind_bytes=storage.behind_mib << 20,
            ),
            quotas=self.quotas,
            own_device=OwnDevice(manufacturer=MANUFACTURER, model=MODEL),
            clock=clock,
        )

    def reconcile(self) -> None:
        """Before `start`: write the rows that an earlier process with these packs owes."""
        found = PackReconciliation(
            packs=self._packs,
            associations=self._stores.associations,
            indexer=self.indexer,
            events=self._stores.events,
        ).run()
        log.info("packs.reconciled", folder=self._packs.folder.name, **asdict(found))

    def start(self) -> None:
        """Start what writes rows behind the packs, and what keeps packs ready."""
        self._closers.callback(self._packs.close)
        keeper = self._build_keeper()
        keeper.start()
        self._closers.callback(keeper.stop)
        self.indexer.start()
        self._closers.callback(self.indexer.stop)

    def stop(self) -> None:
        """Write the rows that wait, and seal the packs."""
        self._closers.close()

    def settle(self) -> bool:
        """Bring all that was acknowledged to the disk and into the index; False: not in time."""
        return self.ingest.settle(SETTLE_SECONDS)

    def _build_quotas(self, stores: Stores) -> Quotas:
        storage = self._settings.storage
        quotas = Quotas(
            Watermarks(
                reserve_bytes=storage.reserve_mib << 20,
                resume_bytes=max(storage.resume_mib, storage.reserve_mib) << 20,
                urgent_bytes=max(storage.urgent_mib, storage.reserve_mib) << 20,
                quota_bytes=storage.quota_mib << 20,
            ),
            free_bytes=self._packs.free_bytes,
            waiting=stores.waiting.bytes_by_source,
        )
        quotas.refresh()
        return quotas

    def _build_keeper(self) -> PackKeeper:
        packs, storage = self._packs, self._settings.storage
        room = (storage.reserve_mib + storage.pack_mib) << 20
        return PackKeeper(
            packs,
            spares=self._spares,
            flush_seconds=None if storage.durability == "sync" else FLUSH_SECONDS,
            room=lambda: packs.free_bytes() > room,
            tell=lambda reason: log.error("packs.not_kept", reason=reason),
        )


def claim(stores: Stores) -> WriterLock:
    """Take the packs of a process for ourselves, until the lock is released.

    Raises:
        InUseError: another process writes there.
    """
    return WriterLock(stores.packs.folder).take(LOCK_SECONDS)


def reconcile_process(process: int, settings: Settings, stores: Stores, clock: Clock) -> None:
    """Write, in the node, the rows that one of its processes owes which has ended.

    Raises:
        StorageError: the database cannot take them, or the process still writes; nothing is lost.
    """
    own = stores_of(process, settings, stores, clock)
    with claim(own):
        Reception(settings, own, clock, process=process, spares=0).reconcile()
