"""DICOM JSON of what a search finds, and which attributes can be searched by (PS3.18 10.6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

from pydicom.datadict import dictionary_VR, tag_for_keyword

from storage.holdings import HeldInstance, HeldStudy
from storage.records import SeriesAttributes

Json: TypeAlias = dict[str, object]

STUDY_COLUMNS: Final[Mapping[str, str]] = {
    "StudyInstanceUID": "study_instance_uid",
    "StudyDate": "study_date",
    "StudyTime": "study_time",
    "AccessionNumber": "accession_number",
    "ReferringPhysicianName": "referring_physician_name",
    "StudyDescription": "study_description",
    "PatientName": "patient_name",
    "PatientID": "patient_id",
    "IssuerOfPatientID": "issuer_of_patient_id",
    "PatientBirthDate": "patient_birth_date",
    "PatientSex": "patient_sex",
    "StudyID": "study_code",
}
SERIES_KEYS: Final = (
    "SeriesInstanceUID",
    "Modality",
    "SeriesNumber",
    "SeriesDescription",
    "BodyPartExamined",
)
INSTANCE_KEYS: Final = ("SOPInstanceUID", "SOPClassUID", "InstanceNumber")
FROM_SERIES_HEADER: Final = (
    *SERIES_KEYS[1:],
    "SeriesDate",
    "SeriesTime",
    "PerformedProcedureStepStartDate",
    "PerformedProcedureStepStartTime",
    "Manufacturer",
    "ManufacturerModelName",
)
FROM_INSTANCE_HEADER: Final = (
    "Rows",
    "Columns",
    "BitsAllocated",
    "NumberOfFrames",
    "InstanceNumber",
    "ContentDate",
    "ContentTime",
    "ContentTemplateSequence",
    "ConceptNameCodeSequence",
    "ContentLabel",
    "ContentDescription",
    "SegmentationType",
    "SegmentsOverlap",
    "CompletionFlag",
    "VerificationFlag",
    "PreliminaryFlag",
)
"""For images their size; for results what archives filter by (AIR-11)."""

SR: Final = "1.2.840.10008.5.1.4.1.1.88."
PR: Final = "1.2.840.10008.5.1.4.1.1.11."
MODALITIES: Final[Mapping[str, str]] = {
    "1.2.840.10008.5.1.4.1.1.66.4": "SEG",
    "1.2.840.10008.5.1.4.1.1.66.7": "SEG",
    "1.2.840.10008.5.1.4.1.1.88.59": "KO",
    "1.2.840.10008.5.1.4.1.1.91.1": "ANN",
    "1.2.840.10008.5.1.4.1.1.104.1": "DOC",
    "1.2.840.10008.5.1.4.1.1.481.3": "RTSTRUCT",
    **{f"{SR}{number}": "SR" for number in (11, 22, 33, 34, 50, 65, 67)},
    **{f"{PR}{number}": "PR" for number in range(1, 13)},
}
"""Modality of the result objects of a SOP class, where it follows from it."""


def tag(keyword: str) -> str:
    """Return a keyword's tag as JSON names it."""
    return f"{tag_for_keyword(keyword) or 0:08X}"


def element(keyword: str, *values: str | int) -> Json:
    """Return one attribute; without a value it is there and empty."""
    vr = dictionary_VR(tag_for_keyword(keyword) or 0)
    kept = [value for value in values if value != ""]
    if not kept:
        return {"vr": vr}
    if vr == "PN":
        return {"vr": vr, "Value": [_name(str(value)) for value in kept]}
    if vr in {"IS", "US", "UL"}:
        return {"vr": vr, "Value": [_whole(value) for value in kept]}
    return {"vr": vr, "Value": kept}


def _name(text: str) -> Json:
    """Return a person's name by its component groups (PS3.18 F.2.2)."""
    groups = ("Alphabetic", "Ideographic", "Phonetic")
    return {key: part for key, part in zip(groups, text.split("="), strict=False) if part}


def _whole(value: str | int) -> str | int:
    try:
        return int(value)
    except ValueError:
        return value


def study_json(held: HeldStudy, address: str) -> Json:
    """Return what is told of a study (PS3.18 table 10.6.3-3)."""
    found = held.study.attributes
    result_series = {series for series, _ in held.results}
    modalities = {*held.study.modalities, *result_modalities(held)}
    values: dict[str, tuple[str | int, ...]] = {
        "StudyDate": (found.study_date,),
        "StudyTime": (found.study_time,),
        "AccessionNumber": (found.accession_number,),
        "InstanceAvailability": ("ONLINE",),
        "ModalitiesInStudy": tuple(sorted(modalities)),
        "ReferringPhysicianName": (found.referring_physician_name,),
        "StudyDescription": (found.study_description,),
        "RetrieveURL": (address,),
        "PatientName": (found.patient_name,),
        "PatientID": (found.patient_id,),
        "IssuerOfPatientID": (found.issuer_of_patient_id,),
        "PatientBirthDate": (found.patient_birth_date,),
        "PatientSex": (found.patient_sex,),
        "StudyInstanceUID": (held.study.study_instance_uid,),
        "StudyID": (found.study_id,),
        "NumberOfStudyRelatedSeries": (held.series + len(result_series),),
        "NumberOfStudyRelatedInstances": (held.instances + sum(held.results.values()),),
    }
    return {tag(key): element(key, *value) for key, value in values.items()}


def result_modalities(held: HeldStudy) -> set[str]:
    """Return the modalities of a study's results, where their SOP class tells."""
    return {MODALITIES[sop_class] for _, sop_class in held.results if sop_class in MODALITIES}


def series_json(
    uid: str, attributes: SeriesAttributes | None, header: Json, count: int, address: str
) -> Json:
    """Return what is told of a series (PS3.18 table 10.6.3-4)."""
    found = dict(header)
    if attributes is not None:
        found |= {
            tag("Modality"): element("Modality", attributes.modality),
            tag("SeriesNumber"): element("SeriesNumber", attributes.series_number),
            tag("SeriesDescription"): element("SeriesDescription", attributes.series_description),
            tag("BodyPartExamined"): element("BodyPartExamined", attributes.body_part_examined),
        }
    found |= {
        tag("SeriesInstanceUID"): element("SeriesInstanceUID", uid),
        tag("NumberOfSeriesRelatedInstances"): element("NumberOfSeriesRelatedInstances", count),
        tag("RetrieveURL"): element("RetrieveURL", address),
    }
    return found


def instance_json(held: HeldInstance, header: Json, address: str) -> Json:
    """Return what is told of an instance (PS3.18 table 10.6.3-5)."""
    values = {
        "SOPClassUID": held.sop_class_uid,
        "SOPInstanceUID": held.sop_instance_uid,
        "InstanceAvailability": "ONLINE",
        "StudyInstanceUID": held.study_instance_uid,
        "SeriesInstanceUID": held.series_instance_uid,
        "AvailableTransferSyntaxUID": held.transfer_syntax_uid,
        "RetrieveURL": address,
    }
    return {**header, **{tag(key): element(key, value) for key, value in values.items()}}


def first_text(found: Mapping[str, object], keyword: str) -> str:
    """Return the first value of an attribute in JSON as text, or ""."""
    item = found.get(tag(keyword))
    values: Sequence[object] = item.get("Value", ()) if isinstance(item, dict) else ()
    return str(values[0]) if values else ""
