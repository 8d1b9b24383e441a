"""A process of a listener that several share: its own packs and index writer, its node's door.

It speaks JSON lines with its node, over its standard input and output. The first line that it reads
says what it is; further ones are orders. When its input ends its node is gone, and it ends at once,
as in a crash: what it acknowledged is in its packs, and the next start of the node takes it up.
"""

from __future__ import annotations

import gc
import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Final

from node.clock import system_clock
from node.doors import check_listeners
from node.interfaces import Listener, ListenerError, PluginSettings, SharedListener
from node.listener_processes import Part
from node.log import configure_logging
from node.reception import Reception, claim
from node.scheduler import Scheduler, Sweep
from node.settings import SettingsError
from node.stores import open_stores, stores_of
from storage.records import StorageError

QUOTA_SECONDS: Final = 1.0
ORPHANED: Final = 3
"""Exit status when the node is gone."""
NOT_STARTED: Final = 2


class ListenerProcess:
    """One of the processes; started and stopped once."""

    def __init__(self, part: Part) -> None:
        self._part = part
        self._closers = ExitStack()

    def start(self) -> None:
        """Take the packs, write what rows are owed, and let instances in.

        Raises:
            ListenerError, SettingsError, StorageError: with the reason.
        """
        part, settings = self._part, self._part.settings
        stores = stores_of(part.process, settings, open_stores(settings))
        self._closers.callback(stores.database.close)
        self._closers.enter_context(claim(stores))
        self._reception = Reception(
            settings, stores, system_clock, process=part.process, spares=part.spares
        )
        self._reception.reconcile()
        self._reception.start()
        self._closers.callback(self._reception.stop)
        if settings.storage.quota_mib:
            refresh = self._reception.quotas.refresh
            sweeps = Scheduler((Sweep(name="quotas", seconds=QUOTA_SECONDS, run=refresh),))
            sweeps.start()
            self._closers.callback(sweeps.stop)
        listener = self._listener()
        listener.start()
        self._closers.callback(listener.stop)

    def settle(self) -> bool:
        """Bring all that was acknowledged to the disk and into the index; False: not in time."""
        return self._reception.settle()

    def stop(self) -> None:
        """Take no more, let what is in flight end within its grace time, write the rows."""
        self._closers.close()

    def _listener(self) -> Listener[PluginSettings]:
        for kind, settings in check_listeners(self._part.settings):
            if kind.name == self._part.listener:
                listener = kind(settings, self._reception.ingest)
                if isinstance(listener, SharedListener):
                    listener.inherit(self._part.descriptors, self._part.process)
                    return listener
        raise ListenerError(f"listeners.{self._part.listener}: is not one that can be shared")


def main() -> None:
    """Be a process of a listener until the node says that it is over."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # they come to the node, which tells us
    answers = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what prints cannot speak for us
    orders: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(orders,), name="orders", daemon=True).start()
    part = Part.model_validate_json(orders.get())
    logging = part.settings.logging
    name = f"{part.listener}-{part.process}"
    configure_logging(level=logging.level, style=logging.format, process=name)
    process = ListenerProcess(part)
    try:
        process.start()
    except (ListenerError, SettingsError, StorageError, OSError) as error:
        _tell(answers, failed=str(error))
        sys.exit(NOT_STARTED)
    gc.freeze()  # what a start leaves stays: no collection need look at it again
    _tell(answers, ready=True)
    while "end" not in json.loads(orders.get()):
        _tell(answers, settled=process.settle())
    process.stop()


def _read(orders: queue.SimpleQueue[bytes]) -> None:
    """Hand on what the node says; end with it."""
    for line in _lines(sys.stdin.fileno()):
        orders.put(line)
    os._exit(ORPHANED)


def _lines(descriptor: int) -> Iterator[bytes]:
    """Yield lines without Python's own buffer: a thread that waits in it would hold up the end."""
    rest = b""
    while chunk := os.read(descriptor, 1 << 16):
        *whole, rest = (rest + chunk).split(b"\n")
        yield from whole


def _tell(descriptor: int, **message: object) -> None:
    os.write(descriptor, json.dumps(message).encode() + b"\n")


if __name__ == "__main__":
    main()
