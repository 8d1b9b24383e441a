"""A headless Chromium that fetches nothing by itself and keeps nothing."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

PROGRAM = "/usr/bin/chromium"
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # it calls its maker all the same
)
SECONDS = 60
STARTS = 3  # it sometimes dies of a signal while it starts or ends; that says nothing of a page


class ChromiumError(Exception):
    """Chromium did not do what was asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """A window in CSS pixels."""

    width: int = 1280
    height: int = 1000


def screenshot(url: str, path: Path, size: Size) -> None:
    """Write a PNG of the page."""
    _run(url, [f"--screenshot={path}", f"--window-size={size.width},{size.height}"], path)


def dump_dom(url: str) -> str:
    """Return the page's document as it stands after loading."""
    return _run(url, ["--dump-dom"], None)


def requests_of(url: str, log: Path) -> frozenset[str]:
    """Return the address of everything that the page asked for, the page itself included.

    What the browser asks for on its own account has no page as its initiator and is left out.
    """
    _run(url, [f"--log-net-log={log}", "--dump-dom"], log)
    text = log.read_text(encoding="utf-8").rstrip().rstrip(",")
    if not text.endswith("}"):
        text += "]}"
    parts = urlsplit(url)
    origin = f"{parts.scheme}://{parts.netloc}"
    asked = set()
    for event in json.loads(text)["events"]:
        params = event.get("params", {})
        address = params.get("url")
        if params.get("initiator") == origin or address == url:
            asked.add(str(address))
    return frozenset(asked)


def _run(url: str, arguments: Sequence[str], output: Path | None) -> str:
    problem = ""
    for _ in range(STARTS):
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
            done = subprocess.run(
                [PROGRAM, *FLAGS, f"--user-data-dir={profile}", *arguments, url],
                capture_output=True,
                timeout=SECONDS,
                check=False,
            )
        if done.returncode == 0 and (output is None or output.is_file()):
            return done.stdout.decode("utf-8")
        problem = f"status {done.returncode}: {done.stderr.decode('utf-8', 'replace')[-500:]}"
    raise ChromiumError(problem)
