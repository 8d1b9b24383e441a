"""What tests of the door on the web share: bodies, and raw requests."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from node.listeners.dicomweb import DicomwebListener, DicomwebListenerSettings
from tests.node.listeners.receiving import KeepingIngest

CONTENT_TYPE = 'multipart/related; type="application/dicom"; boundary=x'
END = b"--x--\r\n"


@contextmanager
def listening(ingest: KeepingIngest, **settings: object) -> Iterator[DicomwebListener]:
    """Run a listener on a free port."""
    raw = {"port": 0, "grace_seconds": 2.0, "head_seconds": 2.0, "network_seconds": 2.0, **settings}
    listener = DicomwebListener(DicomwebListenerSettings.model_validate(raw), ingest)
    listener.start()
    try:
        yield listener
    finally:
        listener.stop()


def part(content: bytes, *headers: str) -> bytes:
    """Return one part."""
    lines = "".join(f"{line}\r\n" for line in headers or ("Content-Type: application/dicom",))
    return b"--x\r\n" + lines.encode() + b"\r\n" + content + b"\r\n"


def body_of(files: Sequence[Path]) -> bytes:
    """Return a whole body."""
    return b"".join(part(file.read_bytes()) for file in files) + END


def post(
    listener: DicomwebListener,
    body: bytes | Iterator[bytes],
    *,
    kind: str = CONTENT_TYPE,
    headers: dict[str, str] | None = None,
) -> httpx.Response:
    """Send a body; an iterator goes chunked."""
    return httpx.post(
        listener.address(),
        content=body,
        headers={"Content-Type": kind, **(headers or {})},
        timeout=20,
    )


@contextmanager
def wire_to(listener: DicomwebListener) -> Iterator[socket.socket]:
    """Connect."""
    port = urlsplit(listener.address()).port
    with socket.create_connection(("127.0.0.1", port or 0), timeout=10) as wire:
        yield wire


def head_of(length: str = "", *more: str) -> bytes:
    """Return the head of a request, written out by hand."""
    lines = [
        "POST /dicom-web/studies HTTP/1.1",
        "Host: localhost",
        f"Content-Type: {CONTENT_TYPE}",
        *([f"Content-Length: {length}"] if length else []),
        *more,
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def answer_on(wire: socket.socket) -> bytes:
    """Read until the node closes or falls silent."""
    found = b""
    try:
        while data := wire.recv(65536):
            found += data
    except OSError:
        pass
    return found


def reasons(answer: httpx.Response) -> list[int]:
    """Return the failure reasons, of named and of nameless parts."""
    found: dict[str, Any] = json.loads(answer.content)
    items = [
        item for tag in ("00081198", "0008119A") for item in found.get(tag, {}).get("Value", [])
    ]
    return [item["00081197"]["Value"][0] for item in items]


def stored(answer: httpx.Response) -> list[str]:
    """Return the SOP Instance UIDs that are kept."""
    found: dict[str, Any] = json.loads(answer.content)
    return [item["00081155"]["Value"][0] for item in found.get("00081199", {}).get("Value", [])]
