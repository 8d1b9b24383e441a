"""Outlines on a slide as Microscopy Bulk Simple Annotations (PS3.3 A.87), a group for each kind."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Final

import numpy as np
from highdicom import AlgorithmIdentificationSequence
from highdicom.ann import (
    AnnotationCoordinateTypeValues,
    AnnotationGroup,
    AnnotationGroupGenerationTypeValues,
    GraphicTypeValues,
    Measurements,
    MicroscopyBulkSimpleAnnotations,
    PixelOriginInterpretationValues,
    annread,
)
from highdicom.color import CIELabColor
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian

from engines.findings import Code, Outcome, Outlines, SlideAnalysis
from node.interfaces import ResultContext, ResultError, ResultWriter
from node.results import _encoding as encoding
from node.results import _identity as identity
from node.results._iod import require_attributes
from node.results._sources import blank_carrier, header_text, headers_by_uid, source_of
from node.results._text import clean

SERIES_NUMBER: Final = 9005
AREA: Final = Code("42798000", "SCT", "Area")
SQUARE_MICROMETRE: Final = Code("um2", "UCUM", "square micrometer")
TOLERANCE_PIXELS: Final = 1e-3


class BulkAnnotationsWriter(ResultWriter):
    """Writes polygons in the total pixel matrix of the slide, each with its area."""

    name: ClassVar[str] = "bulk_annotations"
    sop_class_uids: ClassVar[tuple[str, ...]] = ("1.2.840.10008.5.1.4.1.1.91.1",)

    def handles(self, outcome: Outcome) -> bool:
        """Take an analysis of a slide that outlined something."""
        return isinstance(outcome, SlideAnalysis) and bool(outcome.findings)

    def write(self, context: ResultContext) -> tuple[Dataset, ...]:
        """Make one object for the one image."""
        analysis = _analysis(context)
        with encoding.translated(self.name):
            place = encoding.Place(
                writer=self.name,
                series_instance_uid=identity.series_uid(context, self.name),
                series_number=SERIES_NUMBER,
                description=encoding.described(context, "annotations"),
            )
            dataset = _encode(context, analysis, place)
            dataset.ContentCreatorName = ""  # Type 2; nobody drew them (PS3.3 Table 10-12)
            encoding.complete(dataset, context, place)
        return (dataset,)

    def check(self, path: Path, context: ResultContext) -> None:
        """Compare every polygon and area with the outcome."""
        with encoding.translated(self.name):
            _compare(path, context, _analysis(context))


def _analysis(context: ResultContext) -> SlideAnalysis:
    analysis = context.outcome
    if not isinstance(analysis, SlideAnalysis) or len(analysis.sources) != 1:
        raise ResultError("bulk_annotations: the outcome is not of one image of a slide")
    return analysis


def _encode(context: ResultContext, analysis: SlideAnalysis, place: encoding.Place) -> Dataset:
    device = context.device
    made = MicroscopyBulkSimpleAnnotations(
        source_images=[_carrier(context, analysis)],
        annotation_coordinate_type=AnnotationCoordinateTypeValues.SCOORD,
        pixel_origin_interpretation=PixelOriginInterpretationValues.VOLUME,
        annotation_groups=[
            _group(context, analysis, number, outlines)
            for number, outlines in enumerate(analysis.findings, 1)
        ],
        manufacturer_model_name=clean(device.model),
        software_versions=device.software_version,
        device_serial_number=clean(device.serial_number),
        transfer_syntax_uid=ExplicitVRLittleEndian,
        content_label="AI_ANNOTATIONS",
        content_description=encoding.described(context, "annotations"),
        **encoding.common_arguments(context, place),
    )
    dataset = Dataset()
    dataset.update(made)
    dataset.file_meta = made.file_meta
    return dataset


def _carrier(context: ResultContext, analysis: SlideAnalysis) -> Dataset:
    """Make what the constructor copies from: the identity of the image, and no more.

    The specimen is the image's; it has no place in this object (PS3.3 Table A.87-1).
    """
    image = analysis.sources[0]
    source = source_of(headers_by_uid(context), image)
    carrier = blank_carrier(context, image.sop_class_uid, image.sop_instance_uid)
    carrier.FrameOfReferenceUID = header_text(source, "FrameOfReferenceUID")
    carrier.SeriesInstanceUID = source.SeriesInstanceUID
    return carrier


def _group(
    context: ResultContext, analysis: SlideAnalysis, number: int, outlines: Outlines
) -> AnnotationGroup:
    engine = context.engine
    return AnnotationGroup(
        number=number,
        uid=identity.tracking_uid(context, analysis, outlines.key),
        label=clean(outlines.label),
        annotated_property_category=encoding.coded(outlines.category),
        annotated_property_type=encoding.coded(outlines.type),
        graphic_type=GraphicTypeValues.POLYGON,
        graphic_data=[polygon.astype(np.float32) for polygon in outlines.polygons],
        algorithm_type=AnnotationGroupGenerationTypeValues.AUTOMATIC,
        algorithm_identification=AlgorithmIdentificationSequence(
            name=clean(engine.name),
            version=clean(engine.version),
            family=codes.DCM.ArtificialIntelligence,
            parameters=encoding.parameters(context),
        ),
        measurements=[
            Measurements(
                name=encoding.coded(AREA),
                values=outlines.areas.astype(np.float32),
                unit=encoding.coded(SQUARE_MICROMETRE),
            )
        ],
        display_color=CIELabColor.from_rgb(*outlines.colour),
    )


def _compare(path: Path, context: ResultContext, analysis: SlideAnalysis) -> None:
    written = annread(path)
    require_attributes(written)
    _require(
        written.StudyInstanceUID == context.sources[0].StudyInstanceUID,
        "it is in another study than its source",
    )
    (image,) = written.ReferencedImageSequence
    _require(
        image.ReferencedSOPInstanceUID == analysis.sources[0].sop_instance_uid,
        "it refers to another image",
    )
    groups = written.get_annotation_groups()
    _require(len(groups) == len(analysis.findings), "its groups are not the findings")
    for group, outlines in zip(groups, analysis.findings, strict=True):
        _compare_group(group, outlines, identity.tracking_uid(context, analysis, outlines.key))


def _compare_group(group: AnnotationGroup, outlines: Outlines, uid: str) -> None:
    _require(str(group.uid) == uid, f"the UID of {outlines.key} differs")
    polygons = group.get_graphic_data(AnnotationCoordinateTypeValues.SCOORD)
    same = len(polygons) == len(outlines.polygons) and all(
        found.shape == wanted.shape and np.abs(found - wanted).max() < TOLERANCE_PIXELS
        for found, wanted in zip(polygons, outlines.polygons, strict=True)
    )
    _require(same, f"the polygons of {outlines.key} differ")
    _, values, _ = group.get_measurements()
    same = np.allclose(values[:, 0], outlines.areas, rtol=1e-6)
    _require(bool(same), f"the areas of {outlines.key} differ")


def _require(holds: bool, fault: str) -> None:
    if not holds:
        raise ResultError(f"bulk_annotations: {fault}")
