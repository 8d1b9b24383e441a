"""Objects to send, and what came of them."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

from pydicom import dcmread

from node.delivery.dimse import DimseTarget, DimseTargetSettings
from node.interfaces import Outgoing, SendVerdict, Sent
from tests.factories import make_ct_series


def outgoing(files: Sequence[Path]) -> list[Outgoing]:
    """Return files as the outbox hands them to a target."""
    made = []
    for file in files:
        header = dcmread(file, stop_before_pixels=True)
        made.append(
            Outgoing(
                sop_class_uid=header.SOPClassUID,
                sop_instance_uid=header.SOPInstanceUID,
                transfer_syntax_uid=header.file_meta.TransferSyntaxUID,
                path=file,
            )
        )
    return made


def large_object(path: Path, size: int) -> Outgoing:
    """Write an object whose pixel data has so many bytes, without using disk for them."""
    (small,) = make_ct_series(path.parent / "small", slices=1, rows=16, columns=16)
    header = dcmread(small)
    del header.PixelData
    header.save_as(path)
    with path.open("ab") as file:
        file.write(struct.pack("<HH2sxxI", 0x7FE0, 0x0010, b"OW", size))
        file.truncate(file.tell() + size)
    return outgoing([path])[0]


def target_at(
    port: int,
    *,
    host: str = "127.0.0.1",
    called: str = "PACS",
    seconds: float = 5.0,
    acse_seconds: float = 5.0,
    total_seconds: float = 60.0,
) -> DimseTarget:
    """Return a target; `seconds` is its DIMSE time-out."""
    return DimseTarget(
        DimseTargetSettings(
            host=host,
            port=port,
            ae_title=called,
            connect_seconds=2.0,
            acse_seconds=acse_seconds,
            dimse_seconds=seconds,
            total_seconds=total_seconds,
        )
    )


def send(target: DimseTarget, objects: Sequence[Outgoing]) -> list[tuple[int, Sent]]:
    """Send and return the reports in the order in which they came."""
    reports: list[tuple[int, Sent]] = []
    target.send(objects, lambda index, sent: reports.append((index, sent)))
    return reports


def verdicts(reports: Sequence[tuple[int, Sent]]) -> list[SendVerdict]:
    """Return the verdicts; there is one for each object, in order."""
    assert [index for index, _ in reports] == list(range(len(reports)))
    return [sent.verdict for _, sent in reports]


def data_set(path: Path) -> bytes:
    """Return the bytes of a file after its file meta information, by its group length."""
    content = path.read_bytes()
    assert content[128:140] == b"DICM\x02\x00\x00\x00UL\x04\x00"
    return content[144 + int.from_bytes(content[140:144], "little") :]
