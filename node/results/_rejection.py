"""Notes that results are rejected, for archives and for people (IHE IOCM, UID-06).

An archive that honours them hides what a Key Object Selection document names under a title for
rejected objects (PS3.16 CID 7010). Where none is taken a report says the same in words; archives
do nothing about it, but who opens the study reads it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from highdicom.ko import KeyObjectSelection, KeyObjectSelectionDocument
from highdicom.sr import (
    CodeContentItem,
    ContainerContentItem,
    ContentSequence,
    EnhancedSR,
    RelationshipTypeValues,
    TextContentItem,
)
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code as SrCode

from engines.findings import Code, Refusal
from node.interfaces import DeviceIdentity, EngineIdentity, ResultContext, ResultError
from node.results import _documents as documents
from node.results import _encoding as encoding
from node.results import _identity as identity
from node.results._iod import require_attributes
from node.results._sources import blank_carrier, copy_patient_and_study
from node.results._text import clean, counted
from node.results.text_report import SUMMARY, TITLE

NOTE: Final = "rejection_note"
NOTICE: Final = "rejection_notice"
"""What stands in the place of a writer's name for the two."""
NOTE_NUMBER: Final = 9012
NOTICE_NUMBER: Final = 9013
TITLES: Final[Mapping[str, Code]] = {
    "113001": Code(value="113001", scheme="DCM", meaning="Rejected for Quality Reasons"),
    "113037": Code(value="113037", scheme="DCM", meaning="Rejected for Patient Safety Reasons"),
}
IMAGES: Final = frozenset(
    {
        "1.2.840.10008.5.1.4.1.1.7",
        "1.2.840.10008.5.1.4.1.1.7.4",
        "1.2.840.10008.5.1.4.1.1.30",
        "1.2.840.10008.5.1.4.1.1.66.4",
        "1.2.840.10008.5.1.4.1.1.66.7",
    }
)
"""Results that have pixels: IMAGE items, where others are COMPOSITE (PS3.3 C.17.3)."""
REFERENCES: Final = ("IMAGE", "COMPOSITE")
_CONTAINS: Final = RelationshipTypeValues.CONTAINS
_MODIFIER: Final = RelationshipTypeValues.HAS_CONCEPT_MOD


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """One object that is rejected."""

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """What is rejected, by which title, and why. Same rejection, same bytes (invariant 13).

    `header` holds patient and study: that of a rejected object, or what the index knows of them.
    `key` names it among all; `at` is when it was decided.
    """

    key: str
    at: datetime
    code: str
    reason: str
    rejected: tuple[Rejected, ...]
    header: Dataset
    device: DeviceIdentity
    engine: EngineIdentity


def write_notes(rejection: Rejection) -> tuple[tuple[str, Dataset], ...]:
    """Make the note, and the notice that goes in its place where it is refused.

    Raises:
        ResultError: naming what is wrong.
    """
    context = _context(rejection)
    with encoding.translated(NOTE):
        note = _note(rejection, context)
    with encoding.translated(NOTICE):
        notice = _notice(rejection, context)
    return (NOTE, note), (NOTICE, notice)


def check_note(path: Path, rejection: Rejection) -> None:
    """Read one of the two back, and compare what it names, and why, with the rejection.

    Raises:
        ResultError: naming the difference. Nothing is sent.
    """
    with encoding.translated(NOTE):
        written = dcmread(path)
        require_attributes(written)
        if written.Modality == "KO":
            _compare(written, rejection)
        evidence = set(_evidence(written))
        if evidence != {item.sop_instance_uid for item in rejection.rejected}:
            raise ResultError(f"{NOTE}: its evidence is not what is rejected (OBJ-11)")


def _context(rejection: Rejection) -> ResultContext:
    """Say it as for a job: what every object has in common is encoded alike."""
    if rejection.code not in TITLES:
        raise ResultError(f"{NOTE}: {rejection.code} is no title for rejected objects")
    header = Dataset()
    copy_patient_and_study(rejection.header, header)
    header.StudyInstanceUID = rejection.header.StudyInstanceUID
    header.SeriesInstanceUID = rejection.rejected[0].series_instance_uid
    header.SOPInstanceUID = rejection.rejected[0].sop_instance_uid
    if "TimezoneOffsetFromUTC" in rejection.header:
        header.TimezoneOffsetFromUTC = rejection.header.TimezoneOffsetFromUTC
    return ResultContext(
        job_key=rejection.key,
        generation=1,
        created=rejection.at,
        series_created=rejection.at,
        rule="",
        rule_revision=0,
        device=rejection.device,
        engine=rejection.engine,
        outcome=Refusal(reason=TITLES[rejection.code], detail=rejection.reason, sources=()),
        sources=(header,),
        superseded=(),
        written={},
    )


def _place(context: ResultContext, name: str, number: int, what: str) -> encoding.Place:
    """Give each its own series: Series Date and Time are those of the rejection (OBJ-07)."""
    return encoding.Place(
        writer=name,
        series_instance_uid=identity.derived_uid("series", context.job_key, name),
        series_number=number,
        description=encoding.described(context, what),
    )


def _note(rejection: Rejection, context: ResultContext) -> Dataset:
    place = _place(context, NOTE, NOTE_NUMBER, "rejection note")
    carriers = [_carrier(context, item) for item in rejection.rejected]
    document = KeyObjectSelectionDocument(
        evidence=carriers,
        content=KeyObjectSelection(
            document_title=encoding.coded(TITLES[rejection.code]),
            referenced_objects=carriers,
            observer_device_context=documents.observer(context.device),
            description=clean(" ".join(_sentences(rejection)), 1024),
        ),
        **encoding.common_arguments(context, place),
    )
    dataset = Dataset()
    dataset.update(document)
    dataset.file_meta = document.file_meta
    for item in _references(dataset):
        del item.ConceptNameCodeSequence  # KO-01: TID 2010 forbids the name the library gives
    encoding.complete(dataset, context, place)
    return dataset


def _notice(rejection: Rejection, context: ResultContext) -> Dataset:
    place = _place(context, NOTICE, NOTICE_NUMBER, "rejection notice")
    document = EnhancedSR(
        content=_words(rejection, context),
        evidence=[_carrier(context, item) for item in rejection.rejected],
        is_complete=True,
        is_final=False,
        is_verified=False,
        **encoding.common_arguments(context, place),
    )
    dataset = Dataset()
    dataset.update(document)
    dataset.file_meta = document.file_meta
    encoding.complete(dataset, context, place)
    return dataset


def _words(rejection: Rejection, context: ResultContext) -> ContainerContentItem:
    section, element = SUMMARY
    summary = ContainerContentItem(name=section, relationship_type=_CONTAINS)
    summary.ContentSequence = ContentSequence(
        [
            CodeContentItem(element, encoding.coded(TITLES[rejection.code]), _CONTAINS),
            *(TextContentItem(element, text, _CONTAINS) for text in _sentences(rejection)),
            *(TextContentItem(element, text, _CONTAINS) for text in _named(rejection.rejected)),
        ]
    )
    root = ContainerContentItem(name=TITLE, template_id="2000")
    root.ContentSequence = ContentSequence(
        [
            CodeContentItem(
                name=codes.DCM.LanguageOfContentItemAndDescendants,
                value=documents.ENGLISH,
                relationship_type=_MODIFIER,
            ),
            *documents.observer(context.device),
            CodeContentItem(
                name=codes.DCM.ProcedureReported,
                value=SrCode("363679005", "SCT", "Imaging procedure"),
                relationship_type=_MODIFIER,
            ),
            summary,
        ]
    )
    return root


def _sentences(rejection: Rejection) -> Sequence[str]:
    """Say what must not be missed first: that results in this study do not stand."""
    engine = " ".join(filter(None, (rejection.engine.name, rejection.engine.version)))
    count = counted(len(rejection.rejected), "AI result object")
    return (
        f"AI RESULTS WITHDRAWN: {count} of {clean(engine)} in this study must not be used.",
        f"Reason: {clean(rejection.reason, 700)}",
        "This does not mean a normal finding.",
    )


def _named(rejected: Sequence[Rejected]) -> Iterator[str]:
    for item in rejected:
        yield f"Withdrawn: SOP Instance UID {item.sop_instance_uid}"


def _carrier(context: ResultContext, item: Rejected) -> Dataset:
    """Make what the library copies from; it takes for an image what has rows and columns."""
    carrier = blank_carrier(context, item.sop_class_uid, item.sop_instance_uid)
    carrier.SeriesInstanceUID = item.series_instance_uid
    if item.sop_class_uid in IMAGES:
        carrier.Rows = carrier.Columns = 1
    return carrier


def _compare(written: Dataset, rejection: Rejection) -> None:
    title = written.ConceptNameCodeSequence[0]
    if (title.CodeValue, title.CodingSchemeDesignator) != (rejection.code, "DCM"):
        raise ResultError(f"{NOTE}: its title is not the reason")
    named = [_reference(item.ReferencedSOPSequence[0]) for item in _references(written)]
    if named != [(item.sop_class_uid, item.sop_instance_uid) for item in rejection.rejected]:
        raise ResultError(f"{NOTE}: what it names is not what is rejected")


def _reference(item: Dataset) -> tuple[str, str]:
    return str(item.ReferencedSOPClassUID), str(item.ReferencedSOPInstanceUID)


def _references(dataset: Dataset) -> list[Dataset]:
    return [item for item in dataset.ContentSequence if item.ValueType in REFERENCES]


def _evidence(written: Dataset) -> Iterator[str]:
    for keyword in (
        "CurrentRequestedProcedureEvidenceSequence",
        "PertinentOtherEvidenceSequence",
    ):
        for study in written.get(keyword, ()):
            for series in study.ReferencedSeriesSequence:
                for item in series.ReferencedSOPSequence:
                    yield str(item.ReferencedSOPInstanceUID)
