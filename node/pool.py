"""The workers of one process: golden cases first, then jobs; golden cases again after a rest."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

import structlog

from node.bell import Bell
from node.breaker import EngineBreaker
from node.catalogue import Catalogue
from node.worker import Worker
from storage.records import StorageError

AGAIN_SECONDS: Final = 1.0

log = structlog.get_logger()


class WorkerPool:
    """Verifies the engines in the background, then lets the workers take jobs."""

    def __init__(
        self,
        catalogue: Catalogue,
        breaker: EngineBreaker,
        workers: Callable[[], list[Worker]],
        work: Bell | None = None,
    ) -> None:
        """Ring `work` when an engine takes jobs again."""
        self._catalogue = catalogue
        self._breaker = breaker
        self._work = work or Bell()
        self._make = workers
        self._workers: list[Worker] = []
        self._stopping = threading.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._begin, name="engines", daemon=True)

    def start(self) -> None:
        """Begin; returns at once, so that listeners need not wait for golden cases."""
        self._thread.start()

    def ready(self) -> bool:
        """Say whether the golden cases are done and jobs are taken."""
        return self._ready.is_set()

    def stop(self) -> None:
        """Take no more jobs; those in hand are given back."""
        self._stopping.set()
        self._catalogue.close()
        self._thread.join()
        for worker in self._workers:
            worker.stop()

    def _begin(self) -> None:
        while not self._verified():
            if self._stopping.wait(AGAIN_SECONDS):
                return
        if self._stopping.is_set():
            return
        self._workers = self._make()
        for worker in self._workers:
            worker.start()
        self._ready.set()
        while not self._stopping.wait(AGAIN_SECONDS):
            self._try_again()

    def _try_again(self) -> None:
        """Run the golden cases of engines that rested long enough."""
        for name in self._breaker.due():
            try:
                passed = self._catalogue.verify_engine(name)
            except StorageError as error:
                log.error("engines.not_verified", error=str(error))
                continue
            self._breaker.tried(name, passed=passed)
            self._work.ring()

    def _verified(self) -> bool:
        """Run the golden cases; False: the database could not take what came of them."""
        try:
            self._catalogue.verify()
        except StorageError as error:
            if not self._stopping.is_set():
                log.error("engines.not_verified", error=str(error))
            return False
        return True
