"""What the structured reports have in common (OBJ-10 to OBJ-15, SR-01 to SR-03, UID-05)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Final

from highdicom.sr import (
    AlgorithmIdentification,
    Comprehensive3DSR,
    DeviceObserverIdentifyingAttributes,
    EnhancedSR,
    FindingSite,
    ObserverContext,
    SourceImageForMeasurement,
    SourceImageForMeasurementGroup,
    TrackingIdentifier,
)
from highdicom.sr import Measurement as SrMeasurement
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code as SrCode
from pydicom.tag import Tag
from pydicom.uid import CTImageStorage

from engines.findings import (
    Analysis,
    Code,
    ImageAnalysis,
    Measurement,
    Refusal,
    Segment,
    SlideAnalysis,
)
from engines.images import SourceFrame
from node.interfaces import DeviceIdentity, ResultContext, ResultError, SupersededResult
from node.results import _encoded_items as encoded
from node.results import _encoding as encoding
from node.results import _explicit as explicit
from node.results import _identity as identity
from node.results._iod import require_attributes
from node.results._segments import undrawn_segments
from node.results._sources import blank_carrier, header_text
from node.results._text import clean, decimal_string

ENGLISH: Final = SrCode("en-US", "RFC5646", "English (United States)")
CONTENT: Final = Tag("ContentSequence")
EVIDENCE: Final = "CurrentRequestedProcedureEvidenceSequence"
ABSENT: Final = SrCode("2667000", "SCT", "Absent")
PRESENT: Final = SrCode("52101004", "SCT", "Present")
_PROCEDURES: Final = {  # CID 100; anything else is an error to the Connectathon's validator (SR-03)
    "CT": SrCode("25045-6", "LN", "CT unspecified body region"),
    "MR": SrCode("25056-3", "LN", "MRI unspecified body region"),
    "PT": SrCode("44136-0", "LN", "PET unspecified body region"),
}
_ANY_PROCEDURE: Final = SrCode("363679005", "SCT", "Imaging procedure")


def make_document(
    kind: type[EnhancedSR | Comprehensive3DSR],
    content: Dataset,
    context: ResultContext,
    place: encoding.Place,
    *,
    others: Sequence[Dataset] = (),
    previous: Sequence[SupersededResult] = (),
) -> Dataset:
    """Make a report: preliminary and never verified, for no person looked (OBJ-13).

    The library makes the document around the root of the content, and around blank evidence: it
    would copy all content to search it for references, and take most of the time. What it searches
    for is asked for here.

    Args:
        kind: of document.
        content: its root container, with everything in it.
        context: of the job.
        place: of the document in the study.
        others: results that are evidence beside the sources (OBJ-11).
        previous: what it replaces (UID-05).

    Raises:
        ResultError: the content refers to an instance that is no evidence.
    """
    evidence = [*context.sources, *others]
    _check_references(content, evidence)
    missing = shortcoming(context)
    made = kind(
        content=_root_of(content),
        evidence=[blank_carrier(context, CTImageStorage, evidence[0].SOPInstanceUID)],
        is_complete=not missing,
        is_final=False,
        is_verified=False,
        previous_versions=[_predecessor(item) for item in previous] or None,
        **encoding.common_arguments(context, place),
    )
    dataset = Dataset()
    dataset.update(made)
    dataset.file_meta = made.file_meta
    dataset.ContentSequence = content.ContentSequence
    if missing:
        dataset.CompletionFlagDescription = missing
    encoding.complete(dataset, context, place)
    explicit.put_items(dataset, EVIDENCE, _evidence(evidence))
    return dataset


def _root_of(content: Dataset) -> Dataset:
    """Return a root container with nothing in it."""
    root = Dataset()
    root.update({element.tag: element for element in content if element.tag != CONTENT})
    root.ContentSequence = []
    return root


def _check_references(content: Dataset, evidence: Sequence[Dataset]) -> None:
    known = {str(item.SOPInstanceUID) for item in evidence}
    for element in content.iterall():
        if element.keyword == "ReferencedSOPInstanceUID" and str(element.value) not in known:
            raise ResultError(f"{element.value} is referred to, and is no evidence (OBJ-11)")


def shortcoming(context: ResultContext) -> str:
    """Say which requested output is missing; empty where none is (OBJ-13)."""
    outcome = context.outcome
    if isinstance(outcome, Refusal):
        return clean(f"Not analysed: {outcome.reason.meaning}")
    if isinstance(outcome, ImageAnalysis | SlideAnalysis):
        return ""
    undrawn = ", ".join(segment.label for segment in undrawn_segments(outcome))
    return clean(f"Not drawn: {undrawn}") if undrawn else ""


def observer(device: DeviceIdentity) -> ObserverContext:
    """Name the installation as the observer; there is no person (OBJ-14)."""
    return ObserverContext(
        codes.DCM.Device,
        DeviceObserverIdentifyingAttributes(
            uid=identity.device_uid(device),
            name=clean(device.station_name),
            manufacturer_name=clean(device.manufacturer),
            model_name=clean(device.model),
            serial_number=clean(device.serial_number),
        ),
    )


def algorithm(context: ResultContext) -> AlgorithmIdentification:
    """Name the engine with its parameters (TID 4019, OBJ-15)."""
    return AlgorithmIdentification(
        name=clean(context.engine.name),
        version=clean(context.engine.version),
        family=codes.DCM.ArtificialIntelligence,
        parameters=[f"{key}={value}" for key, value in encoding.parameters(context).items()],
    )


def procedure_reported(context: ResultContext) -> SrCode:
    """Return the procedure, coarse enough to be in CID 100."""
    return _PROCEDURES.get(header_text(context.sources[0], "Modality"), _ANY_PROCEDURE)


def tracking(
    context: ResultContext, analysis: Analysis | ImageAnalysis, key: str
) -> TrackingIdentifier:
    """Name a finding alike in every document and every re-run (OBJ-17)."""
    return TrackingIdentifier(
        uid=identity.tracking_uid(context, analysis, key),
        identifier=clean(f"{context.engine.name} {key}"),
    )


def finding_sites(segment: Segment) -> list[FindingSite] | None:
    """Say where a segment is, with its side; None where that is not told."""
    if segment.region is None:
        return None
    side = encoding.coded(segment.laterality) if segment.laterality else None
    return [FindingSite(encoding.coded(segment.region), laterality=side)]


def absent_key(concept: Code) -> str:
    """Name what was sought and not found."""
    return f"absent {concept.scheme} {concept.value}"


def source_image(frame: SourceFrame) -> SourceImageForMeasurementGroup:
    """Refer to the image that a group is about."""
    return SourceImageForMeasurementGroup(
        frame.sop_class_uid, frame.sop_instance_uid, frame_numbers(frame)
    )


def frame_numbers(frame: SourceFrame) -> list[int] | None:
    """Return the frame that is referred to; None where the whole of an instance is."""
    return None if frame.frame is None else [frame.frame]


def measured(measurement: Measurement, image: SourceFrame | None) -> SrMeasurement:
    """Make a NUM; one that belongs to an image is inferred from it (TID 1419).

    Raises:
        ResultError: the value is not a finite number.
    """
    if not math.isfinite(measurement.value):
        raise ResultError(f"{measurement.name.meaning} is not a number")
    images = None
    if image is not None:
        images = [
            SourceImageForMeasurement(
                image.sop_class_uid, image.sop_instance_uid, frame_numbers(image)
            )
        ]
    derivation = measurement.derivation
    encoded = SrMeasurement(
        name=encoding.coded(measurement.name),
        value=float(measurement.value),
        unit=encoding.coded(measurement.unit),
        derivation=encoding.coded(derivation) if derivation else None,
        referenced_images=images,
    )
    # viewers show the decimal string as it stands; the exact value is beside it (C.18.1)
    encoded[0].MeasuredValueSequence[0].NumericValue = decimal_string(measurement.value)
    return encoded


def check_document(dataset: Dataset, context: ResultContext, others: Sequence[Dataset]) -> None:
    """Check flags, evidence and required attributes of a report that was read back.

    Raises:
        ResultError: naming what is wrong.
    """
    require_attributes(dataset, walked=(EVIDENCE,))
    flags = (dataset.CompletionFlag, dataset.VerificationFlag, dataset.PreliminaryFlag)
    wanted = ("PARTIAL" if shortcoming(context) else "COMPLETE", "UNVERIFIED", "PRELIMINARY")
    if flags != wanted:
        raise ResultError(f"the flags are {flags}, not {wanted} (OBJ-13)")
    listed = encoded.referenced_instances(
        dataset,
        EVIDENCE,
        (encoded.STUDY_INSTANCE_UID, encoded.REFERENCED_SERIES),
        (encoded.SERIES_INSTANCE_UID, encoded.REFERENCED_SOPS),
    )
    if set(listed) != {str(item.SOPInstanceUID) for item in [*context.sources, *others]}:
        raise ResultError("the evidence is not the sources and what was made of them (OBJ-11)")


def _predecessor(item: SupersededResult) -> Dataset:
    dataset = Dataset()
    dataset.SOPClassUID = item.sop_class_uid
    dataset.SOPInstanceUID = item.sop_instance_uid
    dataset.SeriesInstanceUID = item.series_instance_uid
    dataset.StudyInstanceUID = item.study_instance_uid
    return dataset


def _evidence(instances: Iterable[Dataset]) -> bytes:
    """Group instances by series of the one study (PS3.3 Table C.17-3)."""
    by_series: dict[str, list[Dataset]] = {}
    study = ""
    for instance in instances:
        study = instance.StudyInstanceUID
        by_series.setdefault(instance.SeriesInstanceUID, []).append(instance)
    series = b"".join(_series_item(uid, items) for uid, items in by_series.items())
    return explicit.item(
        explicit.sequence(encoded.REFERENCED_SERIES, series)
        + explicit.uid(encoded.STUDY_INSTANCE_UID, study)
    )


def _series_item(series_instance_uid: str, instances: Iterable[Dataset]) -> bytes:
    return explicit.item(
        explicit.sequence(encoded.REFERENCED_SOPS, explicit.references(instances))
        + explicit.uid(encoded.SERIES_INSTANCE_UID, series_instance_uid)
    )
