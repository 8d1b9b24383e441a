from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from storage.records import Routing, StudyAttributes
from storage.states import DeliveryState
from tests.node.admin.planting import ADDRESS, STUDY, PlantedNode

HOSTILE = StudyAttributes(
    patient_name="<script>alert(1)</script>^{{7*191}}",
    patient_id="\x1b[2J\"'><img src=x onerror=alert(2)>",
    accession_number="=cmd|' /C calc'!A0",
    study_description="</title><svg onload=alert(3)>\u202eabc{% raw %}",
    referring_physician_name="${7*191}#{7*191}",
)


def other(number: int) -> str:
    return f"{STUDY}.{number}"


def plant_many(planted: PlantedNode, count: int) -> None:
    for number in range(count):
        planted.receive(other(number), attributes=StudyAttributes(patient_name=f"N{number}^X"))
        planted.clock.forward(1)


def test_an_empty_list_says_where_to_send_a_study(client: TestClient) -> None:
    text = client.get("/studies").text
    assert "No study has arrived yet." in text
    assert ADDRESS in text


def test_the_list_shows_what_an_administrator_looks_for(
    planted: PlantedNode, client: TestClient
) -> None:
    planted.receive(
        attributes=StudyAttributes(
            patient_name="DOE^JANE",
            patient_id="P-1",
            accession_number="A-77",
            study_date="20260131",
            study_description="CT ABDOMEN",
        )
    )
    text = client.get("/studies").text
    for wanted in ("DOE, JANE", "P-1", "A-77", "2026-01-31", "CT ABDOMEN", "CT_SCANNER"):
        assert wanted in text
    assert f'href="/studies/{STUDY}"' in text


def test_studies_are_filtered_by_state(planted: PlantedNode, client: TestClient) -> None:
    plant_many(planted, 2)
    planted.complete(other(0))
    text = client.get("/studies", params={"state": "complete"}).text
    assert "N0, X" in text
    assert "N1, X" not in text
    assert "No study in state failed is here now." in client.get("/studies?state=failed").text


def test_the_search_travels_in_the_body_and_not_in_the_address(
    planted: PlantedNode, client: TestClient
) -> None:
    plant_many(planted, 3)
    found = client.post("/studies", data={"text": "N1", "state": ""})
    assert found.status_code == 200
    assert "N1, X" in found.text
    assert "N2, X" not in found.text
    assert client.get("/studies", params={"text": "N1"}).status_code == 422


def test_a_search_without_a_match_says_so(planted: PlantedNode, client: TestClient) -> None:
    planted.receive()
    text = client.post("/studies", data={"text": "<nobody>"}).text
    assert "matches" in text
    assert "&lt;nobody&gt;" in text
    assert "<nobody>" not in text


def test_the_list_goes_on_page_after_page(planted: PlantedNode, client: TestClient) -> None:
    plant_many(planted, 53)
    first = client.get("/studies").text
    assert first.count('class="number">1</td>') == 100
    assert "offset=50" in first
    second = client.get("/studies?offset=50").text
    assert "51&ndash;53" in second
    assert "Newer" in second
    assert "Older" not in second
    assert "The list ends before this point." in client.get("/studies?offset=100").text


def test_the_pages_of_a_search_keep_its_words(planted: PlantedNode, client: TestClient) -> None:
    plant_many(planted, 52)
    text = client.post("/studies", data={"text": "X"}).text
    assert '<input type="hidden" name="text" value="X">' in text
    assert "text=X" not in text
    second = client.post("/studies", data={"text": "X", "state": "", "offset": "50"}).text
    assert "51&ndash;52" in second


@pytest.mark.parametrize(
    "form",
    [
        {"state": "lost"},
        {"offset": "-1"},
        {"limit": "100000"},
        {"text": "x" * 201},
        {"unknown": "1"},
        {f"f{n}": "1" for n in range(20)},
    ],
)
def test_a_malformed_search_is_refused(client: TestClient, form: dict[str, str]) -> None:
    assert client.post("/studies", data=form).status_code == 422


def test_a_study_shows_everything_that_became_of_it(
    planted: PlantedNode, client: TestClient
) -> None:
    planted.whole_story()
    text = client.get(f"/studies/{STUDY}").text
    for wanted in (
        "DOE, JANE",
        STUDY,
        "quiet time",  # the evidence
        "rule abdomen: jobs made: 1",
        "rule heads: its conditions do not hold",
        "BodyPartExamined contains HEAD",
        "absent",
        "Liver",
        "1512.25",
        "The field of view cuts the region.",
        "Not sent to viewer, whose viewer would draw it in the wrong place",
        "out of memory",
        "6144 MiB asked for",
        "Give the worker more memory",
        "Segmentation Storage",
        "0x0122",
        "Refused: SOP class not supported",
        "not accepted",
        "Let the destination accept this SOP class",
        "dicom://PACS@127.0.0.1:104",
        "Flight recorder",
        "First instance received",
        "Job succeeded",
        "Delivery failed",
        "preliminary and unverified",
        f"wetread replay {STUDY}",
    ):
        assert wanted in text
    assert "0 of 2 taken by their destinations" in text


def test_a_study_that_still_receives_says_what_is_awaited(
    planted: PlantedNode, client: TestClient
) -> None:
    planted.receive()
    text = client.get(f"/studies/{STUDY}").text
    assert "in 30 s" in text
    assert "No job was made yet." in text
    assert "No result has been made yet." in text
    assert "The rules have not been asked about this revision yet." in text


def test_a_study_that_no_rule_wanted_says_so(planted: PlantedNode, client: TestClient) -> None:
    planted.configure()
    planted.receive()
    study = planted.complete()
    planted.studies.route(
        study.id, study.revision, Routing(rule_revision=1, jobs=(), explanation={})
    )
    text = client.get(f"/studies/{STUDY}").text
    assert "No rule wanted this study." in text


def test_other_bytes_under_a_known_uid_are_shown(planted: PlantedNode, client: TestClient) -> None:
    planted.receive()
    planted.receive(content="other bytes")
    text = client.get(f"/studies/{STUDY}").text
    assert "came again with other bytes" in text


@pytest.mark.parametrize("path", ["/studies", f"/studies/{STUDY}", "/", "/jobs", "/deliveries"])
def test_hostile_attributes_stay_text(planted: PlantedNode, client: TestClient, path: str) -> None:
    planted.whole_story(HOSTILE)
    text = client.get(path).text
    for tag in ("<script", "<img", "<svg", "onerror=alert(2)>", "\x1b", "\u202e"):
        assert tag not in text
    assert "1337" not in text


def test_hostile_attributes_are_shown_as_they_came(
    planted: PlantedNode, client: TestClient
) -> None:
    planted.receive(attributes=HOSTILE)
    text = client.get(f"/studies/{STUDY}").text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;, {{7*191}}" in text
    assert "${7*191}#{7*191}" in text


def test_an_unknown_study_is_404_with_a_clear_message(client: TestClient) -> None:
    answer = client.get("/api/studies/1.2.3")
    assert answer.status_code == 404
    assert answer.json() == {"error": "No instance of study 1.2.3 has arrived at this node."}
    assert client.get("/api/studies/1.2.3/timeline").status_code == 404
    page = client.get("/studies/1.2.3")
    assert page.status_code == 404
    assert "No instance of study 1.2.3 has arrived at this node." in page.text


@pytest.mark.parametrize("uid", ["abc", "1..2", ".1", "1.", "1.2;x", "%3Cscript%3E", "1" * 65])
def test_a_malformed_uid_is_422(client: TestClient, uid: str) -> None:
    answer = client.get(f"/api/studies/{uid}")
    assert answer.status_code == 422
    assert "digits and dots, 64 characters at most" in answer.json()["error"]
    page = client.get(f"/studies/{uid}")
    assert page.status_code == 422
    assert "<script" not in page.text


def test_the_api_answers_the_real_state(planted: PlantedNode, client: TestClient) -> None:
    planted.whole_story()
    body = client.get(f"/api/studies/{STUDY}").json()
    assert body["study"]["state"] == "routed"
    assert body["study"]["evidence"]["kind"] == "quiet time"
    assert body["study"]["attributes"]["patient_name"] == "DOE^JANE"
    assert [item["instances"] for item in body["series"]] == [3]
    assert sorted(job["state"] for job in body["jobs"]) == ["failed", "succeeded"]
    assert "preliminary" in body["notice"]
    failed = next(item for item in body["deliveries"] if item["state"] == "failed")
    assert (failed["status"], failed["destination"]) == ("0x0122", "PACS")
    assert failed["status_meaning"] == "Refused: SOP class not supported"
    assert failed["suggested_act"]


def test_progress_is_complete_only_when_every_delivery_arrived(
    planted: PlantedNode, client: TestClient
) -> None:
    planted.configure()
    planted.receive()
    planted.route()
    progress = client.get(f"/api/studies/{STUDY}").json()["progress"]
    assert progress["complete"] is False
    planted.succeed()
    planted.answer("PACS", DeliveryState.SENT, status=0)
    progress = client.get(f"/api/studies/{STUDY}").json()["progress"]
    assert (progress["total"], progress["accepted"], progress["waiting"]) == (2, 1, 1)
    assert progress["complete"] is False
    planted.answer("ARCHIVE", DeliveryState.WARNED, status=0xB000)
    progress = client.get(f"/api/studies/{STUDY}").json()["progress"]
    assert (progress["accepted"], progress["complete"]) == (2, True)


def test_every_instance_is_in_the_ledger(planted: PlantedNode, client: TestClient) -> None:
    planted.receive(number=1)
    planted.receive(number=2)
    planted.receive(number=2, content="other bytes")
    found = client.get(f"/api/studies/{STUDY}/instances").json()["instances"]
    assert sorted(item["state"] for item in found) == ["conflict", "current", "current"]
    assert {item["sop_instance_uid"] for item in found} == {f"{STUDY}.1.1", f"{STUDY}.1.2"}
    text = client.get(f"/studies/{STUDY}").text
    for item in found:
        assert item["sop_instance_uid"] in text
        assert item["digest"][:12] in text


def test_the_timeline_is_oldest_first(planted: PlantedNode, client: TestClient) -> None:
    planted.whole_story()
    body = client.get(f"/api/studies/{STUDY}/timeline").json()
    actions = [event["action"] for event in body["events"]]
    assert actions[0] == "study.received"
    assert actions.index("study.completed") < actions.index("study.routed")
    assert actions.index("job.succeeded") < actions.index("delivery.failed")
    times = [event["at"] for event in body["events"]]
    assert times == sorted(times)


def test_machines_list_and_search_studies(planted: PlantedNode, client: TestClient) -> None:
    plant_many(planted, 3)
    body = client.get("/api/studies", params={"limit": 2}).json()
    assert (len(body["studies"]), body["offset"], body["more"]) == (2, 0, True)
    body = client.get("/api/studies", params={"limit": 2, "offset": 2}).json()
    assert (len(body["studies"]), body["more"]) == (1, False)
    found = client.post("/api/studies/search", json={"text": "N1"}).json()
    assert [item["study_instance_uid"] for item in found["studies"]] == [other(1)]
    assert client.get("/api/studies", params={"state": "lost"}).status_code == 422
