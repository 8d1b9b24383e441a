"""Modalities that send whatever the node does, and a ledger of what they were told."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Sequence
from typing import Final

from tests.end_to_end.made_images import Image, Prototype, Study
from tests.end_to_end.store_scu import AssociationRejectedError, StoreAssociation

SUCCESS: Final = 0x0000


class Ledger:
    """What was sent and what was answered: by SOP Instance UID and digest of the data set."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.attempts: Counter[tuple[str, bytes]] = Counter()
        self.acknowledged: Counter[tuple[str, bytes]] = Counter()
        self.refused: Counter[int] = Counter()
        self.rejected: Counter[tuple[int, int, int]] = Counter()
        self.broken = 0
        self.answers = 0
        self.seconds: dict[str, list[float]] = defaultdict(list)
        """By SOP class: from a request to its response, of acknowledged ones."""

    def send(self, association: StoreAssociation, image: Image) -> bool:
        """Send an image, with a note before and after; say whether it was acknowledged."""
        key = image.key
        with self._lock:
            self.attempts[key] += 1
        began = time.perf_counter()
        status = association.store(image)
        took = time.perf_counter() - began
        with self._lock:
            if status == SUCCESS:
                self.acknowledged[key] += 1
                self.answers += 1
                self.seconds[image.sop_class_uid].append(took)
            else:
                self.refused[status] += 1
        return status == SUCCESS

    def no_association(self, error: AssociationRejectedError) -> None:
        """Count an association that was rejected."""
        with self._lock:
            self.rejected[error.reason] += 1

    def lost_connection(self) -> None:
        """Count a connection that broke, or could not be made."""
        with self._lock:
            self.broken += 1


class RestlessSender(threading.Thread):
    """A modality that goes on whatever the node does, and sends again what was not acknowledged.

    Some come with one image at a time, some with long associations. Now and then one sends an image
    again, sends other bytes under a known SOP Instance UID, or vanishes in the middle.
    """

    def __init__(
        self, index: int, port: int, ledger: Ledger, prototypes: Sequence[Prototype], seed: int
    ) -> None:
        super().__init__(name=f"sender-{index}", daemon=True)
        self._port = port
        self._ledger = ledger
        self._prototypes = prototypes
        self._calling = f"MODALITY{index}"
        self._chance = random.Random(f"{seed}-{index}")  # noqa: S311 - it chooses what to send
        self._one_at_a_time = index % 2 == 1
        self._open: deque[Image] = deque(maxlen=50)
        self._kept: deque[Image] = deque(maxlen=20)
        self._study = Study(prototypes[0], self._chance)
        self._stop_asked = threading.Event()

    def stop(self) -> None:
        """Ask it to end after the image in hand."""
        self._stop_asked.set()

    def run(self) -> None:
        """Come and go."""
        while not self._stop_asked.is_set():
            try:
                self._visit()
            except AssociationRejectedError as error:
                self._ledger.no_association(error)
            except OSError:
                self._ledger.lost_connection()
            self._stop_asked.wait(self._chance.uniform(0.02, 0.4))

    def _visit(self) -> None:
        if self._chance.random() < 0.3:
            self._study = Study(self._chance.choice(self._prototypes), self._chance)
        elif self._chance.random() < 0.3:
            self._study.next_series()
        association = StoreAssociation(self._port, calling=self._calling)
        try:
            for _ in range(1 if self._one_at_a_time else self._chance.randint(2, 20)):
                if self._stop_asked.is_set() or not self._send_one(association):
                    break
            association.release()
        finally:
            association.close()

    def _send_one(self, association: StoreAssociation) -> bool:
        image = self._choose()
        if self._chance.random() < 0.02:
            association.vanish(image, self._chance)
            raise ConnectionAbortedError("vanished")
        self._open.append(image)  # until it is acknowledged
        if not self._ledger.send(association, image):
            return False
        self._open.remove(image)
        self._kept.append(image)
        return True

    def _choose(self) -> Image:
        chance = self._chance.random()
        if self._open and chance < 0.5:
            return self._open.popleft()
        if self._kept and chance > 0.92:
            kept = self._chance.choice(self._kept)
            return kept if chance < 0.97 else kept.altered(self._chance)
        return self._study.image()
