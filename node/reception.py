"""What takes instances in, put together from the configuration: packs, ingest, writer of the index.

The listeners that hand instances to it, and what becomes of studies, are others' concern.
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import Final

import structlog

from node.clock import Clock
from node.ingest import IngestLimits, OwnDevice, StudyIngest, tell
from node.interfaces import MANUFACTURER, MODEL
from node.quotas import Quotas, Watermarks
from node.settings import Settings, quiet_seconds_for
from node.stores import Stores
from storage.duplicates import same_bytes
from storage.indexing import Indexer
from storage.pack_keeper import PackKeeper

FLUSH_SECONDS: Final = 0.5
SETTLE_SECONDS: Final = 5.0

log = structlog.get_logger()


class Reception:
    """The ingest of one process, with what writes packs and rows behind it."""

    def __init__(self, settings: Settings, stores: Stores, clock: Clock) -> None:
        """Build it; nothing is written until `start`."""
        self._settings = settings
        self._packs = stores.packs
        self._closers = ExitStack()
        self.indexer = Indexer(
            stores.database,
            clock,
            owner=settings.node.name,
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
            spares=storage.spare_packs,
            flush_seconds=None if storage.durability == "sync" else FLUSH_SECONDS,
            room=lambda: packs.free_bytes() > room,
            tell=lambda reason: log.error("packs.not_kept", reason=reason),
        )
