from __future__ import annotations

from fastapi.testclient import TestClient

from tests.node.admin.planting import STUDY, PlantedNode


def test_no_jobs_says_when_one_is_made(client: TestClient) -> None:
    assert "No job has been made yet." in client.get("/jobs").text


def test_a_failed_job_shows_class_text_and_act(planted: PlantedNode, client: TestClient) -> None:
    planted.whole_story()
    text = client.get("/jobs", params={"state": "failed"}).text
    assert "out of memory" in text
    assert "6144 MiB asked for, 4096 MiB allowed" in text
    assert "Give the worker more memory, then replay the study." in text
    assert "Liver" not in text
    assert "preliminary and unverified" in text


def test_a_succeeded_job_shows_its_outcome(planted: PlantedNode, client: TestClient) -> None:
    planted.whole_story()
    text = client.get("/jobs", params={"state": "succeeded"}).text
    assert "finding" in text
    assert "(Liver)" in text
    assert f"/studies/{STUDY}#job-" in text


def test_a_state_without_jobs_says_so(planted: PlantedNode, client: TestClient) -> None:
    planted.whole_story()
    assert "No job is running now." in client.get("/jobs?state=running").text


def test_an_unknown_state_is_refused(client: TestClient) -> None:
    page = client.get("/jobs?state=lost")
    assert page.status_code == 422
    assert page.headers["content-type"].startswith("text/html")


def test_the_api_answers_the_real_state(planted: PlantedNode, client: TestClient) -> None:
    planted.whole_story()
    body = client.get("/api/jobs", params={"study": STUDY}).json()
    states = {job["engine"]: job["state"] for job in body["jobs"]}
    assert sorted(states.values()) == ["failed", "succeeded"]
    failed = client.get("/api/jobs", params={"state": "failed"}).json()["jobs"]
    assert [job["error_class"] for job in failed] == ["out_of_memory"]
    assert failed[0]["suggested_act"]
    assert client.get("/api/jobs", params={"study": "1.2.3"}).status_code == 404
    assert client.get("/api/jobs", params={"study": "abc"}).status_code == 422
