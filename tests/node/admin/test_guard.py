from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from node.admin.guard import BODY_LIMIT, host_name
from tests.node.admin.planting import STUDY, PlantedNode

PAGES = ("/", "/studies", "/jobs", "/deliveries", "/rules", "/quarantine", f"/studies/{STUDY}")
MACHINES = ("/livez", "/readyz", "/metrics", "/api/studies", f"/api/studies/{STUDY}")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:8042", "[::1]:8042", "LOCALHOST"])
def test_loopback_names_are_answered(client: TestClient, host: str) -> None:
    assert client.get("/livez", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example:8042",
        "10.0.0.5:8042",
        "[::2]",
        "",
        "evil.example:127.0.0.1",
    ],
)
def test_a_foreign_host_is_refused_before_any_page(client: TestClient, host: str) -> None:
    for path in ("/", "/api/studies", "/static/admin.css"):
        answer = client.get(path, headers={"Host": host})
        assert answer.status_code == 421
        assert "answers only to 127.0.0.1" in answer.text
        assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]


def test_the_port_is_no_part_of_the_host_name() -> None:
    assert host_name("LocalHost:80") == "localhost"
    assert host_name("[::1]:80") == "[::1]"
    assert host_name(" 127.0.0.1 ") == "127.0.0.1"


@pytest.mark.parametrize("path", [*PAGES, *MACHINES, "/nowhere", "/studies/abc"])
def test_every_answer_carries_the_security_headers(
    planted: PlantedNode, client: TestClient, path: str
) -> None:
    planted.whole_story()
    headers = client.get(path).headers
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"] == "no-store"


def test_the_style_sheet_may_be_kept_but_is_asked_for_again(client: TestClient) -> None:
    answer = client.get("/static/admin.css")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/css")
    assert answer.headers["Cache-Control"] == "no-cache"


def test_a_body_larger_than_the_form_is_refused(client: TestClient) -> None:
    answer = client.post("/studies", content=b"x" * (BODY_LIMIT + 1))
    assert answer.status_code == 413


def test_a_body_without_its_length_is_refused(client: TestClient) -> None:
    answer = client.post("/studies", content=iter([b"text=x"]))
    assert answer.status_code == 411


@pytest.mark.parametrize("path", PAGES)
def test_pages_hold_no_script_no_inline_style_and_nothing_from_elsewhere(
    planted: PlantedNode, client: TestClient, path: str
) -> None:
    planted.whole_story()
    text = client.get(path).text
    assert "<script" not in text
    assert "style=" not in text
    assert "<style" not in text
    for attribute in ('src="', 'href="', 'action="'):
        for target in text.split(attribute)[1:]:
            assert target.startswith(("/", "#"))
            assert not target.startswith("//")
