from __future__ import annotations

from fastapi.testclient import TestClient

from tests.node.admin.planting import RULES, PlantedNode


def test_a_node_without_rules_says_so(client: TestClient) -> None:
    assert "No rules have been saved at this node yet." in client.get("/rules").text
    answer = client.get("/api/rules/current")
    assert answer.status_code == 404
    assert answer.json() == {"error": "No rules have been saved at this node yet."}


def test_the_rules_in_force_are_shown_with_the_ones_before(
    planted: PlantedNode, client: TestClient
) -> None:
    planted.rules.save(RULES, by="anna")
    planted.clock.forward(60)
    planted.rules.save("# <b>none</b>\n", by="ben")
    text = client.get("/rules").text
    assert "Revision <b>2</b> is in force" in text
    assert "# &lt;b&gt;none&lt;/b&gt;" in text
    assert "Revision 1, saved" in text
    assert "anna" in text
    body = client.get("/api/rules/current").json()
    assert (body["revision"], body["created_by"], body["text"]) == (2, "ben", "# <b>none</b>\n")
