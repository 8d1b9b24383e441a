"""The result as plain text (Enhanced SR, TID 2000) that every viewer opens.

It is the one object that every job delivers: findings, "nothing found", or "NOT ANALYSED" with a
coded reason (invariant 15). It says what is true of every result: an engine's, preliminary, seen
by nobody.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Final, TypeAlias

from highdicom.sr import (
    CodeContentItem,
    ContainerContentItem,
    ContentItem,
    ContentSequence,
    EnhancedSR,
    RelationshipTypeValues,
    TextContentItem,
)
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code as SrCode

from engines.findings import Code, Outcome, Refusal
from node.interfaces import ResultContext, ResultError, ResultWriter, SupersededResult
from node.results import _documents as documents
from node.results import _encoding as encoding
from node.results import _identity as identity
from node.results import _wording as wording

SERIES_NUMBER: Final = 9003
NUMBERS: Final = ("measurement_report", "classification_report", "box_report")
"""Writers of reports that hold values in codes; see `_previous`."""
TITLE: Final = SrCode("11528-7", "LN", "Radiology Report")
_CONTAINS: Final = RelationshipTypeValues.CONTAINS
_MODIFIER: Final = RelationshipTypeValues.HAS_CONCEPT_MOD

SUMMARY: Final = (SrCode("121111", "DCM", "Summary"), SrCode("121111", "DCM", "Summary"))
FINDINGS: Final = (SrCode("121070", "DCM", "Findings"), SrCode("121071", "DCM", "Finding"))
CONCLUSIONS: Final = (
    SrCode("121076", "DCM", "Conclusions"),
    SrCode("121077", "DCM", "Conclusion"),
)
PROCEDURE: Final = (
    SrCode("121064", "DCM", "Current Procedure Descriptions"),
    SrCode("121065", "DCM", "Procedure Description"),
)

_Section: TypeAlias = tuple[tuple[SrCode, SrCode], Sequence[str], Sequence[Code]]


class TextReportWriter(ResultWriter):
    """Writes what was analysed, by what, and what came of it (VIEW-03)."""

    name: ClassVar[str] = "text_report"
    sop_class_uids: ClassVar[tuple[str, ...]] = ("1.2.840.10008.5.1.4.1.1.88.22",)
    follows: ClassVar[tuple[str, ...]] = ("segmentation", *NUMBERS)

    def handles(self, outcome: Outcome) -> bool:  # noqa: ARG002  # it carries every outcome
        """Take every outcome: none of the three may be silent."""
        return True

    def write(self, context: ResultContext) -> tuple[Dataset, ...]:
        """Make one document."""
        if not context.sources:
            raise ResultError("text_report: no header could be read: whose study is not known")
        with encoding.translated(self.name):
            place = encoding.Place(
                writer=self.name,
                series_instance_uid=identity.series_uid(context, self.name),
                series_number=SERIES_NUMBER,
                description=encoding.described(context, "report"),
            )
            dataset = documents.make_document(
                EnhancedSR, _content(context), context, place, previous=_previous(context)
            )
        return (dataset,)

    def check(self, path: Path, context: ResultContext) -> None:
        """Compare every sentence and the coded reason with the outcome."""
        with encoding.translated(self.name):
            written = dcmread(path)
            documents.check_document(written, context, ())
            _compare(written, context)


def _compare(written: Dataset, context: ResultContext) -> None:
    """Compare the sections item by item with what the outcome asks to be said."""
    sections = [item for item in written.ContentSequence if item.ValueType == "CONTAINER"]
    if [_said(section) for section in sections] != [
        (str(names[0].meaning), [code.value for code in values], list(sentences))
        for names, sentences, values in _sections(context)
    ]:
        raise ResultError("text_report: its sentences are not those of the outcome")


def _said(section: Dataset) -> tuple[str, list[str], list[str]]:
    items = section.ContentSequence
    return (
        str(section.ConceptNameCodeSequence[0].CodeMeaning),
        [str(i.ConceptCodeSequence[0].CodeValue) for i in items if i.ValueType == "CODE"],
        [str(item.TextValue) for item in items if item.ValueType == "TEXT"],
    )


def _previous(context: ResultContext) -> Sequence[SupersededResult]:
    """Return the reports that this one replaces (UID-05).

    An earlier report with values in codes is among them where this run writes none: nothing else
    would say that its values no longer stand.
    """
    replaced = ["text_report", *(name for name in NUMBERS if name not in context.written)]
    return [item for item in context.superseded if item.writer in replaced]


def _content(context: ResultContext) -> ContainerContentItem:
    root = ContainerContentItem(name=TITLE, template_id="2000")
    root.ContentSequence = ContentSequence(list(_items(context)))
    return root


def _items(context: ResultContext) -> Iterator[ContentItem]:
    yield CodeContentItem(
        name=codes.DCM.LanguageOfContentItemAndDescendants,
        value=documents.ENGLISH,
        relationship_type=_MODIFIER,
    )
    yield from documents.observer(context.device)
    yield CodeContentItem(
        name=codes.DCM.ProcedureReported,
        value=documents.procedure_reported(context),
        relationship_type=_MODIFIER,
    )
    for names, sentences, values in _sections(context):
        yield _section(names, sentences, values)


def _sections(context: ResultContext) -> Iterator[_Section]:
    """Yield each section: its names, its sentences, its codes."""
    outcome = context.outcome
    yield SUMMARY, wording.summary(context), ()
    if isinstance(outcome, Refusal):
        yield CONCLUSIONS, wording.reason(outcome), (outcome.reason,)
    else:
        yield FINDINGS, wording.findings(outcome, context), ()
    yield PROCEDURE, wording.procedure(context), ()


def _section(
    names: tuple[SrCode, SrCode], sentences: Sequence[str], values: Sequence[Code]
) -> ContainerContentItem:
    section, element = names
    container = ContainerContentItem(name=section, relationship_type=_CONTAINS)
    container.ContentSequence = ContentSequence(
        [
            *(CodeContentItem(element, encoding.coded(value), _CONTAINS) for value in values),
            *(TextContentItem(element, sentence, _CONTAINS) for sentence in sentences),
        ]
    )
    return container
