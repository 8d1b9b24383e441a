from __future__ import annotations

from fastapi.testclient import TestClient

from tests.node.admin.planting import PlantedNode, digest_of


def test_an_empty_quarantine_says_so(client: TestClient) -> None:
    assert "Nothing is in quarantine." in client.get("/quarantine").text


def test_what_lies_in_quarantine_is_shown_with_its_reason(
    planted: PlantedNode, client: TestClient
) -> None:
    planted.quarantine("no <SOP Class UID>")
    text = client.get("/quarantine").text
    assert "no &lt;SOP Class UID&gt;" in text
    assert digest_of("no <SOP Class UID>") in text
    assert "5.1 kB" in text
    assert "1 in quarantine" in client.get("/").text
