"""A small image library: only the images that findings point at (TID 1600, OBJ-12)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from highdicom.sr import (
    CodeContentItem,
    ContainerContentItem,
    ContentSequence,
    ImageContentItem,
    NumContentItem,
    RelationshipTypeValues,
    UIDRefContentItem,
)
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code as SrCode

from engines.findings import Analysis, ImageAnalysis
from engines.images import SourceFrame
from node.interfaces import ResultContext
from node.results._sources import header_text, headers_by_uid, source_of

MODALITIES: Final = {
    "CT": codes.cid29.ComputedTomography,
    "MR": codes.cid29.MagneticResonance,
    "PT": codes.cid29.PositronEmissionTomography,
    "NM": codes.cid29.NuclearMedicine,
    "US": codes.cid29.Ultrasound,
    "CR": codes.cid29.ComputedRadiography,
    "DX": codes.cid29.DigitalRadiography,
    "MG": codes.cid29.Mammography,
    "XA": codes.cid29.XRayAngiography,
}
PIXELS: Final = SrCode("{pixels}", "UCUM", "Pixels")
_CONTEXT: Final = RelationshipTypeValues.HAS_ACQ_CONTEXT
_CONTAINS: Final = RelationshipTypeValues.CONTAINS


def add_image_library(
    root: Dataset,
    context: ResultContext,
    analysis: Analysis | ImageAnalysis,
    images: Sequence[int],
) -> None:
    """Put the library before the measurements, where TID 1500 wants it."""
    group = ContainerContentItem(name=codes.DCM.ImageLibraryGroup, relationship_type=_CONTAINS)
    group.ContentSequence = ContentSequence(list(_descriptors(context, analysis)))
    for index in images:
        group.ContentSequence.append(_entry(analysis, index))
    library = ContainerContentItem(name=codes.DCM.ImageLibrary, relationship_type=_CONTAINS)
    library.ContentSequence = ContentSequence([group])
    root.ContentSequence.insert(len(root.ContentSequence) - 1, library)


def _descriptors(
    context: ResultContext, analysis: Analysis | ImageAnalysis
) -> Iterator[CodeContentItem | UIDRefContentItem | NumContentItem]:
    """Describe what the images share (TID 1602, TID 1604)."""
    header = source_of(headers_by_uid(context), analysis.sources[0])
    modality = MODALITIES.get(header_text(header, "Modality"), codes.cid32.Other)
    yield CodeContentItem(name=codes.DCM.Modality, value=modality, relationship_type=_CONTEXT)
    if not isinstance(analysis, Analysis):
        return
    grid = analysis.grid
    yield UIDRefContentItem(
        name=codes.DCM.FrameOfReferenceUID,
        value=grid.frame_of_reference_uid,
        relationship_type=_CONTEXT,
    )
    for name, value, unit in (
        (codes.DCM.PixelDataRows, grid.shape[1], PIXELS),
        (codes.DCM.PixelDataColumns, grid.shape[2], PIXELS),
        (codes.DCM.HorizontalPixelSpacing, grid.spacing[2], codes.UCUM.Millimeter),
        (codes.DCM.VerticalPixelSpacing, grid.spacing[1], codes.UCUM.Millimeter),
    ):
        yield NumContentItem(name=name, value=value, unit=unit, relationship_type=_CONTEXT)


def _entry(analysis: Analysis | ImageAnalysis, index: int) -> ImageContentItem:
    source: SourceFrame = analysis.sources[index]
    entry = ImageContentItem(
        name=SrCode("260753009", "SCT", "Source"),
        referenced_sop_class_uid=source.sop_class_uid,
        referenced_sop_instance_uid=source.sop_instance_uid,
        referenced_frame_numbers=None if source.frame is None else [source.frame],
        relationship_type=_CONTAINS,
    )
    if isinstance(analysis, Analysis):
        entry.ContentSequence = ContentSequence(list(_position(analysis, index)))
    return entry


def _position(analysis: Analysis, index: int) -> Iterator[NumContentItem]:
    names = (
        codes.DCM.ImagePositionPatientX,
        codes.DCM.ImagePositionPatientY,
        codes.DCM.ImagePositionPatientZ,
    )
    for name, value in zip(names, analysis.grid.positions[index], strict=True):
        yield NumContentItem(
            name=name, value=value, unit=codes.UCUM.Millimeter, relationship_type=_CONTEXT
        )
