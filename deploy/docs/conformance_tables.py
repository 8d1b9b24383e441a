# ruff: noqa: INP001 - a program, in no package
"""Writes the tables of the DICOM conformance statement from what the code accepts and answers.

python deploy/docs/conformance_tables.py                                       print them
python deploy/docs/conformance_tables.py --write deploy/docs/conformance.md    between the markers
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from pydicom.uid import UID
from pynetdicom import AllStoragePresentationContexts

import node.results
from engines.decoding import has_decoder
from node import archive
from node.delivery import _statuses as delivery
from node.delivery import _stow_answer as web_delivery
from node.expectation import ExpectationError
from node.interfaces import IngestError, ResultWriter
from node.listeners import _procedure_steps as steps
from node.listeners import dicomweb as web_listener
from node.listeners import dimse as listener
from node.listeners._attributes import SYNTAXES
from node.listeners._dimse_settings import DimseListenerSettings
from node.listeners._transfer_syntaxes import TRANSFER_SYNTAXES
from node.plugins import discover
from node.result_profiles import PLANNED

BEGIN: Final = "<!-- {}: begin -->"
END: Final = "<!-- {}: end -->"
NEWER_NAMES: Final[Mapping[str, str]] = {
    "1.2.840.10008.1.2.1.98": "Encapsulated Uncompressed Explicit VR Little Endian",
    "1.2.840.10008.1.2.4.110": "JPEG XL Lossless",
    "1.2.840.10008.1.2.4.111": "JPEG XL JPEG Recompression",
    "1.2.840.10008.1.2.4.112": "JPEG XL",
    "1.2.840.10008.1.2.8.1": "Deflated Image Frame Compression",
    "1.2.840.10008.5.1.4.1.1.66.7": "Label Map Segmentation Storage",
    "1.2.840.10008.5.1.4.1.1.66.8": "Height Map Segmentation Storage",
    "1.2.840.10008.5.1.4.1.1.9.100.1": "Waveform Presentation State Storage",
    "1.2.840.10008.5.1.4.1.1.9.100.2": "Waveform Acquisition Presentation State Storage",
}
"""Where pydicom does not know them yet."""
LIMITS: Final = (
    "max_associations",
    "max_associations_per_address",
    "max_pdu",
    "acse_seconds",
    "dimse_seconds",
    "network_seconds",
    "pdu_seconds",
    "notifications_per_minute",
)


class MarkersError(Exception):
    """The file has not got both markers of a table, in order."""


def put_into(text: str) -> str:
    """Return a text with every table between its markers.

    Raises:
        MarkersError: a marker is missing.
    """
    for name, table in TABLES.items():
        begin, end = BEGIN.format(name), END.format(name)
        before, found_begin, rest = text.partition(begin)
        _, found_end, after = rest.partition(end)
        if not found_begin or not found_end:
            raise MarkersError(f"{begin} and {end} must both be there")
        text = f"{before}{begin}\n\n{render(table)}\n{end}{after}"
    return text


def render(table: Callable[[], Iterator[tuple[str, ...]]]) -> str:
    """Return a table as Markdown; its first row is the head."""
    head, *rows = table()
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |\n" for row in lines)


def main() -> None:
    """Print the tables, or write them into a file."""
    parser = argparse.ArgumentParser(description="Write the tables of the conformance statement.")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put them between the markers")
    chosen = parser.parse_args()
    if chosen.write is None:
        sys.stdout.write("\n".join(map(render, TABLES.values())))
        return
    text = chosen.write.read_text(encoding="utf-8")
    chosen.write.write_text(put_into(text), encoding="utf-8")


# ---------------------------------------------------------------- tables


def sop_classes() -> Iterator[tuple[str, ...]]:
    """Yield what the listener accepts."""
    yield "SOP class", "UID", "role", "transfer syntaxes"
    little = ", ".join(map(_name, SYNTAXES))
    yield _name(listener.VERIFICATION), f"`{listener.VERIFICATION}`", "SCP", "the uncompressed ones"
    for uid in (steps.PROCEDURE_STEP, steps.AVAILABILITY):
        yield _name(uid), f"`{uid}`", "SCP", little
    for context in AllStoragePresentationContexts:
        uid = str(context.abstract_syntax)
        yield _name(uid), f"`{uid}`", "SCP", "all of the next table"


def transfer_syntaxes() -> Iterator[tuple[str, ...]]:
    """Yield what storage takes, the most wanted first."""
    yield "transfer syntax", "UID", "pixel data"
    for uid in TRANSFER_SYNTAXES:
        yield _name(uid), f"`{uid}`", "read by engines" if has_decoder(uid) else "kept only"


def rejections() -> Iterator[tuple[str, ...]]:
    """Yield why an association is rejected."""
    yield "result", "source", "reason", "when"
    version = (1, 2, 2), "its protocol version has not bit 0 (PS3.8 9.3.2)"
    for numbers, words in sorted([*listener.REASONS.items(), version]):
        yield (*map(str, numbers), words)


def limits() -> Iterator[tuple[str, ...]]:
    """Yield the limits of an association and what sets them."""
    yield "`[listeners.dimse]`", "default", "meaning"
    for name in LIMITS:
        field = DimseListenerSettings.model_fields[name]
        yield f"`{name}`", f"{field.default:g}", field.description or ""


def store_statuses() -> Iterator[tuple[str, ...]]:
    """Yield what a C-STORE is answered with."""
    yield "status", "when"
    yield (
        "0x0000",
        (
            "It is durable; also where the same bytes came before, and where others are kept under "
            "the same SOP Instance UID: these are kept apart, and told."
        ),
    )
    yield from _by_status(_descendants(IngestError))


def notification_statuses() -> Iterator[tuple[str, ...]]:
    """Yield what an N-CREATE or N-SET is answered with."""
    yield "status", "when"
    found = {
        steps.SUCCESS: "It is kept.",
        steps.INVALID_ATTRIBUTE_VALUE: "A value is not allowed, or is no UID.",
        steps.INVALID_INSTANCE: "The SOP Instance UID is none.",
        steps.MISSING_ATTRIBUTE: "A required attribute is missing.",
        steps.SOP_CLASS_NOT_SUPPORTED: "The SOP class has no such operation here.",
        steps.PROCESSING_FAILURE: "The data set cannot be read within the limits.",
    }
    for status, words in found.items():
        yield f"0x{status:04X}", words
    for kind in ExpectationError.__subclasses__():
        error = f", Error ID 0x{kind.error_id:04X}" if kind.error_id else ""
        yield f"0x{kind.status:04X}{error}", _docstring(kind)
    yield f"0x{steps.RESOURCE_LIMITATION:04X}", "The address sends more messages than it may."


def delivery_statuses() -> Iterator[tuple[str, ...]]:
    """Yield what is made of a PACS's answer to a C-STORE of ours."""
    yield "status", "meaning", "what follows"
    for status, (verdict, words) in delivery.EXACT.items():
        yield f"0x{status:04X}", words or "success", verdict.value
    for group, (verdict, words) in delivery.BY_GROUP.items():
        yield f"0x{group:02X}xx", words, verdict.value
    for kind, (verdict, words) in delivery.BY_CLASS.items():
        yield f"0x{kind:X}xxx, other", words, verdict.value


def web_delivery_statuses() -> Iterator[tuple[str, ...]]:
    """Yield what is made of an answer over the web that gives no reason for the object."""
    yield "HTTP status", "meaning", "what follows"
    for status, (verdict, words) in web_delivery.BY_STATUS.items():
        yield str(status), words, verdict.value
    for hundred, (verdict, words) in web_delivery.BY_HUNDRED.items():
        yield f"{hundred}xx, other", words, verdict.value


def web_store_statuses() -> Iterator[tuple[str, ...]]:
    """Yield what a store request over the web is answered with."""
    yield "HTTP status", "when"
    for status, words in web_listener.STATUSES.items():
        yield str(int(status)), words


def query_statuses() -> Iterator[tuple[str, ...]]:
    """Yield what is made of an archive's answer to a C-FIND of ours."""
    yield "status", "meaning"
    yield f"0x{archive.SUCCESS:04X}", "all matches were given"
    yield ", ".join(f"0x{status:04X}" for status in sorted(archive.PENDING)), "a match"
    for status, words in archive.EXACT.items():
        yield f"0x{status:04X}", f"not known: {words}"
    for group, words in archive.BY_GROUP.items():
        yield f"0x{group:02X}xx", f"not known: {words}"
    for kind, words in archive.BY_CLASS.items():
        yield f"0x{kind:X}xxx, other", f"not known: {words}"


def result_objects() -> Iterator[tuple[str, ...]]:
    """Yield what is made of an engine's outcome."""
    yield "object", "SOP class", "UID", "made"
    for name, writer in sorted(discover(node.results, ResultWriter).items()):
        made = "by default" if writer.by_default else "where a profile names it"
        for uid in writer.sop_class_uids or PLANNED[name]:
            yield name.replace("_", " "), _name(uid), f"`{uid}`", made


TABLES: Final[Mapping[str, Callable[[], Iterator[tuple[str, ...]]]]] = {
    "SOP classes": sop_classes,
    "transfer syntaxes": transfer_syntaxes,
    "limits": limits,
    "rejections": rejections,
    "C-STORE statuses": store_statuses,
    "notification statuses": notification_statuses,
    "result objects": result_objects,
    "delivery statuses": delivery_statuses,
    "web store statuses": web_store_statuses,
    "web delivery statuses": web_delivery_statuses,
    "query statuses": query_statuses,
}

# ---------------------------------------------------------------- words


def _name(uid: str) -> str:
    return NEWER_NAMES.get(uid) or UID(uid).name


def _descendants(kind: type[IngestError]) -> Iterator[type[IngestError]]:
    for child in kind.__subclasses__():
        yield child
        yield from _descendants(child)


def _by_status(kinds: Iterable[type[IngestError]]) -> Iterator[tuple[str, str]]:
    for kind in sorted(kinds, key=lambda kind: kind.status):
        yield f"0x{kind.status:04X}", _docstring(kind)


def _docstring(kind: type[Exception]) -> str:
    return re.sub(r"\s+", " ", kind.__doc__ or "").strip()


if __name__ == "__main__":
    main()
