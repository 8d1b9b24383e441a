"""A storage SCP that takes some SOP classes only, and does what a test wants with each."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Collection, Mapping
from types import TracebackType
from typing import Final, Literal, TypeAlias

from pynetdicom import AE, _config, evt
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.events import Event

from node.probing import TRANSFER_SYNTAXES

Answer: TypeAlias = int | Literal["abort", "stall"]
VERIFICATION: Final = "1.2.840.10008.1.1"
SUCCESS: Final = 0x0000
AE_TITLE: Final = "PACS"


class ChoosyPacs:
    """Keeps nothing, and counts: `kept` by SOP Instance UID, `asked` by SOP class."""

    def __init__(
        self,
        takes: Collection[str],
        *,
        answers: Mapping[str, Answer] | None = None,
        syntaxes: Collection[str] = tuple(TRANSFER_SYNTAXES),
    ) -> None:
        """Accept contexts for some SOP classes; give an object of a class another answer than 0."""
        self.answers = dict(answers or {})
        self.kept: list[str] = []
        self.bytes: dict[str, list[bytes]] = {}
        self.asked: Counter[str] = Counter()
        self.associations = 0
        self._awake = threading.Event()
        self._ae = AE(ae_title=AE_TITLE)
        self._ae.add_supported_context(VERIFICATION)
        for uid in takes:
            self._ae.add_supported_context(uid, list(syntaxes))
        self._ae.maximum_associations = 10

    def __enter__(self) -> ChoosyPacs:
        """Listen on a free port of the loopback interface."""
        self._chunked, _config.STORE_RECV_CHUNKED_DATASET = (
            _config.STORE_RECV_CHUNKED_DATASET,
            False,
        )
        server = self._ae.start_server(
            ("127.0.0.1", 0),
            block=False,
            evt_handlers=[
                (evt.EVT_ACCEPTED, self._accepted),
                (evt.EVT_C_STORE, self._store),
                (evt.EVT_C_ECHO, lambda _: SUCCESS),
            ],
        )
        assert server is not None
        self.port: int = server.server_address[1]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Wake what stalls, and stop listening."""
        self._awake.set()
        self._ae.shutdown()
        _config.STORE_RECV_CHUNKED_DATASET = self._chunked

    def _accepted(self, _: Event) -> None:
        self.associations += 1

    def _store(self, event: Event) -> int:
        request = event.request
        assert isinstance(request, C_STORE)
        assert request.DataSet is not None
        sop_class = str(request.AffectedSOPClassUID)
        instance = str(request.AffectedSOPInstanceUID)
        self.asked[sop_class] += 1
        answer = self.answers.get(sop_class, SUCCESS)
        if answer == "abort":
            event.assoc.abort()
            return SUCCESS
        if answer == "stall":
            self._awake.wait(30)
            return SUCCESS
        self.bytes.setdefault(instance, []).append(request.DataSet.getvalue())
        if answer == SUCCESS or answer >> 12 == 0xB:
            self.kept.append(instance)
        return answer
