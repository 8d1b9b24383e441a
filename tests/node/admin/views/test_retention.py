from __future__ import annotations

from pathlib import Path

from fastapi.testclient import TestClient

from storage.states import DeliveryState
from tests.node.admin.planting import STUDY, PlantedNode

MONTH = 31 * 86400.0


def read(planted: PlantedNode) -> None:
    """Take one study to results at both of its destinations."""
    planted.configure()
    planted.receive()
    planted.route()
    planted.succeed()
    for name in ("PACS", "ARCHIVE"):
        planted.answer(name, DeliveryState.SENT, status=0x0000)


def test_the_rules_are_told_in_words(client: TestClient) -> None:
    text = client.get("/retention").text
    assert "after 30 days" in text
    assert "below 5.4 GB of free disk, until 9.7 GB are free" in text
    assert "7.5 GB" in text
    assert "Nothing has been deleted." in text
    assert "No study is held." in text


def test_what_went_is_told_with_rule_and_study(
    planted: PlantedNode, client: TestClient, tmp_path: Path
) -> None:
    read(planted)
    planted.quarantine()
    planted.clock.forward(MONTH)
    planted.delete(tmp_path / "objects")
    page = client.get("/retention").text
    assert STUDY in page
    assert "studies_days" in page
    answer = client.get("/api/retention").json()
    assert {(item["kind"], item["rule"]) for item in answer["deletions"]} == {
        ("instances", "studies_days"),
        ("results", "results_days"),
        ("quarantine", "quarantine_days"),
    }
    assert "deleted by retention" in client.get("/quarantine").text


def test_the_study_says_what_went_and_that_it_is_held(
    planted: PlantedNode, client: TestClient, tmp_path: Path
) -> None:
    read(planted)
    planted.clock.forward(MONTH)
    planted.delete(tmp_path / "objects")
    planted.holds.hold(STUDY, by="anna", reason="a <complaint>")
    page = client.get(f"/studies/{STUDY}").text
    assert "Bytes of 1 instances were deleted by retention" in page
    assert "It cannot be replayed unless they are sent again." in page
    assert "a &lt;complaint&gt;" in page
    assert "Received bytes deleted by retention" in page
    detail = client.get(f"/api/studies/{STUDY}").json()
    assert [item["kind"] for item in detail["deletions"]] == ["results", "instances"]
    assert detail["holds"][0]["reason"] == "a <complaint>"
    assert "a &lt;complaint&gt;" in client.get("/retention").text
    assert client.get("/api/retention").json()["holds"][0]["by"] == "anna"
