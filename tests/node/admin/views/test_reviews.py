from __future__ import annotations

from fastapi.testclient import TestClient

from tests.node.admin.planting import STUDY, PlantedNode

WHY = "Liver would have 9 ml; 500 to 3000 are plausible"


def hold_back(planted: PlantedNode) -> None:
    planted.configure()
    planted.receive()
    planted.route()
    planted.hold_back(WHY)


def test_nothing_waits_where_nothing_was_held_back(client: TestClient) -> None:
    assert "Nothing waits for a person." in client.get("/reviews").text
    assert client.get("/api/reviews").json() == {"waiting": [], "decided": []}


def test_what_is_held_back_asks_for_a_person_wherever_one_looks(
    planted: PlantedNode, client: TestClient
) -> None:
    hold_back(planted)
    assert "results held back until a person has seen them: 1" in client.get("/").text
    page = client.get("/reviews").text
    assert WHY in page
    assert STUDY in page
    assert "wetread results release REVIEW" in page
    (item,) = client.get("/api/reviews").json()["waiting"]
    assert (item["reason"], item["state"], item["study_instance_uid"]) == (WHY, "waiting", STUDY)
    study = client.get(f"/studies/{STUDY}").text
    assert "What the engine found and did not believe" in study
    assert "given to nobody" in study
    assert f"review {item['id']}" in study
    assert "Held back: a person has to see the result first" in study
    assert "wetread_reviews_waiting 1.0" in client.get("/metrics").text


def test_a_decision_is_told_with_who_made_it_and_why(
    planted: PlantedNode, client: TestClient
) -> None:
    hold_back(planted)
    (review,) = planted.reviews.list()
    planted.reviews.discard(review.id, by="dr-who", comment="a table, no liver")
    page = client.get("/reviews").text
    assert "Nothing waits for a person." in page
    assert "dr-who" in page
    assert "a table, no liver" in page
    (item,) = client.get("/api/reviews").json()["decided"]
    assert item["state"] == "discarded"
    assert "wetread_reviews_waiting 0.0" in client.get("/metrics").text
