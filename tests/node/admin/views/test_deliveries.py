from __future__ import annotations

from datetime import timedelta

from fastapi.testclient import TestClient

from storage.records import NewDelivery
from storage.states import DeliveryState
from tests.node.admin.planting import STUDY, PlantedNode


def test_no_deliveries_says_when_one_is_made(client: TestClient) -> None:
    assert "Nothing has been sent yet." in client.get("/deliveries").text


def test_a_refused_delivery_shows_peer_status_meaning_and_act(
    planted: PlantedNode, client: TestClient
) -> None:
    planted.whole_story()
    text = client.get("/deliveries", params={"state": "failed"}).text
    for wanted in (
        "dicom://PACS@127.0.0.1:104",
        "0x0122",
        "Refused: SOP class not supported",
        "not accepted",
        "Let the destination accept this SOP class",
        "preliminary and unverified",
    ):
        assert wanted in text


def test_deliveries_are_filtered_by_destination_and_state(
    planted: PlantedNode, client: TestClient
) -> None:
    planted.whole_story()
    text = client.get("/deliveries", params={"destination": "ARCHIVE"}).text
    assert "not tried yet" in text
    assert "0x0122" not in text
    text = client.get("/deliveries", params={"destination": "ARCHIVE", "state": "failed"}).text
    assert "No delivery to ARCHIVE is failed now." in text


def test_a_parked_delivery_shows_when_it_is_tried_again(
    planted: PlantedNode, client: TestClient
) -> None:
    planted.whole_story()
    planted.deliveries.park("ARCHIVE", planted.clock() + timedelta(minutes=4), "refused")
    text = client.get("/deliveries", params={"state": "parked"}).text
    assert "sending goes on by itself" in text


def test_a_hostile_answer_of_a_peer_stays_text(planted: PlantedNode, client: TestClient) -> None:
    planted.configure()
    planted.receive()
    planted.route()
    planted.succeed()
    planted.answer("PACS", DeliveryState.FAILED, status=0xC001, error="<script>x</script>\x1b[2J")
    text = client.get("/deliveries").text
    assert "<script" not in text
    assert "\x1b" not in text
    assert "Error: cannot understand" in text


def test_the_api_answers_the_real_state(planted: PlantedNode, client: TestClient) -> None:
    planted.whole_story()
    body = client.get("/api/deliveries", params={"study": STUDY}).json()
    states = {item["destination"]: item["state"] for item in body["deliveries"]}
    assert states == {"PACS": "failed", "ARCHIVE": "queued"}
    queued = client.get("/api/deliveries", params={"destination": "ARCHIVE"}).json()["deliveries"]
    assert (queued[0]["status"], queued[0]["status_meaning"]) == (None, "")
    assert client.get("/api/deliveries", params={"state": "lost"}).status_code == 422
    assert client.get("/api/deliveries", params={"study": "1.2.3"}).status_code == 404


def test_a_replaced_delivery_names_the_reason_and_what_goes_instead(
    planted: PlantedNode, client: TestClient
) -> None:
    """NET-18, VIEW-01: on the page, on the study's timeline, and in the API."""
    planted.configure()
    planted.receive()
    planted.route()
    planted.succeed(
        results=2,
        deliveries=(
            NewDelivery(destination="PACS", result=0, fallbacks=((1,),)),
            NewDelivery(destination="PACS", result=1, reserved=True),
        ),
    )
    assert "Held in reserve" in client.get("/deliveries", params={"state": "reserved"}).text
    planted.answer("PACS", DeliveryState.FAILED, status=0x0122, error="takes no SEG")
    text = client.get("/deliveries").text
    assert "Refused by destinations" in text
    for page in (text, client.get(f"/studies/{STUDY}").text):
        assert "takes no SEG" in page
        assert "another object of its profile goes instead" in page
        assert "Let the destination accept" not in page
    assert "Out of reserve: sent in the place of" in client.get(f"/studies/{STUDY}").text
    planted.clock.forward(1)
    planted.answer("PACS", DeliveryState.SENT, status=0)
    assert "Refused by destinations" not in client.get("/deliveries").text
    body = client.get(f"/api/studies/{STUDY}").json()
    assert [item["state"] for item in body["deliveries"]] == ["sent", "replaced"]
    progress = body["progress"]
    assert (progress["total"], progress["accepted"], progress["replaced"]) == (2, 1, 1)
    assert (progress["reserved"], progress["failed"], progress["complete"]) == (0, 0, True)
