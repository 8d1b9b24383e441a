"""What every result object has in common (OBJ-01 to OBJ-09, OBJ-19, OBJ-21).

The library leaves two things to chance, the time of day and the Dimension Organization UID, and
leaves out or invents others. `complete` settles them all from the context, so that a second run
gives the same bytes (invariant 13).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Final, TypedDict

from highdicom import ContributingEquipment
from highdicom.sr import CodedConcept
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.sr.codedict import codes
from pydicom.uid import UID

from engines.findings import Code
from node.interfaces import (
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    ResultContext,
    ResultError,
)
from node.results import _identity as identity
from node.results._sources import cleaned, copy_patient_and_study, header_text
from node.results._text import LONG_STRING, SHORT_STRING, clean

UNVERIFIED: Final = " (unverified)"
DOCUMENT_MODALITIES: Final = ("SR", "KO", "DOC")
PAIRED: Final = ("L", "R")
"""Laterality of a paired body part; absent, not empty, for others (PS3.3 C.7.3.1)."""
PRIVATE_SCHEME: Final = "99"
"""Coding Scheme Designators that begin with this are private (PS3.16 8.2)."""

LIBRARY_ERRORS: Final = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    NotImplementedError,
    InvalidDicomError,
)
_OFFSET: Final = re.compile(r"([+-])(\d{2})(\d{2}) *")
_ACQUISITION: Final = {
    "manufacturer_model_name": "ManufacturerModelName",
    "device_serial_number": "DeviceSerialNumber",
    "software_versions": "SoftwareVersions",
    "institution_name": "InstitutionName",
    "institutional_department_name": "InstitutionalDepartmentName",
}


class CommonArguments(TypedDict):
    """What every constructor of the library is handed alike."""

    series_instance_uid: str
    series_number: int
    sop_instance_uid: str
    instance_number: int
    manufacturer: str
    specific_character_set: str
    contributing_equipment: list[ContributingEquipment]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where one object of a writer stands in the study."""

    writer: str
    series_instance_uid: str
    series_number: int
    description: str
    index: int = 0


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Turn what the library raises into a result error that names the object.

    Raises:
        ResultError: in place of the library's error.
    """
    try:
        yield
    except LIBRARY_ERRORS as error:
        raise ResultError(f"{what}: {type(error).__name__}: {str(error)[:300]}") from error


def common_arguments(context: ResultContext, place: Place) -> CommonArguments:
    """Return identity, number and equipment of one object."""
    return CommonArguments(
        series_instance_uid=place.series_instance_uid,
        series_number=place.series_number,
        sop_instance_uid=identity.instance_uid(context, place.writer, place.index),
        instance_number=context.generation,
        manufacturer=clean(context.device.manufacturer),
        specific_character_set="ISO_IR 192",
        contributing_equipment=_equipment(context),
    )


def complete(dataset: Dataset, context: ResultContext, place: Place) -> None:
    """Give an encoded object what the library leaves open; everything comes from the context."""
    copy_patient_and_study(context.sources[0], dataset)
    _set_file_meta(dataset)
    _set_times(dataset, context)
    _set_equipment(dataset, context)
    _set_series(dataset, context, place)
    _set_dimension_organization(dataset)
    _identify_private_schemes(dataset)


def coded(code: Code) -> CodedConcept:
    """Encode a coded concept."""
    return CodedConcept(
        value=clean(code.value),
        scheme_designator=clean(code.scheme, SHORT_STRING),
        meaning=clean(code.meaning),
    )


def parameters(context: ResultContext) -> dict[str, str]:
    """Return what identifies the weights and the operating point of the engine (OBJ-15)."""
    named = {clean(key): clean(value, 1024) for key, value in context.engine.parameters}
    return {"package-sha256": context.engine.digest, **named}


def described(context: ResultContext, what: str) -> str:
    """Word a series: "AI" first, "(unverified)" last, 64 characters at most (OBJ-09)."""
    room = LONG_STRING - len(UNVERIFIED)
    return clean(f"AI {context.engine.name} {what}", room) + UNVERIFIED


def _equipment(context: ResultContext) -> list[ContributingEquipment]:
    engine = context.engine
    processing = ContributingEquipment(
        manufacturer=clean(context.device.manufacturer),
        purpose_of_reference=codes.DCM.ProcessingEquipment,
        manufacturer_model_name=clean(context.device.model),
        software_versions=_software_versions(context),
        device_serial_number=clean(context.device.serial_number),
        station_name=clean(context.device.station_name, SHORT_STRING),
        contribution_datetime=_stamp(_local(context, context.created)),
        contribution_description=clean(f"AI inference {engine.name} {engine.version}", 1024),
    )
    return [*_acquisition_equipment(context.sources[0]), processing]


def _acquisition_equipment(source: Dataset) -> Iterator[ContributingEquipment]:
    manufacturer = header_text(source, "Manufacturer")
    if not manufacturer:
        return
    known = {name: header_text(source, keyword) for name, keyword in _ACQUISITION.items()}
    yield ContributingEquipment(
        manufacturer=manufacturer,
        purpose_of_reference=codes.DCM.AcquisitionEquipment,
        station_name=header_text(source, "StationName", SHORT_STRING) or None,
        contribution_description="Acquisition equipment of the source images",
        **{name: text for name, text in known.items() if text},
    )


def _software_versions(context: ResultContext) -> list[str]:
    return [
        clean(f"{context.device.model} {context.device.software_version}"),
        clean(f"{context.engine.name} {context.engine.version}"),
    ]


def _set_file_meta(dataset: Dataset) -> None:
    dataset.file_meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    dataset.file_meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME


def _set_times(dataset: Dataset, context: ResultContext) -> None:
    created = _local(context, context.created)
    series = _local(context, context.series_created)
    dataset.InstanceCreationDate, dataset.InstanceCreationTime = _date(created), _time(created)
    dataset.ContentDate, dataset.ContentTime = _date(created), _time(created)
    dataset.SeriesDate, dataset.SeriesTime = _date(series), _time(series)
    dataset.TimezoneOffsetFromUTC = created.strftime("%z")
    for item in dataset.ContributingEquipmentSequence:
        if item.get("ManufacturerModelName") == "highdicom":
            item.ContributionDateTime = _stamp(created)


def _set_equipment(dataset: Dataset, context: ResultContext) -> None:
    dataset.InstanceCreatorUID = identity.device_uid(context.device)
    dataset.ManufacturerModelName = clean(context.device.model)
    dataset.DeviceSerialNumber = clean(context.device.serial_number)
    dataset.SoftwareVersions = _software_versions(context)
    dataset.StationName = clean(context.device.station_name, SHORT_STRING)


def _set_series(dataset: Dataset, context: ResultContext, place: Place) -> None:
    dataset.SeriesDescription = place.description
    if dataset.Modality in DOCUMENT_MODALITIES:
        return
    body_part = cleaned(context.sources[0], "BodyPartExamined")
    if body_part is not None and not body_part.is_empty:
        dataset.add(body_part)
    laterality = header_text(context.sources[0], "Laterality", SHORT_STRING)
    if laterality in PAIRED:
        dataset.Laterality = laterality


def _set_dimension_organization(dataset: Dataset) -> None:
    uid = identity.derived_uid("dimension organization", str(dataset.SOPInstanceUID))
    for keyword in ("DimensionOrganizationSequence", "DimensionIndexSequence"):
        for item in dataset.get(keyword, ()):
            item.DimensionOrganizationUID = uid


def _identify_private_schemes(dataset: Dataset) -> None:
    """List private coding schemes in the object (PS3.3 C.12.1.1.2)."""
    found = sorted({text for text in _schemes(dataset) if text.startswith(PRIVATE_SCHEME)})
    items = []
    for designator in found:
        item = Dataset()
        item.CodingSchemeDesignator = designator
        item.CodingSchemeName = f"Private coding scheme {designator}"
        item.CodingSchemeResponsibleOrganization = dataset.Manufacturer
        items.append(item)
    if items:
        dataset.CodingSchemeIdentificationSequence = items


def _schemes(dataset: Dataset) -> Iterator[str]:
    for element in dataset.iterall():
        if element.keyword == "CodingSchemeDesignator":
            yield str(element.value)


def _local(context: ResultContext, moment: datetime) -> datetime:
    """Express a time in the offset that the source's own dates and times are in (OBJ-08)."""
    match = _OFFSET.fullmatch(header_text(context.sources[0], "TimezoneOffsetFromUTC", 5))
    if match is None:
        return moment
    sign = -1 if match[1] == "-" else 1
    minutes = sign * (int(match[2]) * 60 + int(match[3]))
    return moment.astimezone(timezone(timedelta(minutes=minutes)))


def _date(moment: datetime) -> str:
    return moment.strftime("%Y%m%d")


def _time(moment: datetime) -> str:
    return moment.strftime("%H%M%S.%f")


def _stamp(moment: datetime) -> str:
    return moment.strftime("%Y%m%d%H%M%S.%f%z")
