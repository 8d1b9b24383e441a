from __future__ import annotations

from collections.abc import Mapping

from storage.records import (
    DeliveryAttempt,
    JsonValue,
    Location,
    QuarantinedInstance,
    StudyAttributes,
)
from storage.states import DeliveryState, ErrorClass
from tests.storage.holding import STUDY, Holding


def test_a_timeline_is_one_studys_and_oldest_first(held: Holding) -> None:
    held.deliverable()
    held.receive(study="1.2.9")
    assert held.actions("1.2.9") == ["study.received"]
    assert held.actions() == [
        "study.received",
        "study.completed",
        "study.routed",
        "job.leased",
        "job.succeeded",
    ]


def test_an_event_of_no_store_is_written_whole(held: Holding) -> None:
    study_id = held.receive().study_id
    details: Mapping[str, JsonValue] = {"digest": "ab", "counts": [1, 2], "nested": {"none": None}}
    held.events.append("object.missing", study_id=study_id, actor="dr.meyer", details=details)
    (event,) = held.events.recent(1)
    assert (event.action, event.actor, event.study_id) == ("object.missing", "dr.meyer", study_id)
    assert (event.details, event.at) == (details, held.clock())


def test_no_text_of_a_data_set_or_a_peer_stands_in_an_event(held: Holding) -> None:
    """Go through a study's life with a canary in every free text, then look for it."""
    canary = "CANARY"
    attributes = StudyAttributes(patient_name=canary, patient_id=canary, study_description=canary)
    held.deliveries.set_destinations([("PACS", "dimse")])
    study_id = held.receive(attributes=attributes).study_id
    held.complete()
    held.studies.fail_routing(study_id, 1, canary)
    held.receive(2)
    held.route()
    leased = held.lease()
    held.jobs.fail(
        leased.job.id, leased.token, error_class=ErrorClass.TRANSIENT, error=canary, retry_in=0
    )
    held.finish()
    sent = held.send()
    attempt = DeliveryAttempt(state=DeliveryState.FAILED, status=0xC001, error=canary)
    held.deliveries.record(sent.delivery.id, sent.token, attempt)
    held.deliveries.park("PACS", held.clock(), canary)
    held.studies.quarantine(
        QuarantinedInstance(
            location=Location(pack="1" * 32, offset=64, length=404),
            digest="0" * 64,
            size=1,
            reason=canary,
            listener="dimse",
        )
    )
    assert held.studies.get(STUDY).attributes.patient_name == canary
    assert [event for event in held.events.recent(1000) if canary in str(event)] == []
