from __future__ import annotations

from fastapi.testclient import TestClient

from storage.recall_records import RecallScope
from storage.states import DeliveryState
from tests.node.admin.planting import STUDY, PlantedNode


def recalled(planted: PlantedNode) -> None:
    """Take one study to a result at one of its destinations, and recall it."""
    planted.configure()
    planted.receive()
    planted.route()
    planted.succeed()
    planted.answer("PACS", DeliveryState.SENT, status=0x0000)
    scope = RecallScope(engine="liver", study_instance_uid=STUDY)
    planted.recalls.recall(scope, code="113037", reason="a <wrong> organ", by="anna")


def test_where_nothing_was_recalled_the_page_says_how_one_does(client: TestClient) -> None:
    page = client.get("/recalls").text
    assert "Nothing has been recalled." in page
    assert "wetread recall --engine NAME@VERSION --dry-run" in page
    assert client.get("/api/recalls").json() == {"recalls": []}


def test_a_recall_is_told_with_who_why_and_who_is_to_be_told(
    planted: PlantedNode, client: TestClient
) -> None:
    recalled(planted)
    page = client.get("/recalls").text
    assert "a &lt;wrong&gt; organ" in page
    assert STUDY in page
    (item,) = client.get("/api/recalls").json()["recalls"]
    assert (item["engine"], item["by"], item["reason"]) == ("liver", "anna", "a <wrong> organ")
    assert (item["studies"], item["results"], item["waiting"]) == (1, 1, 1)


def test_the_study_says_that_its_results_must_not_be_used(
    planted: PlantedNode, client: TestClient
) -> None:
    recalled(planted)
    page = client.get(f"/studies/{STUDY}").text
    assert "results of liver must not be used." in page
    assert "a &lt;wrong&gt; organ" in page
    assert '<span class="chip bad">recalled</span>' in page
    assert "PACS is told that results are rejected; its note is still to be made." in page
    assert "Results recalled" in page
    detail = client.get(f"/api/studies/{STUDY}").json()
    assert detail["recalls"][0]["by"] == "anna"
    assert detail["results"][0]["recall_id"] == 1
    assert detail["progress"]["withdrawn"] == 1  # to the other destination


def test_the_page_can_change_nothing(client: TestClient) -> None:
    """There is no log-in: a recall is called for on the command line."""
    assert client.post("/recalls").status_code == 405
    assert client.post("/api/recalls").status_code == 405
