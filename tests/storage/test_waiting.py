from __future__ import annotations

from storage.waiting import WaitingStore
from tests.storage.holding import STUDY, Holding


def test_bytes_wait_until_their_study_has_no_open_job(held: Holding) -> None:
    waiting = WaitingStore(held.database)
    held.receive(1)
    held.receive(2, study=f"{STUDY}.9", calling_ae="OTHER")
    assert waiting.bytes_by_source() == {"SCANNER": 1001, "OTHER": 1002}
    held.route()
    assert waiting.bytes_by_source() == {"SCANNER": 1001, "OTHER": 1002}
    held.finish(0)
    assert waiting.bytes_by_source() == {"OTHER": 1002}
    held.receive(3)
    assert waiting.bytes_by_source() == {"SCANNER": 2004, "OTHER": 1002}
