from __future__ import annotations

import html
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from PIL import Image

from node.admin.app import AdminServer
from storage.records import StudyAttributes
from tests.browser.chromium import Size, dump_dom, requests_of, screenshot
from tests.node.admin.planting import STUDY, PlantedNode

HOSTILE = StudyAttributes(
    patient_name="DOE^<script>document.title='RUN'</script>{{7*7}}",
    patient_id="\"'><img src=https://evil.example/x onerror=\"document.title='RUN'\">",
    accession_number="ACC-4711",
    study_description="</title><svg onload=document.title='RUN'>",
)


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    planted = PlantedNode(tmp_path)
    planted.whole_story(HOSTILE)
    server = AdminServer(planted.context(), "127.0.0.1", 0)
    server.start()
    yield server.url
    server.stop()
    planted.database.close()


@pytest.mark.parametrize("page", ["", f"studies/{STUDY}"])
@pytest.mark.parametrize("size", [Size(), Size(width=600, height=900)])
def test_a_page_is_drawn(address: str, page: str, size: Size, tmp_path: Path) -> None:
    path = tmp_path / "page.png"
    screenshot(address + page, path, size)
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert picture.size == (size.width, size.height)
        colours = picture.convert("RGB").getcolors(maxcolors=1 << 24)
    assert colours is not None
    ordered = sorted((count for count, _ in colours), reverse=True)
    assert len(ordered) > 50  # text has many shades at its edges; a blank or plain page has few
    assert ordered[0] < 0.97 * size.width * size.height


def test_the_overview_shows_what_the_node_holds(address: str) -> None:
    text = html.unescape(dump_dom(address))
    assert "WETREAD-TEST" in text
    assert "<b>3</b> received" in text
    assert "balanced" in text
    assert "engine nodule is unavailable: no GPU is there" in text


def test_the_study_page_shows_the_study(address: str) -> None:
    text = dump_dom(f"{address}studies/{STUDY}")
    for wanted in (STUDY, "ACC-4711", "Liver", "1512.25", "0x0122", "Job succeeded"):
        assert wanted in text


@pytest.mark.parametrize("page", ["", "studies", f"studies/{STUDY}"])
def test_no_attribute_of_a_study_runs_as_script(address: str, page: str) -> None:
    text = dump_dom(address + page)
    assert "WETREAD-TEST</title>" in text
    assert "<title>RUN" not in text
    assert "<img" not in text
    assert "<svg" not in text
    assert "<script" not in text


def test_a_page_asks_nobody_else_for_anything(address: str, tmp_path: Path) -> None:
    asked = requests_of(f"{address}studies/{STUDY}", tmp_path / "net.json")
    assert f"{address}studies/{STUDY}" in asked
    assert f"{address}static/admin.css" in asked
    assert [item for item in asked if not item.startswith(address)] == []


class CarelessPage(BaseHTTPRequestHandler):
    """A page that fetches a picture from elsewhere."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b'<img src="https://evil.example/x.png">')

    def log_message(self, format: str, *arguments: object) -> None:
        """Write nothing."""


def test_a_request_to_somebody_else_would_be_seen(tmp_path: Path) -> None:
    careless = ThreadingHTTPServer(("127.0.0.1", 0), CarelessPage)
    thread = threading.Thread(target=careless.serve_forever)
    thread.start()
    try:
        url = f"http://127.0.0.1:{careless.server_port}/"
        assert "https://evil.example/x.png" in requests_of(url, tmp_path / "net.json")
    finally:
        careless.shutdown()
        thread.join()
        careless.server_close()
