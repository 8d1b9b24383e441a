from __future__ import annotations

from fastapi.testclient import TestClient

from tests.node.admin.conftest import OpenClient
from tests.node.admin.planting import Answers, PlantedNode


def test_a_live_node_says_so(client: TestClient) -> None:
    answer = client.get("/livez")
    assert (answer.status_code, answer.json()) == (200, {"live": True})


def test_a_stuck_node_is_not_live(planted: PlantedNode, open_client: OpenClient) -> None:
    answer = open_client(planted.context(answers=Answers(live=False))).get("/livez")
    assert (answer.status_code, answer.json()) == (503, {"live": False})


def test_a_node_is_ready_when_all_its_components_are(client: TestClient) -> None:
    answer = client.get("/readyz")
    assert answer.status_code == 200
    assert answer.json() == {"ready": True, "components": ["database", "disk"], "problems": {}}


def test_a_node_that_is_not_ready_names_every_reason(
    planted: PlantedNode, open_client: OpenClient
) -> None:
    answers = Answers(components={"disk": "full", "engines": "not verified", "database": ""})
    answer = open_client(planted.context(answers=answers)).get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["ready"] is False
    assert answer.json()["problems"] == {"disk": "full", "engines": "not verified"}
