from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
import structlog
from fastapi.testclient import TestClient

from node.admin.app import AdminServer, AdminServerError
from node.admin.serving import ImpatientProtocol
from storage.records import StorageError, StudyAttributes
from tests.node.admin.planting import STUDY, PlantedNode


@pytest.fixture
def server(planted: PlantedNode) -> Iterator[AdminServer]:
    running = AdminServer(planted.context(), "127.0.0.1", 0)
    running.start()
    yield running
    running.stop()


def test_the_server_answers_on_the_port_that_it_names(
    planted: PlantedNode, server: AdminServer
) -> None:
    planted.receive()
    assert server.port > 0
    answer = httpx.get(f"{server.url}api/studies/{STUDY}")
    assert answer.status_code == 200
    assert answer.json()["study"]["state"] == "receiving"
    assert "server" not in answer.headers


def test_the_server_refuses_a_foreign_host_on_the_wire(server: AdminServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as wire:
        wire.sendall(b"GET /api/studies HTTP/1.1\r\nHost: evil.example\r\n\r\n")
        assert wire.recv(4096).startswith(b"HTTP/1.1 421 ")


def test_two_host_headers_are_refused_on_the_wire(server: AdminServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as wire:
        wire.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n")
        assert wire.recv(4096).startswith(b"HTTP/1.1 4")


def test_a_head_that_never_ends_is_cut_off_and_locks_nobody_out(
    planted: PlantedNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T02, on the web: as many half requests as connections are allowed."""
    monkeypatch.setattr(ImpatientProtocol, "head_seconds", 0.5)
    running = AdminServer(planted.context(), "127.0.0.1", 0)
    running.start()
    try:
        held = [socket.create_connection(("127.0.0.1", running.port), 10) for _ in range(64)]
        for wire in held:
            wire.sendall(b"GET / HT")
        for wire in held:
            assert wire.recv(100) == b""
            wire.close()
        assert httpx.get(f"{running.url}livez").status_code == 200
        with httpx.Client() as client:  # a connection that asks slowly, but in whole requests
            for _ in range(3):
                assert client.get(f"{running.url}livez").status_code == 200
                time.sleep(0.3)
    finally:
        running.stop()


def test_the_port_is_free_again_after_stop(planted: PlantedNode) -> None:
    first = AdminServer(planted.context(), "127.0.0.1", 0)
    first.start()
    port = first.port
    first.stop()
    first.stop()
    with pytest.raises(AdminServerError, match="not being served"):
        _ = first.port
    second = AdminServer(planted.context(), "127.0.0.1", port)
    second.start()
    assert second.port == port
    second.stop()
    assert not [thread for thread in threading.enumerate() if thread.name == "admin"]


def test_a_taken_port_is_named(planted: PlantedNode, server: AdminServer) -> None:
    second = AdminServer(planted.context(), "127.0.0.1", server.port)
    with pytest.raises(AdminServerError, match=f"127.0.0.1 port {server.port}: .*in use"):
        second.start()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.5", "127.0.0.2", "8.8.8.8"])  # noqa: S104 - refused
def test_a_host_that_is_not_loopback_is_refused(planted: PlantedNode, host: str) -> None:
    with pytest.raises(AdminServerError, match="has no log-in"):
        AdminServer(planted.context(), host, 0)


def test_a_host_that_is_no_address_is_refused(planted: PlantedNode) -> None:
    with pytest.raises(AdminServerError, match=r"admin\.host: 'pacs\.example' is not an address"):
        AdminServer(planted.context(), "pacs.example", 0)


def test_localhost_means_the_loopback_address(planted: PlantedNode) -> None:
    server = AdminServer(planted.context(), "localhost", 0)
    server.start()
    assert urlsplit(server.url).hostname == "127.0.0.1"
    server.stop()


def test_an_unknown_address_is_answered_in_the_form_that_was_asked_for(client: TestClient) -> None:
    assert client.get("/api/nowhere").json() == {"error": "There is no page at this address."}
    page = client.get("/nowhere")
    assert page.status_code == 404
    assert "There is no page at this address." in page.text
    assert page.headers["content-type"].startswith("text/html")


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_pages_that_fetch_from_elsewhere_are_off(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "POST"])
def test_nothing_can_be_written(client: TestClient, method: str) -> None:
    for path in (f"/studies/{STUDY}", f"/api/studies/{STUDY}", "/api/jobs", "/api/rules/current"):
        assert client.request(method, path).status_code == 405


def test_the_openapi_document_names_the_answers(client: TestClient) -> None:
    document = client.get("/api/openapi.json").json()
    assert "/api/studies/{study_instance_uid}/timeline" in document["paths"]
    assert "StudyDetail" in document["components"]["schemas"]


def break_studies(planted: PlantedNode, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(planted.studies, "counts", fail)
    monkeypatch.setattr(planted.studies, "get", fail)


def test_an_unreadable_database_is_said_and_not_shown_as_empty(
    planted: PlantedNode, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_studies(planted, monkeypatch, StorageError("select CANARY"))
    page = client.get("/")
    assert page.status_code == 503
    assert "database cannot be read" in page.text
    assert client.get(f"/api/studies/{STUDY}").json() == {
        "error": "The node's database cannot be read now."
    }


def test_a_failing_page_names_neither_its_error_nor_its_data(
    planted: PlantedNode, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_studies(planted, monkeypatch, RuntimeError("CANARY^NAME"))
    with structlog.testing.capture_logs() as lines:
        answer = client.get(f"/api/studies/{STUDY}")
    assert answer.status_code == 500
    assert "CANARY" not in answer.text
    assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
    assert [line["event"] for line in lines] == ["admin.request_failed"]
    assert lines[0]["error"] == "RuntimeError"
    assert "CANARY" not in str(lines)


def test_a_failing_page_writes_no_traceback_to_standard_error(
    planted: PlantedNode,
    server: AdminServer,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    break_studies(planted, monkeypatch, RuntimeError("CANARY^NAME"))
    assert httpx.get(server.url).status_code == 500
    assert "CANARY" not in "".join(capfd.readouterr())


def test_requests_leave_no_patient_data_in_the_log(
    planted: PlantedNode, capfd: pytest.CaptureFixture[str]
) -> None:
    planted.whole_story(StudyAttributes(patient_name="CANARY^NAME"))
    running = AdminServer(planted.context(), "127.0.0.1", 0)
    with structlog.testing.capture_logs() as lines:
        running.start()
        answer = httpx.post(f"{running.url}studies", data={"text": "CANARY"})
        running.stop()
    assert "CANARY, NAME" in answer.text
    assert [line["event"] for line in lines] == ["web.started", "web.stopped"]
    assert "CANARY" not in str(lines) + "".join(capfd.readouterr())


def test_templates_and_styles_lie_beside_the_code() -> None:
    folder = Path(__file__).parents[3] / "node" / "admin"
    assert (folder / "templates" / "base.html").is_file()
    assert (folder / "static" / "admin.css").is_file()
    assert "http" not in (folder / "static" / "admin.css").read_text(encoding="utf-8")
