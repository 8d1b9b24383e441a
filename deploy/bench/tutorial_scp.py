"""The storage SCP of pynetdicom's tutorial: decode the data set, save it. A peer in the bench.

python deploy/bench/tutorial_scp.py PORT      it writes into the folder it is started in
"""

from __future__ import annotations

import sys

from pynetdicom import AE, AllStoragePresentationContexts, evt


def handle_store(event: evt.Event) -> int:
    """Save one instance under its SOP Instance UID."""
    dataset = event.dataset
    dataset.file_meta = event.file_meta
    dataset.save_as(dataset.SOPInstanceUID, enforce_file_format=True)
    return 0x0000


def main() -> None:
    """Serve on loopback until ended."""
    ae = AE()
    ae.supported_contexts = AllStoragePresentationContexts
    handlers: list[evt.EventHandlerType] = [(evt.EVT_C_STORE, handle_store)]
    ae.start_server(("127.0.0.1", int(sys.argv[1])), block=True, evt_handlers=handlers)


if __name__ == "__main__":
    main()
