"""The result as a PDF inside a DICOM object (PS3.3 A.45.1): words that can be searched, pictures.

For destinations that file documents rather than reports.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Final

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import EncapsulatedPDFStorage

from engines.findings import Code
from node.interfaces import ResultContext, ResultError
from node.results import _encoding as encoding
from node.results import _identity as identity
from node.results._capture import PictureWriter, Plan, told
from node.results._iod import require_attributes
from node.results._marks import spread, statement
from node.results._objects import complete_object, new_object, reference_to
from node.results._pdf import pdf_of
from node.results._text import clean

NAME: Final = "encapsulated_pdf"
SERIES_NUMBER: Final = 9010
PICTURES: Final = 4
"""So many pages of pictures at most: the secondary captures have more."""
PDF: Final = "application/pdf"
REPORT: Final = Code("11528-7", "LN", "Radiology Report")


class EncapsulatedPdfWriter(PictureWriter):
    """Writes one document with the sentences of the text report (VIEW-03)."""

    name: ClassVar[str] = NAME

    def write(self, context: ResultContext) -> tuple[Dataset, ...]:
        """Make one document."""
        with encoding.translated(NAME):
            return (_encode(context, self._plans.of(context)),)

    def check(self, path: Path, context: ResultContext) -> None:
        """Compare the document with one made again, byte for byte."""
        with encoding.translated(NAME):
            written = dcmread(path)
            require_attributes(written)
            document = written.EncapsulatedDocument[: written.EncapsulatedDocumentLength]
            if document != _document(context, self._plans.of(context)):
                raise ResultError(f"{NAME}: the document is not that of the outcome")


def _encode(context: ResultContext, plan: Plan) -> Dataset:
    place = encoding.Place(
        writer=NAME,
        series_instance_uid=identity.series_uid(context, NAME),
        series_number=SERIES_NUMBER,
        description=encoding.described(context, "document"),
    )
    document = _document(context, plan)
    dataset = new_object(context, place, EncapsulatedPDFStorage, "DOC")
    dataset.ConversionType = "WSD"
    dataset.AcquisitionDateTime = ""  # Type 2; of many images there is no one
    dataset.BurnedInAnnotation = "NO"  # it names no patient (PS3.3 Table C.24-2)
    dataset.DocumentTitle = clean(f"AI report {context.engine.name} (unverified)")
    dataset.ConceptNameCodeSequence = [encoding.coded(REPORT)]
    dataset.VerificationFlag = "UNVERIFIED"
    dataset.SourceInstanceSequence = [reference_to(source) for source in context.sources]
    dataset.MIMETypeOfEncapsulatedDocument = PDF
    dataset.EncapsulatedDocumentLength = len(document)
    dataset.EncapsulatedDocument = document + b"\0" * (len(document) % 2)
    complete_object(dataset, context, place)
    return dataset


def _document(context: ResultContext, plan: Plan) -> bytes:
    images = [index for index, planned in enumerate(plan.pictures) if planned.frame is not None]
    pictures = [plan.draw(index) for index in spread(images, PICTURES)]
    return pdf_of(statement(context), told(context), pictures)
