from __future__ import annotations

from datetime import timedelta

import pytest
from fastapi.testclient import TestClient

from storage.records import Conservation
from storage.states import EngineState
from tests.node.admin.conftest import OpenClient
from tests.node.admin.planting import ADDRESS, Answers, PlantedNode


def test_an_empty_node_says_where_to_send_a_study(client: TestClient) -> None:
    text = client.get("/").text
    assert "No study has arrived yet. Send one to" in " ".join(text.split())
    assert ADDRESS in text
    assert "no rules are saved: no study can be routed" in text
    assert "no engine is active: no job can run" in text
    assert "no destination is configured: no result can be sent" in text
    assert "No association has been opened yet." in text


def test_a_node_without_a_way_in_says_so(planted: PlantedNode, open_client: OpenClient) -> None:
    text = open_client(planted.context(listeners=())).get("/").text
    assert "no listener is configured: nothing can arrive" in text


def test_the_whole_node_is_on_one_page(planted: PlantedNode, client: TestClient) -> None:
    planted.whole_story()
    text = client.get("/").text
    assert "preliminary and unverified" in text
    assert "jobs that failed: 1" in text
    assert "deliveries that were refused for good: 1" in text
    assert "engine nodule is unavailable: no GPU is there" in text
    assert "<b>3</b> received" in text
    assert "<b>3</b> routed" in text
    assert "balanced" in text
    assert "CT_SCANNER" in text
    assert "dicom://PACS@127.0.0.1:104" in text
    assert "Revision 1" in text
    assert "Quiet time" in text


def test_a_node_without_trouble_says_so(planted: PlantedNode, client: TestClient) -> None:
    planted.configure()
    planted.engines.set_state("nodule", EngineState.RETIRED, "replaced")
    assert "Nothing needs attention." in client.get("/").text


def test_a_component_that_is_not_ready_needs_attention(
    planted: PlantedNode, open_client: OpenClient
) -> None:
    answers = Answers(components={"disk": "full up to the reserve"})
    text = open_client(planted.context(answers=answers)).get("/").text
    assert "disk: full up to the reserve" in text
    assert "Nothing needs attention." not in text


def test_a_destination_that_is_down_shows_its_breaker(
    planted: PlantedNode, client: TestClient
) -> None:
    planted.whole_story()
    until = planted.clock() + timedelta(minutes=4)
    planted.deliveries.park("ARCHIVE", until, "connection refused")
    text = client.get("/").text
    assert "destination ARCHIVE is down: connection refused" in text
    assert "in 4 min" in text


def test_instances_that_nothing_accounts_for_are_shown(
    planted: PlantedNode, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = Conservation(
        received=5,
        in_progress=1,
        routed=1,
        discarded=0,
        failed=0,
        duplicates=0,
        conflicts=0,
        own_results=0,
        quarantined=0,
    )
    monkeypatch.setattr(planted.studies, "conservation", lambda: lost)
    text = client.get("/").text
    assert "3 acknowledged instances are not accounted for" in text
    assert "balanced" not in text


def test_the_equation_is_answered_to_machines(planted: PlantedNode, client: TestClient) -> None:
    planted.receive()
    planted.receive()
    planted.receive(content="other bytes")
    planted.quarantine()
    assert client.get("/api/conservation").json() == {
        "received": 3,
        "in_progress": 1,
        "routed": 0,
        "discarded": 0,
        "failed": 0,
        "duplicates": 1,
        "conflicts": 1,
        "own_results": 0,
        "quarantined": 1,
        "missing": 0,
    }
