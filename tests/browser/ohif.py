"""OHIF as a site runs it: its own files beside our example of its configuration, over a node."""

from __future__ import annotations

import base64
import io
import threading
import time
from collections.abc import Sequence
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final, Self

import numpy as np
import numpy.typing as npt
from PIL import Image

from tests.browser.devtools import Page
from tests.places import ROOT

DIST: Final = ROOT / ".make" / "ohif" / "dist"
"""Where `make test` unpacks it."""
EXAMPLE: Final = ROOT / "deploy" / "ohif" / "app-config.js"
EXAMPLE_ADDRESS: Final = "http://127.0.0.1:8043/dicom-web"

NO_TOUR: Final = """
if (location.protocol.startsWith('http')) {
  localStorage.setItem('shownTours', JSON.stringify(['basicViewerTour', 'basicViewerTourV2']));
}
"""
VIEWPORT: Final = """
const engine = window.cornerstone && window.cornerstone.getRenderingEngines()[0];
const viewport = engine && engine.getViewports()[0];
const drawn = Boolean(viewport && viewport.viewportStatus === 'rendered' && viewport.getImageIds
  && (viewport.type === 'wholeSlide'
    || viewport.getImageIds().every(id => window.cornerstone.cache.isLoaded(id))));
"""
"""What scripts here begin with. All images have come: a change while one is awaited cancels it.
Tiles of a slide come as they are needed."""
KNOWN: Final = """Boolean(window.services
  && window.services.displaySetService.getActiveDisplaySets().length >= %d)"""
SETTLED: Final = f"(() => {{ {VIEWPORT} return drawn && {KNOWN}; }})()"
DRAWN: Final = f"(() => {{ {VIEWPORT} return drawn; }})()"
CLICK: Final = """(() => {
  const found = [...document.querySelectorAll('button')].find(x => x.innerText.trim() === '%s');
  if (found) { found.click(); }
  return Boolean(found);
})()"""
GO: Final = f"""(async () => {{ {VIEWPORT}
  await viewport.setImageIdIndex(viewport.getImageIds().findIndex(id => id.includes('%s')));
  viewport.render();
  await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
}})()"""
PLACE: Final = f"(() => {{ {VIEWPORT} return Array.from(viewport.worldToCanvas(%s)); }})()"
STACK: Final = f"""(() => {{ {VIEWPORT}
  return drawn && viewport.getImageIds().every(id => id.includes('%s'));
}})()"""
WORDS: Final = """document.querySelector('[data-cy="viewport-grid"]').innerText"""
SEGMENTS: Final = """window.services.segmentationService.getSegmentations().flatMap(
  x => Object.values(x.segments).filter(Boolean).map(y => y.label))"""
MEASURED: Final = "window.services.measurementService.getMeasurements().length"
RECTANGLES: Final = """[...document.querySelectorAll('.svg-layer rect')].map(
  x => ['x', 'y', 'width', 'height'].map(name => Number(x.getAttribute(name))))"""
PANEL: Final = """window.services.panelService.activatePanel(
  '@ohif/extension-measurement-tracking.panelModule.trackedMeasurements', true)"""
PANEL_WORDS: Final = (
    """document.querySelector('[data-cy="trackedMeasurements-panel"]')?.innerText ?? ''"""
)
SHOW: Final = """(async () => {
  const s = window.services;
  const set = s.displaySetService.getActiveDisplaySets().find(x => x.SeriesInstanceUID === '%s');
  const active = s.viewportGridService.getState().activeViewportId;
  s.viewportGridService.setDisplaySetsForViewports(
    s.hangingProtocolService.getViewportsRequireUpdate(active, set.displaySetInstanceUID));
  return set.Modality;
})()"""
CANVAS: Final = """(() => {
  const viewport = window.cornerstone.getRenderingEngines()[0].getViewports()[0];
  return viewport.getCanvas().toDataURL('image/png');
})()"""

CALM: Final = "!/went wrong/i.test(document.body.innerText)"

TRIES: Final = 40
PAUSE: Final = 0.15
NEAR: Final = 8
"""Of 255, between a colour and the same as it is drawn."""

Picture = npt.NDArray[np.uint8]


class Files(SimpleHTTPRequestHandler):
    """OHIF's files; its page at every address that is none of them."""

    server: Server

    def do_GET(self) -> None:
        """Answer with a file."""
        name = self.path.partition("?")[0]
        if name == "/app-config.js":
            self.send_response(200)
            self.send_header("Content-Type", "text/javascript")
            self.send_header("Content-Length", str(len(self.server.config)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(self.server.config)
            return
        if not Path(self.translate_path(name)).is_file():
            self.path = "/index.html"
        super().do_GET()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """Serves OHIF with the configuration of the moment."""

    config = b""


class Viewer:
    """OHIF at a free port of loopback."""

    def __init__(self) -> None:
        if not (DIST / "index.html").is_file():
            raise FileNotFoundError(f"{DIST}: OHIF is not there; `make test` unpacks it")
        self._server = Server(("127.0.0.1", 0), partial(Files, directory=str(DIST)))
        self.origin = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        """Start to serve."""
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        """Stop."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def read_from(self, node: str) -> None:
        """Let it show a node, whose DICOMweb address is given."""
        text = EXAMPLE.read_text(encoding="utf-8")
        assert text.count(EXAMPLE_ADDRESS) == 1
        self._server.config = text.replace(EXAMPLE_ADDRESS, node.rstrip("/")).encode()


def open_study(page: Page, origin: str, study: str, *, series: int) -> None:
    """Open a study and wait until so many series are known, and an image of it is drawn."""
    page.open(f"{origin}/viewer?StudyInstanceUIDs={study}")
    page.wait_for(SETTLED % series)


def show(page: Page, series: str) -> str:
    """Put a series into the viewport, as a double click on it does; return its modality."""
    return str(page.evaluate(SHOW % series))


def canvas(page: Page) -> Picture:
    """Return what is drawn in the viewport, without text and marks: RGB [row, column, channel]."""
    return _picture(str(page.evaluate(CANVAS)).partition(",")[2])


def _picture(content: str) -> Picture:
    with Image.open(io.BytesIO(base64.b64decode(content))) as picture:
        return np.array(picture.convert("RGB"))


def show_stack(page: Page, series: str) -> None:
    """Put a series of images into the viewport and wait until it is drawn."""
    show(page, series)
    page.wait_for(STACK % series)


def show_report(page: Page, series: str, words: str) -> None:
    """Put a report into the viewport and wait for words of it."""
    show(page, series)
    page.wait_for(f"{WORDS}.includes('{words}')")


def show_segmentation(page: Page, series: str) -> None:
    """Open a Segmentation over its images, as a reader does who says yes when asked."""
    show(page, series)
    press(page, "Yes")
    page.wait_for(f"{SEGMENTS}.length > 0")


def show_boxes(page: Page, series: str) -> None:
    """Take a report's boxes among the measurements, as a reader does who says yes when asked."""
    show(page, series)
    press(page, "Yes")
    page.wait_for(f"{MEASURED} > 0 && {RECTANGLES}.length > 0")


def boxes(page: Page) -> list[tuple[float, float, float, float]]:
    """Return the boxes that are drawn on the canvas: left, top, right and bottom of each."""
    found = page.evaluate(RECTANGLES)
    assert isinstance(found, list)
    return [(x, y, x + width, y + height) for x, y, width, height in found]


def panel(page: Page) -> str:
    """Open the panel of measurements; return what it says."""
    page.evaluate(PANEL)
    page.wait_for(f"({PANEL_WORDS}).length > 0")
    return str(page.evaluate(PANEL_WORDS))


def press(page: Page, words: str) -> None:
    """Press the button of these words, as soon as it is there."""
    page.wait_for(CLICK % words)


def go_to(page: Page, instance: str) -> Picture:
    """Turn to an image of the stack; return what is drawn once that changes no more."""
    page.evaluate(GO % instance)
    page.wait_for(DRAWN)
    before = canvas(page)
    for _ in range(TRIES):
        time.sleep(PAUSE)
        now = canvas(page)
        if now.shape == before.shape and np.array_equal(now, before):
            return now
        before = now
    raise AssertionError("the picture does not come to rest")


def see(page: Page, colour: tuple[int, int, int], share: float) -> None:
    """Wait until so much of the page has a colour."""
    found = 0.0
    for _ in range(TRIES):
        content = str(page.call("Page.captureScreenshot", format="png")["data"])
        apart = np.abs(_picture(content).astype(np.int16) - colour).max(axis=2)
        found = float((apart < NEAR).mean())
        if found >= share:
            return
        time.sleep(PAUSE)
    raise AssertionError(f"{found:.4f} of the page has the colour {colour}")


def place_on_canvas(page: Page, point: Sequence[float]) -> tuple[float, float]:
    """Return where OHIF draws a point of the patient: column and row."""
    found = page.evaluate(PLACE % list(point))
    assert isinstance(found, list)
    return float(found[0]), float(found[1])


def segments(page: Page) -> list[str]:
    """Return the labels of all segments that were loaded."""
    found = page.evaluate(SEGMENTS)
    assert isinstance(found, list)
    return found


def complaints(page: Page) -> list[str]:
    """Return what the page complained of, by itself or to its reader."""
    told = [] if page.evaluate(CALM) else ["OHIF tells its reader that something went wrong"]
    return [*page.problems, *told]
