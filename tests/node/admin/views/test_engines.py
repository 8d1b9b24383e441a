from __future__ import annotations

from fastapi.testclient import TestClient

from tests.node.admin.planting import PlantedNode


def test_engines_are_answered_with_state_and_reason(
    planted: PlantedNode, client: TestClient
) -> None:
    assert client.get("/api/engines").json() == {"engines": []}
    planted.configure()
    engines = {item["name"]: item for item in client.get("/api/engines").json()["engines"]}
    assert engines["liver"]["state"] == "active"
    assert engines["nodule"]["state"] == "unavailable"
    assert engines["nodule"]["reason"] == "no GPU is there"
