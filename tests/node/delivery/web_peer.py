"""What a web server answers to a store request, written out by hand over a scripted peer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from pydicom.dataset import Dataset

from tests.node.delivery.scripted_peer import Link


@dataclass(frozen=True, kw_only=True)
class Request:
    """A request as it came."""

    line: str
    headers: Mapping[str, str]
    body: bytes


def take(link: Link) -> Request | None:
    """Read one request, or the end of the connection."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = link.connection.recv(1)
        if not byte:
            assert not head, "the request has no end"
            return None
        head += byte
    line, *rest = head.decode("ascii").rstrip("\r\n").split("\r\n")
    headers = {
        name.lower(): value.strip() for name, _, value in (row.partition(":") for row in rest)
    }
    return Request(line=line, headers=headers, body=link.read(int(headers["content-length"])))


def answer(
    link: Link,
    status: int,
    content: bytes = b"",
    *,
    kind: str = "application/dicom+json",
    headers: str = "",
) -> None:
    """Send a whole answer."""
    link.send(
        f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\n{headers}"
        f"Content-Length: {len(content)}\r\n\r\n".encode(),
        content,
    )


def stored(uid: str, *, failure: int | None = None, warning: int | None = None) -> bytes:
    """Return a store answer about one instance (PS3.18 table I.2-1), as pydicom writes it."""
    item = Dataset()
    item.ReferencedSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    item.ReferencedSOPInstanceUID = uid
    found = Dataset()
    if failure is not None:
        item.FailureReason = failure
        found.FailedSOPSequence = [item]
    else:
        if warning is not None:
            item.WarningReason = warning
        found.ReferencedSOPSequence = [item]
    return json.dumps(found.to_json_dict()).encode()
