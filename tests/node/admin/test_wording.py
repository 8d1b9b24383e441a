from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from enum import StrEnum

import pytest

from node.admin import wording
from storage.records import DeliveryRecord
from storage.states import (
    AssociationState,
    DeliveryState,
    EngineState,
    ErrorClass,
    JobState,
    StudyState,
)

NOON = datetime(2026, 7, 15, 12, 0, 0, tzinfo=UTC)
DELIVERY = DeliveryRecord(
    id=1,
    result_id=1,
    job_id=1,
    study_instance_uid="1.2.3",
    destination="PACS",
    sop_class_uid="1.2.840.10008.5.1.4.1.1.66.4",
    sop_instance_uid="2.25.1",
    state=DeliveryState.FAILED,
    attempts=1,
    status=None,
    error="",
    created_at=NOON,
    not_before=NOON,
    finished_at=NOON,
)


@pytest.mark.parametrize(
    ("kind", "states"),
    [
        ("study", StudyState),
        ("job", JobState),
        ("delivery", DeliveryState),
        ("engine", EngineState),
        ("association", AssociationState),
    ],
)
def test_every_state_has_a_tone_and_a_meaning(kind: str, states: type[StrEnum]) -> None:
    for state in states:
        assert state.value in wording.TONES
        assert wording.meaning(kind, state.value)


@pytest.mark.parametrize(
    ("status", "written", "text"),
    [
        (0x0000, "0x0000", "Success"),
        (0x0122, "0x0122", "Refused: SOP class not supported"),
        (0x0124, "0x0124", "Refused: not authorized"),
        (0xA700, "0xA700", "Refused: out of resources"),
        (0xA7FF, "0xA7FF", "Refused: out of resources"),
        (0xA900, "0xA900", "Error: data set does not match SOP class"),
        (0xB000, "0xB000", "Warning: coercion of data elements"),
        (0xB006, "0xB006", "Warning: elements discarded"),
        (0xB007, "0xB007", "Warning: data set does not match SOP class"),
        (0xB123, "0xB123", "Warning"),
        (0xC000, "0xC000", "Error: cannot understand"),
        (0xCFFF, "0xCFFF", "Error: cannot understand"),
        (0x9999, "0x9999", "Status not in the standard"),
    ],
)
def test_statuses_are_written_with_their_meaning(status: int, written: str, text: str) -> None:
    assert wording.status_hex(status) == written
    assert wording.status_text(status) == text


def test_a_failed_delivery_always_names_an_act() -> None:
    for status in (None, 0x0000, 0x0110, 0x0122, 0x0124, 0xA700, 0xA900, 0xC123):
        assert wording.delivery_act(replace(DELIVERY, status=status))


def test_a_waiting_delivery_names_an_act_only_after_an_attempt() -> None:
    waiting = replace(DELIVERY, state=DeliveryState.QUEUED, attempts=0)
    assert wording.delivery_act(waiting) == ""
    assert "by itself" in wording.delivery_act(replace(waiting, attempts=2))
    assert "by itself" in wording.delivery_act(replace(waiting, state=DeliveryState.PARKED))
    assert wording.delivery_act(replace(waiting, state=DeliveryState.SENT)) == ""


def test_every_error_class_has_an_act() -> None:
    assert set(wording.JOB_ACTS) == set(ErrorClass)


def test_an_action_without_words_is_shown_as_it_is() -> None:
    assert wording.action_text("job.leased") == "Job started"
    assert wording.action_text("new.thing") == "new.thing"


def test_units_are_written_as_people_do() -> None:
    assert wording.unit_text("[hnsf'U]") == "HU"
    assert wording.unit_text("mL") == "mL"
