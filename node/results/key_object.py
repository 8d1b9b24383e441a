"""Which images to look at: a Key Object Selection document (PS3.3 A.35.4, TID 2010)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Final

from highdicom.ko import KeyObjectSelection, KeyObjectSelectionDocument
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from engines.findings import Outcome, Refusal
from engines.images import SourceFrame
from node.interfaces import ResultContext, ResultError, ResultWriter
from node.results import _documents as documents
from node.results import _encoding as encoding
from node.results import _identity as identity
from node.results import _wording as wording
from node.results._iod import require_attributes
from node.results._marks import found_of, key_images, marked_images, statement
from node.results._objects import referenced
from node.results._sources import blank_carrier
from node.results._text import clean, counted

NAME: Final = "key_object"
SERIES_NUMBER: Final = 9009
REFERENCES: Final = ("IMAGE", "COMPOSITE")
DESCRIPTION: Final = "113012"


class KeyObjectWriter(ResultWriter):
    """Writes a document that names the images on which each finding is largest (KO-01)."""

    name: ClassVar[str] = NAME
    by_default: ClassVar[bool] = False

    def handles(self, outcome: Outcome) -> bool:
        """Take findings that are on an image: there is nothing to look at where nothing is."""
        return not isinstance(outcome, Refusal) and bool(marked_images(outcome))

    def write(self, context: ResultContext) -> tuple[Dataset, ...]:
        """Make one document."""
        with encoding.translated(NAME):
            place = encoding.Place(
                writer=NAME,
                series_instance_uid=identity.series_uid(context, NAME),
                series_number=SERIES_NUMBER,
                description=encoding.described(context, "key images"),
            )
            return (_encode(context, place),)

    def check(self, path: Path, context: ResultContext) -> None:
        """Compare the images and the words with the outcome."""
        with encoding.translated(NAME):
            _compare(dcmread(path), context)


def _encode(context: ResultContext, place: encoding.Place) -> Dataset:
    frames = _frames(context)
    carriers = {
        frame.sop_instance_uid: _carrier(context, frame) for frame in frames
    }  # each instance once, as evidence
    document = KeyObjectSelectionDocument(
        evidence=list(carriers.values()),
        content=KeyObjectSelection(
            document_title=codes.DCM.OfInterest,
            referenced_objects=[carriers[frame.sop_instance_uid] for frame in frames],
            observer_device_context=documents.observer(context.device),
            description=_description(context),
        ),
        **encoding.common_arguments(context, place),
    )
    dataset = Dataset()
    dataset.update(document)
    dataset.file_meta = document.file_meta
    images = (item for item in dataset.ContentSequence if item.ValueType in REFERENCES)
    for item, frame in zip(images, frames, strict=True):
        del item.ConceptNameCodeSequence  # KO-01: TID 2010 forbids the name the library gives
        item.ReferencedSOPSequence = [referenced(frame)]
    encoding.complete(dataset, context, place)
    return dataset


def _frames(context: ResultContext) -> list[SourceFrame]:
    found = found_of(context)
    return [found.sources[index] for index in key_images(found)]


def _carrier(context: ResultContext, frame: SourceFrame) -> Dataset:
    """Make what the library copies from, marked as an image by what all images have."""
    carrier = blank_carrier(context, frame.sop_class_uid, frame.sop_instance_uid)
    carrier.SeriesInstanceUID = frame.series_instance_uid
    carrier.Rows = carrier.Columns = 1
    return carrier


def _description(context: ResultContext) -> str:
    """Say whose choice it is, of how many images, and what was found."""
    found = found_of(context)
    key, marked = len(key_images(found)), len(marked_images(found))
    chosen = f"{counted(key, 'image')} of {marked} with findings: where each is largest."
    told = wording.findings(found, context)[: len(found.findings)]
    return clean(" ".join([f"{statement(context)}", chosen, *told]), 1024)


def _compare(written: Dataset, context: ResultContext) -> None:
    require_attributes(written)
    items = list(written.ContentSequence)
    named = [item.ReferencedSOPSequence[0] for item in items if item.ValueType in REFERENCES]
    if named != [referenced(frame) for frame in _frames(context)]:
        raise ResultError(f"{NAME}: its images are not those of the outcome")
    if list(_described(items)) != [_description(context)]:
        raise ResultError(f"{NAME}: its description is not that of the outcome")
    evidence = {
        str(image.ReferencedSOPInstanceUID)
        for study in written.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for image in series.ReferencedSOPSequence
    }
    if evidence != {frame.sop_instance_uid for frame in _frames(context)}:
        raise ResultError(f"{NAME}: its evidence is not what it refers to (OBJ-11)")


def _described(items: list[Dataset]) -> Iterator[str]:
    for item in items:
        if item.ValueType == "TEXT" and (item.ConceptNameCodeSequence[0].CodeValue == DESCRIPTION):
            yield str(item.TextValue)
