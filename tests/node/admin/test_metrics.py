from __future__ import annotations

from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from node.admin.app import create_app
from storage.records import StudyAttributes
from tests.node.admin.conftest import OpenClient
from tests.node.admin.planting import STUDY, Answers, PlantedNode

CANARIES = StudyAttributes(
    patient_name="CANARYNAME^CANARYGIVEN",
    patient_id="CANARYID",
    issuer_of_patient_id="CANARYISSUER",
    patient_birth_date="19470819",
    accession_number="CANARYACC",
    study_id="CANARYSTUDY",
    study_description="CANARYDESC",
    referring_physician_name="CANARYREF",
)


def samples(client: TestClient) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    answer = client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_counts_are_read_when_they_are_asked_for(planted: PlantedNode, client: TestClient) -> None:
    received = ("wetread_instances_received_total", ())
    assert samples(client)[received] == 0
    planted.whole_story()
    found = samples(client)
    assert found[received] == 3
    assert found["wetread_conservation_missing", ()] == 0
    assert found["wetread_instances", (("place", "routed"),)] == 3
    assert found["wetread_studies", (("state", "routed"),)] == 1
    assert found["wetread_studies", (("state", "receiving"),)] == 0
    assert found["wetread_jobs", (("state", "succeeded"),)] == 1
    assert found["wetread_jobs", (("state", "failed"),)] == 1
    assert found["wetread_deliveries", (("state", "failed"),)] == 1
    assert found["wetread_deliveries", (("state", "queued"),)] == 1
    assert found["wetread_engine", (("engine", "nodule"), ("state", "unavailable"))] == 1


def test_an_open_breaker_is_a_metric(planted: PlantedNode, client: TestClient) -> None:
    planted.whole_story()
    now = planted.clock()
    planted.clock.forward(60)
    planted.deliveries.park("ARCHIVE", planted.clock(), "connection refused")
    planted.clock.now = now
    found = samples(client)
    assert found["wetread_destination_breaker_open", (("destination", "ARCHIVE"),)] == 1
    assert found["wetread_destination_breaker_open", (("destination", "PACS"),)] == 0
    planted.clock.forward(61)
    found = samples(client)
    assert found["wetread_destination_breaker_open", (("destination", "ARCHIVE"),)] == 0


def test_what_retention_deleted_and_keeps_is_a_metric(
    planted: PlantedNode, client: TestClient, tmp_path: Path
) -> None:
    planted.configure()
    planted.receive()
    planted.complete()
    planted.studies.fail_routing(planted.studies.get(STUDY).id, 1, "no")
    planted.clock.forward(41 * 86400)
    before = samples(client)
    assert before["wetread_oldest_kept_seconds", ()] > 40 * 86400
    planted.holds.hold(STUDY, by="anna", reason="")
    assert samples(client)["wetread_studies_held", ()] == 1
    planted.holds.release(STUDY, by="anna")
    planted.delete(tmp_path / "objects")
    found = samples(client)
    deleted = (("kind", "instances"), ("rule", "failed_days"))
    assert found["wetread_retention_deleted_bytes_total", deleted] == 524_688
    assert found["wetread_retention_unfinished", ()] == 0
    assert found["wetread_oldest_kept_seconds", ()] == 0
    assert found["wetread_disk_free_bytes", ()] == 7 << 30


def test_no_patient_data_is_in_a_metric(planted: PlantedNode, client: TestClient) -> None:
    planted.whole_story(CANARIES)
    text = client.get("/metrics").text
    assert "CANARY" not in text
    assert "19470819" not in text
    assert STUDY not in text


def test_components_that_are_not_ready_are_zero(
    planted: PlantedNode, open_client: OpenClient
) -> None:
    answers = Answers(components={"database": "", "disk": "full"})
    found = samples(open_client(planted.context(answers=answers)))
    assert found["wetread_component_ready", (("component", "database"),)] == 1
    assert found["wetread_component_ready", (("component", "disk"),)] == 0


def test_two_applications_do_not_share_a_registry(planted: PlantedNode) -> None:
    first = create_app(planted.context())
    second = create_app(planted.context())
    assert first.state.registry is not second.state.registry


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/api/engines", "/api/conservation"])
def test_no_patient_data_is_in_what_machines_poll(
    planted: PlantedNode, client: TestClient, path: str
) -> None:
    planted.whole_story(CANARIES)
    assert "CANARY" not in client.get(path).text
